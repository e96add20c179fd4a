"""Our streams over SSH beside OpenSSH's own, ``ssh -L``: what a byte and a round trip cost, and who grows.

All go to the same sshd, and through it to the synthetic VNC server of :mod:`benchmarks.relay`, which gives the load
generator, the cases and the report, too. Schemes: ``stream``, a port that is forwarded to a UNIX socket behind sshd;
``relay``, a browser's WebSocket through the whole daemon to a TCP port behind it.
"""
