package ipmiproxyd;

import java.applet.Applet;
import java.applet.AppletContext;
import java.applet.AppletStub;
import java.applet.AudioClip;
import java.awt.BorderLayout;
import java.awt.Dimension;
import java.awt.Frame;
import java.awt.Image;
import java.awt.Toolkit;
import java.awt.event.WindowAdapter;
import java.awt.event.WindowEvent;
import java.io.InputStream;
import java.net.MalformedURLException;
import java.net.URL;
import java.util.Collections;
import java.util.Enumeration;
import java.util.Iterator;
import java.util.Locale;
import java.util.Map;

/** The browser around an applet: a window of its size, parameters, and links that lead nowhere. */
final class AppletHost implements AppletStub, AppletContext {
    /** A smaller one has windows of its own. */
    private static final int SMALLEST = 100;

    private final Applet applet;
    private final Frame frame;
    private final Map<String, String> parameters;
    private final URL codebase;
    private final URL document;
    private volatile boolean active;

    AppletHost(Applet applet, Map<String, String> words, Map<String, String> parameters) throws MalformedURLException {
        this.applet = applet;
        this.parameters = parameters;
        codebase = new URL(words.get("codebase"));
        document = new URL(words.get("document"));
        frame = new Frame(words.containsKey("name") ? words.get("name") : "console");
        String[] size = words.get("applet").split("x");
        Dimension wanted = new Dimension(Integer.parseInt(size[0]), Integer.parseInt(size[1]));
        applet.setPreferredSize(wanted);
        applet.setSize(wanted);
    }

    /** On this thread, as browsers did: many an applet waits in there for what the thread of events has to do. */
    void run() {
        applet.setStub(this);
        frame.setLayout(new BorderLayout());
        frame.add(applet, BorderLayout.CENTER);
        frame.addWindowListener(new WindowAdapter() {
            @Override
            public void windowClosing(WindowEvent event) {
                end();
            }
        });
        Dimension size = applet.getSize();
        if (size.width >= SMALLEST && size.height >= SMALLEST) {
            frame.pack();
            frame.setVisible(true);
        }
        applet.init();
        active = true;
        applet.start();
        frame.validate();
    }

    private void end() {
        new Thread("end") {
            @Override
            public void run() {
                active = false;
                try {
                    applet.stop();
                    applet.destroy();
                } finally {
                    System.exit(0);
                }
            }
        }.start();
    }

    @Override
    public boolean isActive() {
        return active;
    }

    @Override
    public URL getDocumentBase() {
        return document;
    }

    @Override
    public URL getCodeBase() {
        return codebase;
    }

    @Override
    public String getParameter(String name) {
        return parameters.get(name.toLowerCase(Locale.ROOT));
    }

    @Override
    public AppletContext getAppletContext() {
        return this;
    }

    @Override
    public void appletResize(int width, int height) {
        applet.setPreferredSize(new Dimension(width, height));
        if (frame.isVisible()) {
            frame.pack();
        }
    }

    @Override
    public AudioClip getAudioClip(URL url) {
        return new AudioClip() {
            @Override
            public void play() {}

            @Override
            public void loop() {}

            @Override
            public void stop() {}
        };
    }

    @Override
    public Image getImage(URL url) {
        return Toolkit.getDefaultToolkit().getImage(url);
    }

    @Override
    public Applet getApplet(String name) {
        return null;
    }

    @Override
    public Enumeration<Applet> getApplets() {
        return Collections.enumeration(Collections.singleton(applet));
    }

    @Override
    public void showDocument(URL url) {}

    @Override
    public void showDocument(URL url, String target) {}

    @Override
    public void showStatus(String status) {}

    @Override
    public void setStream(String key, InputStream stream) {}

    @Override
    public InputStream getStream(String key) {
        return null;
    }

    @Override
    public Iterator<String> getStreamKeys() {
        return Collections.<String>emptyList().iterator();
    }
}
