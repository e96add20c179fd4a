package ipmiproxyd;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.jar.JarOutputStream;
import java.util.zip.GZIPInputStream;

/**
 * Unpacks a jar that was packed by pack200, as the program unpack200 did until Java 13: Unpack FROM.jar.pack.gz TO.jar.
 * Needs Apache's commons-compress (1.21 or later, as its makers publish it) in the class path.
 */
public final class Unpack {
    private static final String PACK200 = "org.apache.commons.compress.java.util.jar.Pack200";

    private Unpack() {}

    public static void main(String[] args) throws Exception {
        Object unpacker = Class.forName(PACK200).getMethod("newUnpacker").invoke(null);
        // All at once: the library looks behind streams that filter another, which Java 9 and later do not let it.
        ByteArrayOutputStream plain = new ByteArrayOutputStream();
        try (InputStream packed = new GZIPInputStream(new FileInputStream(args[0]))) {
            byte[] buffer = new byte[65536];
            for (int size = packed.read(buffer); size >= 0; size = packed.read(buffer)) {
                plain.write(buffer, 0, size);
            }
        }
        try (InputStream in = new ByteArrayInputStream(plain.toByteArray());
            OutputStream file = new FileOutputStream(args[1]);
            JarOutputStream out = new JarOutputStream(file)) {
            Class.forName(PACK200 + "$Unpacker")
                .getMethod("unpack", InputStream.class, JarOutputStream.class)
                .invoke(unpacker, in, out);
        }
    }
}
