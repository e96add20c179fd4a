"""Network namespaces without names: each is held by an open descriptor of this process, and ends with it.

A thread of root's may be in another network namespace for a moment. A socket that it makes there, or a process that
it starts there, stays there. That is all that a test needs::

    with namespace.entered():
        reactor.connectTCP("10.77.1.2", 22, factory)
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from zope.interface import directlyProvides, providedBy

_CLONE_NEWNET: Final = 0x40000000
_MINE: Final = "/proc/thread-self/ns/net"
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}; network namespaces need root")


class NetworkNamespace:
    """:param descriptor: of the namespace; it is ours from now on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def make(cls) -> NetworkNamespace:
        """A new one: nothing in it but ``lo``, which is up."""

        mine = os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("unshare", _CLONE_NEWNET)
            try:
                made = cls(os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC))
            finally:
                _call("setns", mine, _CLONE_NEWNET)
        finally:
            os.close(mine)
        made.ip("link set lo up")
        return made

    @classmethod
    def of(cls, pid: int) -> NetworkNamespace:
        return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """It ends once nothing else holds it, and with it the interfaces in it."""

        os.close(self._descriptor)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in it. Nothing may be awaited meanwhile."""

        mine = os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self._descriptor, _CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", mine, _CLONE_NEWNET)
        finally:
            os.close(mine)

    def ip(self, *commands: str) -> None:
        """Commands of ``ip``, in a row."""

        self.run(["ip", "-batch", "-"], "\n".join(commands))

    def run(self, argv: Sequence[str], text: str = "") -> str:
        """A short program in it; its output. It must succeed."""

        with self.entered():
            done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise AssertionError(f"{argv[0]} {text} ended with {done.returncode}: {done.stderr}")
        return done.stdout


class ReactorIn:
    """The reactor, whose sockets and processes are in another network namespace."""

    def __init__(self, reactor: Any, namespace: NetworkNamespace) -> None:
        self._reactor = reactor
        self._namespace = namespace
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._reactor, name)
        if name not in ("connectTCP", "connectSSL", "listenTCP", "listenSSL", "listenUDP", "spawnProcess"):
            return method

        def inside(*arguments: Any, **named: Any) -> Any:
            with self._namespace.entered():
                return method(*arguments, **named)

        return inside
