package simulated;

import java.awt.Color;
import java.awt.Dimension;
import java.awt.Font;
import java.awt.Graphics;
import java.awt.event.KeyEvent;
import java.awt.event.MouseEvent;
import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.List;
import javax.swing.JComponent;

/** The server's screen: lines of text, of which the last shows what was typed. */
public final class Screen extends JComponent {
    /** Of the screen; tests look for it. */
    static final Color BACKGROUND = new Color(12, 60, 96);

    private final PrintWriter out;
    private final List<String> lines = new ArrayList<String>();
    private String typed = "";

    Screen(String name, PrintWriter out) {
        this.out = out;
        lines.add(name);
        lines.add("simulated console");
        lines.add("");
        setPreferredSize(new Dimension(720, 400));
        setFocusable(true);
        setFocusTraversalKeysEnabled(false);
        enableEvents(KeyEvent.KEY_EVENT_MASK | MouseEvent.MOUSE_EVENT_MASK);
    }

    void write(String line) {
        lines.add(line);
        repaint();
    }

    @Override
    protected void paintComponent(Graphics graphics) {
        graphics.setColor(BACKGROUND);
        graphics.fillRect(0, 0, getWidth(), getHeight());
        graphics.setColor(Color.WHITE);
        graphics.setFont(new Font(Font.MONOSPACED, Font.PLAIN, 16));
        int y = 30;
        for (String line : lines) {
            graphics.drawString(line, 20, y);
            y += 20;
        }
        graphics.drawString("> " + typed + "_", 20, y);
    }

    @Override
    protected void processKeyEvent(KeyEvent event) {
        if (event.getID() == KeyEvent.KEY_PRESSED) {
            char letter = event.getKeyChar();
            int code = letter == KeyEvent.CHAR_UNDEFINED ? 0 : letter;
            say("KEY " + KeyEvent.getKeyText(event.getKeyCode()).replace(' ', '-') + " " + code);
            typed = code >= ' ' && code != 127 ? typed + letter : typed;
            repaint();
        }
        event.consume();
    }

    @Override
    protected void processMouseEvent(MouseEvent event) {
        if (event.getID() == MouseEvent.MOUSE_PRESSED) {
            requestFocusInWindow();
            say("CLICK " + event.getButton() + " " + event.getX() + " " + event.getY());
        }
        super.processMouseEvent(event);
    }

    private void say(String line) {
        out.println(line);
    }
}
