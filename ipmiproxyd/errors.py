"""One tree of exceptions that a user may meet.

Every class carries a stable ``code``: the same word stands on the control line, in the relay's HTTP answers and
in WebSocket close reasons. The message is plain words for the person who waits; the hint says what to do.
Neither may contain a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self


class ProxyError(Exception):
    """Base of everything that is told to a user.

    :ivar message: one sentence, plain words.
    :ivar hint: what the user can do about it, or None.
    :ivar details: the same for programs: further members of the object on the control line.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: Mapping[str, Any] = details or {}

    def again(self) -> Self:
        """The same in a new exception: each that is raised gets a traceback of its own."""

        return type(self)(self.message, hint=self.hint, details=self.details)


class InternalError(ProxyError):
    """A fault of ours: the log knows more."""

    code = "internal"


class BadRequest(ProxyError):
    """The line or the HTTP request cannot be read."""

    code = "bad-request"
    http_status = 400


class UnknownCommand(ProxyError):
    """There is no such noun or verb."""

    code = "unknown-command"
    http_status = 404


class UnknownArgument(ProxyError):
    """The command has no argument of this name."""

    code = "unknown-argument"
    http_status = 400


class MissingArgument(ProxyError):
    """The command needs an argument that was not given."""

    code = "missing-argument"
    http_status = 400


class BadValue(ProxyError):
    """An argument's value is not of the declared type or range."""

    code = "bad-value"
    http_status = 400


class NotFound(ProxyError):
    """The named device, console or agent does not exist."""

    code = "not-found"
    http_status = 404


class Exists(ProxyError):
    """The name is taken, or the device already has a console that may not be shared."""

    code = "exists"
    http_status = 409


class InUse(ProxyError):
    """Something that is open needs it as it is."""

    code = "in-use"
    http_status = 409


class Forbidden(ProxyError):
    """The caller has no right to this."""

    code = "forbidden"
    http_status = 403


class NoFreePort(ProxyError):
    """Every relay port is in use, resting, or held by another program."""

    code = "no-free-port"
    http_status = 503


class NoFreeDisplay(ProxyError):
    """Every display number of the agent is in use."""

    code = "no-free-display"
    http_status = 503


class LimitReached(ProxyError):
    """A configured limit (consoles per agent, per user, …) forbids one more."""

    code = "limit"
    http_status = 503


class AgentUnreachable(ProxyError):
    """The agent host, or its runner, cannot be used."""

    code = "agent-unreachable"
    http_status = 503


class HostKeyChanged(ProxyError):
    """The agent's host shows another SSH key than the one that is trusted."""

    code = "agent-host-key"
    http_status = 503


class HostKeyUnknown(ProxyError):
    """Nobody has said yet which SSH key the agent's host has. ``host_keys`` has those that it shows."""

    code = "agent-host-key-unknown"
    http_status = 503


class KeyRefused(ProxyError):
    """The agent's host does not let the SSH user in with the key, or the key cannot be used."""

    code = "agent-key"
    http_status = 503


class AgentOutdated(ProxyError):
    """The runner that is installed on the agent is another one than the daemon's."""

    code = "agent-outdated"
    http_status = 503


class SudoRefused(ProxyError):
    """The administrator's account on the agent may not do there what root may."""

    code = "agent-sudo"
    http_status = 503


class SystemUnsupported(ProxyError):
    """The agent's host runs a system that cannot be provisioned."""

    code = "system-unsupported"
    http_status = 503


class PackagesFailed(ProxyError):
    """The package manager of the agent's host did not do what it was asked for."""

    code = "packages-failed"
    http_status = 503


class Busy(ProxyError):
    """Somebody else is doing such a thing with the agent just now."""

    code = "busy"
    http_status = 409


class AgentFull(ProxyError):
    """The agent has not enough memory, or room on its disk, left for another console."""

    code = "agent-full"
    http_status = 503


class ToolMissing(ProxyError):
    """A program that is needed is not installed on the agent."""

    code = "tool-missing"
    http_status = 503


class JobFailed(ProxyError):
    """A console's program ended before its window was there, or died later."""

    code = "job-failed"
    http_status = 502


class BmcUnreachable(ProxyError):
    """The BMC, or its web panel, does not answer."""

    code = "bmc-unreachable"
    http_status = 502


class BmcAuth(ProxyError):
    """The BMC refused the user name or the password."""

    code = "bmc-auth"
    http_status = 502


class BadCertificate(ProxyError):
    """A server's TLS certificate is not the one that is expected, or nobody vouches for it."""

    code = "bad-certificate"
    http_status = 502


class BmcPrivilege(ProxyError):
    """The BMC's user may not do this."""

    code = "bmc-privilege"
    http_status = 502


class BmcState(ProxyError):
    """The server is not in a state in which this can be done (already off, …)."""

    code = "bmc-state"
    http_status = 409


class BmcUnsupported(ProxyError):
    """The BMC does not know the command, or offers no cipher suite that we accept."""

    code = "bmc-unsupported"
    http_status = 502


class BmcError(ProxyError):
    """The BMC answered with an error of another kind."""

    code = "bmc-error"
    http_status = 502


class NoSlot(ProxyError):
    """The BMC's web panel has no free session: it allows only a few at a time."""

    code = "bmc-no-slot"
    http_status = 503


class NoLicence(ProxyError):
    """The BMC lacks the licence for a remote console."""

    code = "bmc-no-licence"
    http_status = 502


class Html5Only(ProxyError):
    """The BMC offers its remote console as a page only, not as a Java program."""

    code = "bmc-html5-only"
    http_status = 502


class BmcLocked(ProxyError):
    """The BMC accepts no sign-in for a while, mostly after wrong passwords."""

    code = "bmc-locked"
    http_status = 503


class TlsTooOld(ProxyError):
    """The panel's TLS is older than anything that can be spoken here."""

    code = "bmc-tls-too-old"
    http_status = 502


class VendorUnknown(ProxyError):
    """What kind of panel the BMC has was not found out."""

    code = "vendor-unknown"
    http_status = 502


class BadJnlp(ProxyError):
    """The description of the Java console is not one, or asks for something that it may not have."""

    code = "bad-jnlp"
    http_status = 502


class TimedOut(ProxyError):
    """It took longer than its time limit."""

    code = "timeout"
    http_status = 504


class Cancelled(ProxyError):
    """The caller went away, or the thing was closed while it was being opened."""

    code = "cancelled"
    http_status = 499


def all_errors() -> list[type[ProxyError]]:
    """Every class of the tree, in the order of this file: what the documentation lists."""

    return list(ProxyError.__subclasses__())
