package com.kvm;

import java.applet.Applet;
import java.awt.BorderLayout;
import java.io.IOException;
import simulated.Screen;
import simulated.Target;
import simulated.Viewer;

/** Huawei's console is an applet that shows the screen in the page. */
public final class KVMApplet extends Applet {
    private static final long serialVersionUID = 1;

    @Override
    public void init() {
        try {
            Screen screen = Viewer.connect(new Target(getParameter("IPA"), getParameter("verifyValueExt"), getParameter("port")));
            setLayout(new BorderLayout());
            add(screen, BorderLayout.CENTER);
            validate();
            screen.requestFocusInWindow();
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }
}
