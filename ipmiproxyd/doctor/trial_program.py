"""What a trial console shows. One file, standard library only: a job gets it as a file, and it runs in the sandbox.

    python3 -I -S trial_program.py window RRGGBB          a window of this colour on the display
    python3 -I -S trial_program.py page RRGGBB PORT       a web page of this colour at 127.0.0.1; the job is told when

Both go on until they are ended; the page also ends by itself, with one line, if the browser that asks for it runs
without its sandbox.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import sys
import threading

READY = "/run/console/ready"
COOKIE = b"MIT-MAGIC-COOKIE-1"
CREATE_WINDOW, MAP_WINDOW, INPUT_OUTPUT, BACK_PIXEL = 1, 8, 1, 1 << 1
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Trial console</title>
<link rel="stylesheet" href="/colour.css"><body>This page shows that consoles work.</body></html>
"""
COLOUR = b"/colour.css"
"""Asked for by the very process that shows the page, which has its sandbox by then."""
STYLE = "html, body {{ margin: 0; background: #{0}; color: #{0}; }}"
HEAD = "HTTP/1.0 200 OK\r\nContent-Type: {}; charset=utf-8\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n"


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


def told(process: str) -> dict[str, str]:
    """Of a process's folder in /proc: its status, by name."""
    with open(f"{process}/status", encoding="utf-8", errors="replace") as file:
        return dict(line.split(":", 1) for line in file if ":" in line)


def confined(status: dict[str, str], own: dict[str, str]) -> bool:
    """Whether a process has a process namespace of its own, and more filters of system calls than we have. All here
    have that of the console's sandbox; before Linux 5.9 they are not counted."""
    filters = [int(one.get("Seccomp_filters", 0)) for one in (status, own)]
    counted = "Seccomp_filters" in own
    spaces = [len(one["NSpid"].split()) for one in (status, own)]
    return spaces[0] > spaces[1] and (filters[0] > filters[1] if counted else status["Seccomp"].strip() == "2")


def unsafe(proc: str = "/proc") -> str:
    """What shows that the browser has no sandbox; empty if it has one."""
    own, pages, safe = told(f"{proc}/self"), 0, 0
    for pid in filter(str.isdigit, os.listdir(proc)):
        with contextlib.suppress(OSError, KeyError):  # it may have ended
            with open(f"{proc}/{pid}/cmdline", "rb") as file:
                options = re.split(rb"[\0 ]", file.read())  # those that Chromium has written anew have blanks
            if b"--no-sandbox" in options:
                return "--no-sandbox is among its options"
            if b"--type=renderer" in options:
                pages += 1
                safe += confined(told(f"{proc}/{pid}"), own)
    if safe:
        return ""
    return "the process that shows the page is not confined" if pages else "no process of its own shows the page"


def answer(client: socket.socket, colour: str) -> None:
    with client, contextlib.suppress(OSError):
        client.settimeout(10)
        request = client.recv(65536).split(b" ", 2)
        kind, text = "text/html", PAGE
        if request[1:2] == [COLOUR]:
            problem = unsafe()
            if problem:
                print(f"The browser runs without its sandbox: {problem}.", file=sys.stderr, flush=True)
                os._exit(1)
            kind, text = "text/css", STYLE.format(colour)
        client.sendall((HEAD.format(kind, len(text)) + text).encode())


def page(colour: str, port: int) -> None:
    """Whatever is asked for, it is this page; but its colour is told only to a browser in its sandbox."""
    with socket.create_server(("127.0.0.1", port)) as server:
        with open(READY, "w", encoding="ascii") as ready:
            ready.write("page\n")
        while True:
            client, _ = server.accept()
            threading.Thread(target=answer, args=(client, colour), daemon=True).start()


if __name__ == "__main__":
    if sys.argv[1] == "window":
        window(int(sys.argv[2], 16))
    else:
        page(sys.argv[2], int(sys.argv[3]))
