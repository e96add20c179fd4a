import java.io.FileOutputStream;
import java.io.OutputStream;
import java.util.jar.JarFile;
import java.util.zip.GZIPOutputStream;
import org.apache.commons.compress.java.util.jar.Pack200;

/** Packs a jar by pack200, which the JDK itself cannot do since Java 14: Pack IN.jar OUT.jar.pack.gz. */
public final class Pack {
    private Pack() {}

    public static void main(String[] args) throws Exception {
        try (JarFile jar = new JarFile(args[0]);
            OutputStream out = new GZIPOutputStream(new FileOutputStream(args[1]))) {
            Pack200.newPacker().pack(jar, out);
        }
    }
}
