package ipmiproxyd;

import java.applet.Applet;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.jar.Attributes;
import java.util.jar.JarFile;
import java.util.jar.Manifest;

/**
 * Starts a vendor's program with arguments that come by standard input, so that they are in no command line. Each line
 * is a word, a space and a text, in which \n, \r and \\ stand for a new line, a return and a backslash:
 *
 * <pre>
 *   main CLASS             the main class; without one the first of the jars that names one in its manifest decides
 *   jar FILE               one of the class path's
 *   argument TEXT
 *   property NAME=TEXT     a system property
 *   applet WIDTHxHEIGHT    the class is an applet
 *   name TEXT, codebase URL, document URL, parameter NAME=TEXT       of the applet
 *   start                  the last line: without it nothing is started
 * </pre>
 *
 * It runs on Java 7 and whatever came later. What the program prints is passed on without its arguments' texts.
 */
public final class Launcher {
    /** Shorter texts are no secrets: true, 5900, en. */
    private static final int SECRET_LENGTH = 6;

    final List<String> jars = new ArrayList<String>();
    final List<String> arguments = new ArrayList<String>();
    final Map<String, String> parameters = new HashMap<String, String>();
    final Map<String, String> words = new HashMap<String, String>();

    private Launcher() {}

    public static void main(String[] none) throws Throwable {
        Launcher launcher = new Launcher();
        if (!launcher.read(System.in)) {
            System.err.println("The launcher was not told what to start");
            System.exit(2);
        }
        System.setIn(new ByteArrayInputStream(new byte[0]));
        launcher.start();
    }

    private boolean read(InputStream in) throws IOException {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        byte[] buffer = new byte[8192];
        for (int size = in.read(buffer); size >= 0; size = in.read(buffer)) {
            all.write(buffer, 0, size);
        }
        for (String line : all.toString("UTF-8").split("\n")) {
            if (line.equals("start")) {
                return true;
            }
            int space = line.indexOf(' ');
            if (space > 0) {
                take(line.substring(0, space), unescaped(line.substring(space + 1)));
            }
        }
        return false;
    }

    private static String unescaped(String text) {
        StringBuilder plain = new StringBuilder();
        for (int at = 0; at < text.length(); at++) {
            char letter = text.charAt(at);
            if (letter == '\\' && at + 1 < text.length()) {
                letter = text.charAt(++at);
                letter = letter == 'n' ? '\n' : letter == 'r' ? '\r' : letter;
            }
            plain.append(letter);
        }
        return plain.toString();
    }

    private void take(String word, String text) {
        int sign = text.indexOf('=');
        if (word.equals("jar")) {
            jars.add(text);
        } else if (word.equals("argument")) {
            arguments.add(text);
        } else if (word.equals("property") && sign > 0) {
            System.setProperty(text.substring(0, sign), text.substring(sign + 1));
        } else if (word.equals("parameter") && sign > 0) {
            parameters.put(text.substring(0, sign).toLowerCase(Locale.ROOT), text.substring(sign + 1));
        } else {
            words.put(word, text);
        }
    }

    private void start() throws Throwable {
        List<String> secrets = new ArrayList<String>();
        for (String text : arguments) {
            secrets.add(text);
            secrets.add(text.substring(text.indexOf('=') + 1));
        }
        secrets.addAll(parameters.values());
        System.setOut(discreet(System.out, secrets));
        System.setErr(discreet(System.err, secrets));
        String name = words.containsKey("main") ? words.get("main") : named();
        Class<?> program = Class.forName(name, true, ClassLoader.getSystemClassLoader());
        try {
            if (words.containsKey("applet")) {
                Applet applet = (Applet) program.getDeclaredConstructor().newInstance();
                new AppletHost(applet, words, parameters).run();
            } else {
                Method main = program.getMethod("main", String[].class);
                main.setAccessible(true);
                main.invoke(null, (Object) arguments.toArray(new String[0]));
            }
        } catch (InvocationTargetException error) {
            throw error.getCause();
        }
    }

    private String named() throws IOException {
        for (String jar : jars) {
            JarFile file = new JarFile(new File(jar), false);
            try {
                Manifest manifest = file.getManifest();
                String name = manifest == null ? null : manifest.getMainAttributes().getValue(Attributes.Name.MAIN_CLASS);
                if (name != null) {
                    return name.trim();
                }
            } finally {
                file.close();
            }
        }
        System.err.println("Neither the description nor the program names a main class");
        System.exit(2);
        return null;
    }

    private static PrintStream discreet(PrintStream out, List<String> secrets) throws IOException {
        List<byte[]> hidden = new ArrayList<byte[]>();
        for (String secret : secrets) {
            for (String line : secret.split("[\r\n]+")) {
                if (line.length() >= SECRET_LENGTH) {
                    hidden.add(line.getBytes("UTF-8"));
                }
            }
        }
        // One may be a part of another.
        Collections.sort(hidden, new Comparator<byte[]>() {
            @Override
            public int compare(byte[] one, byte[] other) {
                return other.length - one.length;
            }
        });
        return new PrintStream(new Discreet(out, hidden), true, "UTF-8");
    }

    /** Passes on whole lines, in which some texts become stars. */
    private static final class Discreet extends OutputStream {
        private static final int LONGEST = 65536;

        private final OutputStream out;
        private final List<byte[]> hidden;
        private final ByteArrayOutputStream line = new ByteArrayOutputStream();

        Discreet(OutputStream out, List<byte[]> hidden) {
            this.out = out;
            this.hidden = hidden;
        }

        @Override
        public synchronized void write(int octet) throws IOException {
            line.write(octet);
            if (octet == '\n' || line.size() >= LONGEST) {
                String text = line.toString("ISO-8859-1");
                line.reset();
                for (byte[] secret : hidden) {
                    text = text.replace(new String(secret, "ISO-8859-1"), "***");
                }
                out.write(text.getBytes("ISO-8859-1"));
                out.flush();
            }
        }

        @Override
        public synchronized void write(byte[] data, int start, int length) throws IOException {
            for (int at = start; at < start + length; at++) {
                write(data[at]);
            }
        }
    }
}
