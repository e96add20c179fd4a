"""The SSH connection itself: which algorithms, whose host key, how to sign in. What goes wrong is put into words."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from twisted.conch.ssh.common import getNS
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from ipmiproxyd.agents.ssh_channel import Connection
from ipmiproxyd.agents.ssh_exchange import PacketTransport
from ipmiproxyd.agents.ssh_keys import Identity, SignIn, fingerprint
from ipmiproxyd.errors import AgentUnreachable, HostKeyChanged, HostKeyUnknown, KeyRefused, ProxyError

HOST_KEYS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "ED25519": (b"ssh-ed25519",),
    "ECDSA": (b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521"),
    "RSA": (b"rsa-sha2-512", b"rsa-sha2-256"),
}
"""The kinds of host keys, the best first, and the algorithms by which each may be shown."""
_OFFERED: Final = {
    "KexAlgorithms": "key exchange",
    "HostKeyAlgorithms": "kind of host key",
    "Ciphers": "cipher",
    "MACs": "MAC",
}
"""What two sides of SSH agree on, in the order in which they offer it: sshd's setting, and what it is."""
_NO_AUTH_LEFT: Final = 14


class Transport(PacketTransport):
    """One connection, as far as channels.

    :param keys: to sign in with.
    :param host_keys: fingerprints, of which the host's key must have one.
    :param kinds: of host keys (of HOST_KEYS) to ask for, the best first.
    :ivar connection: its channels; their ``started`` fires once signed in.
    :ivar lost: fires when it is over, with what there is to tell about it.
    :ivar shown: the fingerprint of the host's key, once it has shown it.
    """

    def __init__(
        self,
        place: str,
        user: str,
        keys: Sequence[Identity],
        host_keys: Collection[str],
        kinds: Sequence[str] = tuple(HOST_KEYS),
    ) -> None:
        super().__init__(Connection())
        self.supportedPublicKeys = [algorithm for kind in kinds for algorithm in HOST_KEYS[kind]]
        self.lost: Deferred[ProxyError] = Deferred()
        self.shown = ""
        self._place = place
        self._user = user
        self._keys = keys
        self._sign_in: SignIn | None = None
        self._host_keys = host_keys
        self._secure = False
        self._problem: ProxyError | None = None

    # --- what Conch calls ---------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        super().connectionMade()

    def verifyHostKey(self, hostKey: bytes, _md5: bytes) -> Deferred[bool]:  # noqa: N803 - Conch's
        self.shown = fingerprint(hostKey)
        if self.shown in self._host_keys:
            return succeed(True)
        self._problem = host_key_problem(self._place, {self.kind: self.shown}, self._host_keys)
        return fail(self._problem)

    def connectionSecure(self) -> None:
        if not self._secure:  # it is also called when the keys were exchanged anew
            self._secure = True
            self._sign_in = SignIn(self._user, self._keys, self.connection)
            self.requestService(self._sign_in)

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        self._says(reason, desc)
        super().sendDisconnect(reason, desc)

    def receiveError(self, reasonCode: int, description: bytes) -> None:  # noqa: N803 - Conch's
        self._says(reasonCode, description)

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        self.lost.callback(self._problem or self._lost(reason))

    # --- the way out --------------------------------------------------------------------------------------------------

    def abort(self, problem: ProxyError) -> None:
        """Give it up for this reason, unless another is known already."""

        self._problem = self._problem or problem
        if self.transport is not None:
            self.transport.abortConnection()

    # --- words --------------------------------------------------------------------------------------------------------

    def _says(self, code: int, words: bytes) -> None:
        if self._problem is not None:
            return
        said = "".join(letter for letter in words.decode("utf-8", "replace")[:200] if letter.isprintable())
        if code == _NO_AUTH_LEFT or "authentication" in said.lower():
            self._problem = self._not_let_in()
        elif "kex parts" in said:
            self._problem = self._nothing_in_common()
        else:
            self._problem = AgentUnreachable(f"The SSH connection to {self._place} was ended: {said}.")

    def _not_let_in(self) -> ProxyError:
        tried = ", ".join(fingerprint(key.blob) for key in self._keys)
        keys = "this key" if len(self._keys) == 1 else "any of these keys"
        problems = self._sign_in.problems if self._sign_in is not None else []
        return KeyRefused(
            " ".join([f"{self._place} does not let {self._user} in with {keys} ({tried}).", *problems]),
            hint="Put its public half into the user's ~/.ssh/authorized_keys there, and see what sshd logs.",
        )

    def _nothing_in_common(self) -> ProxyError:
        """What sshd would have to offer, in words; where it offers pieces of each, they do not go together."""

        offered, known = self.offered(), self.known()
        lacking = [setting for setting in _OFFERED if not set(offered[setting]) & set(known[setting])]
        lacking = lacking or ["Ciphers", "MACs"]
        words = [f"no {_OFFERED[setting]} in common: it offers {', '.join(offered[setting])}" for setting in lacking]
        needed = [f"{setting} {known[setting][0]}" for setting in lacking]
        return AgentUnreachable(
            f"{self._place} and this program have {'; '.join(words)}.",
            hint=f"Let its sshd accept (one of) these, too: {'; '.join(needed)}.",
        )

    # --- what was agreed on -------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """Which kind of host key it shows."""

        return next((kind for kind, names in HOST_KEYS.items() if self.keyAlg in names), "")

    def other_kinds(self) -> Sequence[str]:
        """The kinds of host keys that it has beside the one that it shows."""

        offered = {name.encode() for name in self.offered()["HostKeyAlgorithms"]}
        return [kind for kind, names in HOST_KEYS.items() if kind != self.kind and offered.intersection(names)]

    def offered(self) -> Mapping[str, Sequence[str]]:
        """What the host offers, by the name of sshd's setting; nothing before it has said so."""

        payload = getattr(self, "otherKexInitPayload", b"")
        if not payload:
            return dict.fromkeys(_OFFERED, ())
        lists = getNS(payload[17:], 6)
        chosen = (lists[0], lists[1], lists[2], lists[4])  # of ciphers and MACs those towards it
        return {
            setting: tuple(text.decode("ascii", "replace").split(","))
            for setting, text in zip(_OFFERED, chosen, strict=True)
        }

    def known(self) -> Mapping[str, Sequence[str]]:
        """What this program accepts, likewise."""

        lists = (self.supportedKeyExchanges, self.supportedPublicKeys, self.supportedCiphers, self.supportedMACs)
        return {
            setting: tuple(name.decode() for name in names) for setting, names in zip(_OFFERED, lists, strict=True)
        }

    def _lost(self, reason: Failure | None) -> ProxyError:
        error = reason.value if reason is not None else None
        if not self.gotVersion:
            return AgentUnreachable(
                f"{self._place} does not answer as an SSH server: it hung up.",
                hint="Check host= and port=; and that its sshd does not shut us out (MaxStartups, PerSourcePenalties, "
                "a firewall).",
            )
        if isinstance(error, ConnectionAborted | ConnectionDone | ConnectionLost) or error is None:
            return AgentUnreachable(f"The SSH connection to {self._place} was lost.")
        return AgentUnreachable(f"The SSH connection to {self._place} broke: {error}.")


def host_key_problem(place: str, shown: Mapping[str, str], trusted: Collection[str]) -> ProxyError:
    """What there is to say of host keys (kind → fingerprint) that are not the ``trusted`` ones."""

    keys = ", ".join(f"{print_} ({kind})" for kind, print_ in shown.items())
    details = {"host_keys": [{"kind": kind, "fingerprint": print_} for kind, print_ in shown.items()]}
    if trusted:
        return HostKeyChanged(
            f"{place} has another host key than the one that is trusted: {keys}.",
            hint="If the host was set up anew, set this as its host_key; if not, somebody may be in between.",
            details=details,
        )
    return HostKeyUnknown(
        f"Nobody has said yet which host key {place} has. It shows {keys}.",
        hint="Compare it with the host's own (there: ssh-keygen -lf /etc/ssh/ssh_host_…_key.pub), and say "
        f"host_key={next(iter(shown.values()))} to confirm it.",
        details=details,
    )
