package simulated;

import java.awt.BorderLayout;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.net.InetSocketAddress;
import java.net.Socket;
import javax.swing.JFrame;
import javax.swing.JOptionPane;
import javax.swing.SwingUtilities;

/**
 * A vendor's viewer: connects, says its token, shows the server's screen, passes on keys and clicks.
 *
 * <pre>
 *   viewer: TOKEN token            server: OK name   (or it closes the connection)
 *   viewer: KEY name code          server: TEXT a line for the screen
 *   viewer: CLICK button x y
 * </pre>
 */
public final class Viewer {
    private Viewer() {}

    /** As a program. */
    public static void main(Target target, String vendor, boolean hasLibrary) throws IOException {
        if (hasLibrary) {
            Native.check();
        }
        if (Boolean.getBoolean("simulated.dialog")) {
            JOptionPane.showMessageDialog(null, "The vendor wants to be answered.");
        }
        show(connect(target), vendor + " " + target.host);
    }

    /** Its window, that ends the program when it is closed. */
    public static void show(final Screen screen, final String title) {
        // No lambdas: nothing that packs by pack200 takes them.
        SwingUtilities.invokeLater(new Runnable() {
            @Override
            public void run() {
                JFrame frame = new JFrame(title);
                frame.setDefaultCloseOperation(JFrame.EXIT_ON_CLOSE);
                frame.add(screen, BorderLayout.CENTER);
                frame.setSize(800, 600);
                frame.setVisible(true);
                screen.requestFocusInWindow();
            }
        });
    }

    /** The screen of a viewer that is connected. */
    public static Screen connect(Target target) throws IOException {
        Socket socket = new Socket();
        socket.connect(new InetSocketAddress(target.host, target.port), 10000);
        socket.setTcpNoDelay(true);
        PrintWriter out = new PrintWriter(socket.getOutputStream(), true);
        final BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream(), "UTF-8"));
        out.println("TOKEN " + target.token);
        String answer = in.readLine();
        if (answer == null || !answer.startsWith("OK ")) {
            System.err.println("The server did not accept the viewer's token");
            System.exit(3);
        }
        final Screen screen = new Screen(answer.substring(3), out);
        Thread reader = new Thread("reader") {
            @Override
            public void run() {
                read(in, screen);
            }
        };
        reader.setDaemon(true);
        reader.start();
        return screen;
    }

    private static void read(BufferedReader in, final Screen screen) {
        try {
            String line;
            while ((line = in.readLine()) != null) {
                if (line.startsWith("TEXT ")) {
                    final String text = line.substring(5);
                    SwingUtilities.invokeLater(new Runnable() {
                        @Override
                        public void run() {
                            screen.write(text);
                        }
                    });
                }
            }
        } catch (IOException gone) {
            // As when it ends.
        }
        System.err.println("The server closed the viewer's connection");
        System.exit(4);
    }
}
