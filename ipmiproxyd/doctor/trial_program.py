"""What a trial console shows. One file, standard library only: a job gets it as a file, and it runs in the sandbox.

    python3 -I -S trial_program.py window RRGGBB          a window of this colour on the display
    python3 -I -S trial_program.py page RRGGBB PORT       a web page of this colour at 127.0.0.1; the job is told when

Both go on until they are ended.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys

READY = "/run/console/ready"
COOKIE = b"MIT-MAGIC-COOKIE-1"
CREATE_WINDOW, MAP_WINDOW, INPUT_OUTPUT, BACK_PIXEL = 1, 8, 1, 1 << 1
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Trial console</title>
<body style="margin: 0; background: #{0}; color: #{0}">This page shows that consoles work.</body></html>
"""


def cookie(path: str) -> bytes:
    """The display's secret: the last part of the file's first entry."""
    with open(path, "rb") as file:
        data = file.read()
    at, part = 2, b""
    for _ in range(4):
        (size,) = struct.unpack_from(">H", data, at)
        part, at = data[at + 2 : at + 2 + size], at + 2 + size
    return part


def receive(server: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = server.recv(size - len(data))
        if not more:
            sys.exit("The display closed the connection.")
        data += more
    return data


def window(colour: int) -> None:
    """A window as large as the screen."""
    server = socket.socket(socket.AF_UNIX)
    server.connect("/tmp/.X11-unix/X" + os.environ["DISPLAY"].lstrip(":"))  # noqa: S108 (the sandbox has its own /tmp)
    secret = cookie(os.environ["XAUTHORITY"])
    hello = struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(COOKIE), len(secret))
    server.sendall(hello + b"".join(part + bytes(-len(part) % 4) for part in (COOKIE, secret)))
    accepted, length = struct.unpack("<B5xH", receive(server, 8))
    setup = receive(server, 4 * length)
    if accepted != 1:
        sys.exit("The display refused the connection.")
    (mine,) = struct.unpack_from("<I", setup, 4)
    (vendor,) = struct.unpack_from("<H", setup, 16)
    screen = 32 + vendor + -vendor % 4 + 8 * setup[21]
    (root,) = struct.unpack_from("<I", setup, screen)
    width, height = struct.unpack_from("<HH", setup, screen + 20)
    place = struct.pack("<IIhhHHHHI", mine, root, 0, 0, width, height, 0, INPUT_OUTPUT, 0)
    server.sendall(struct.pack("<BBH", CREATE_WINDOW, 0, 9) + place + struct.pack("<II", BACK_PIXEL, colour))
    server.sendall(struct.pack("<BxHI", MAP_WINDOW, 2, mine))
    while True:
        answer = receive(server, 32)
        if answer[0] == 0:
            sys.exit("The display refused the window.")


def page(colour: str, port: int) -> None:
    """Whatever is asked for, it is this page."""
    body = PAGE.format(colour).encode()
    head = "HTTP/1.0 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n"
    answer = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.create_server(("127.0.0.1", port)) as server:
        with open(READY, "w", encoding="ascii") as told:
            told.write("page\n")
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                with client:
                    client.settimeout(10)
                    try:
                        client.recv(65536)
                        client.sendall(answer)
                    finally:
                        os._exit(0)
            client.close()


if __name__ == "__main__":
    if sys.argv[1] == "window":
        window(int(sys.argv[2], 16))
    else:
        page(sys.argv[2], int(sys.argv[3]))
