package com.hp.ilo2.intgapp;

import java.applet.Applet;
import java.io.IOException;
import simulated.Target;
import simulated.Viewer;

/** iLO's console is an applet that opens a window of its own. */
public final class intgapp extends Applet {
    private static final long serialVersionUID = 1;

    @Override
    public void start() {
        String port = getParameter("RCINFO6") == null ? getParameter("INFO1") : getParameter("RCINFO6");
        Target target = new Target(getDocumentBase().getHost(), getParameter("RCINFO1"), port);
        try {
            Viewer.show(Viewer.connect(target), "iLO Integrated Remote Console " + getCodeBase().getHost());
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }
}
