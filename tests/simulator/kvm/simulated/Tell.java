package simulated;

import java.io.File;
import java.security.Security;

/** Tells how it was started, for tests: what the launcher and the Java know. */
public final class Tell {
    private Tell() {}

    public static void main(String[] args) throws Exception {
        System.err.println("java=" + System.getProperty("java.version"));
        System.err.println("home=" + System.getProperty("user.home"));
        System.err.println("disabled=" + Security.getProperty("jdk.tls.disabledAlgorithms")
            + Security.getProperty("jdk.certpath.disabledAlgorithms") + Security.getProperty("jdk.jar.disabledAlgorithms"));
        System.err.println("property=" + System.getProperty("simulated.word"));
        System.err.println("stdin=" + System.in.read());
        System.err.println("hsperfdata=" + (new File("/tmp/hsperfdata_" + System.getProperty("user.name")).exists()));
        System.err.println("heap=" + (Runtime.getRuntime().maxMemory() >> 20));
        int sum = 0;
        for (String argument : args) {
            sum += argument.hashCode();
            System.err.println("argument=" + argument);
        }
        System.err.println("sum=" + sum);
        System.err.println("end=");
        Thread.sleep(60000);
    }
}
