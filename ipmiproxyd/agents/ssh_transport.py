"""The SSH connection itself: which algorithms, whose host key, how to sign in. What goes wrong is put into words."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from twisted.conch.ssh.common import NS
from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, Key
from twisted.conch.ssh.userauth import MSG_USERAUTH_REQUEST, SSHUserAuthClient
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from ipmiproxyd.agents.ssh_channel import QUIET, Connection
from ipmiproxyd.agents.ssh_exchange import PacketTransport
from ipmiproxyd.errors import AgentUnreachable, HostKeyChanged, ProxyError
from ipmiproxyd.model import Secret

HOST_KEYS: Final = (
    b"ssh-ed25519",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"rsa-sha2-512",
    b"rsa-sha2-256",
)
_NO_AUTH_LEFT: Final = 14


def fingerprint(blob: bytes) -> str:
    """Of a public key, as OpenSSH shows it."""

    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def load_key(path: str, passphrase: Secret) -> Key:
    """A private key from its file. Blocks: the derivation of an encrypted key's own key takes its time. Raises
    AgentUnreachable."""

    try:
        key: Key = Key.fromFile(path, passphrase=passphrase.reveal() or None)
    except OSError as error:
        problem = f"The SSH key {path} cannot be read: {error.strerror}."
    except EncryptedKeyError:
        problem = f"The SSH key {path} is encrypted, and its passphrase is {'wrong' if passphrase else 'not set'}."
    except (BadKeyError, UnsupportedAlgorithm, ValueError, TypeError, IndexError):
        problem = f"{path} is no SSH key that can be used here (Ed25519, ECDSA or RSA), or its passphrase is wrong."
    else:
        if not key.isPublic() and key.type() != "DSA":
            return key
        problem = f"{path} is no private SSH key that can be used here (Ed25519, ECDSA or RSA)."
    raise AgentUnreachable(problem, hint="Check agents.NAME.key and agents.NAME.passphrase-file.")


class SignIn(SSHUserAuthClient):
    """Signs in with one key, or not at all."""

    _log = QUIET
    preferredOrder = [b"publickey"]  # noqa: RUF012 - Conch's attribute

    def __init__(self, user: str, key: Key, connection: Connection) -> None:
        super().__init__(user.encode(), connection)
        self._key = key
        self._tried = False

    def tryAuth(self, kind: bytes) -> Deferred[bool] | None:
        """Conch's own asks first whether the key would do, and signs for RSA with SHA-1 only."""

        if kind != b"publickey" or self._tried:
            return None
        self._tried = True
        transport: Any = self.transport
        algorithm = self._algorithm(transport.peerExtensions.get(b"server-sig-algs", b""))
        key = NS(algorithm) + NS(self._key.public().blob())
        head = NS(self.user) + NS(self.instance.name) + NS(b"publickey") + b"\x01" + key
        signed = NS(transport.sessionID) + bytes((MSG_USERAUTH_REQUEST,)) + head
        self.askForAuth(b"publickey", b"\x01" + key + NS(self._key.sign(signed, algorithm)))
        return succeed(True)

    def _algorithm(self, accepted: bytes) -> bytes:
        if self._key.type() != "RSA":
            own: bytes = self._key.sshType()
            return own
        return b"rsa-sha2-256" if b"rsa-sha2-512" not in accepted.split(b",") else b"rsa-sha2-512"


class Transport(PacketTransport):
    """One connection, as far as channels.

    :param host_keys: fingerprints, of which the host's key must have one.
    :ivar connection: its channels; their ``started`` fires once signed in.
    :ivar lost: fires when it is over, with what there is to tell about it.
    """

    supportedPublicKeys = list(HOST_KEYS)  # noqa: RUF012 - Conch's attribute

    def __init__(self, place: str, user: str, key: Key, host_keys: Collection[str]) -> None:
        super().__init__(Connection())
        self.lost: Deferred[ProxyError] = Deferred()
        self._place = place
        self._user = user
        self._key = key
        self._host_keys = host_keys
        self._secure = False
        self._problem: ProxyError | None = None

    # --- what Conch calls ---------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        super().connectionMade()

    def verifyHostKey(self, hostKey: bytes, _md5: bytes) -> Deferred[bool]:  # noqa: N803 - Conch's
        offered = fingerprint(hostKey)
        if offered in self._host_keys:
            return succeed(True)
        if self._host_keys:
            self._problem = HostKeyChanged(
                f"{self._place} has another host key than the one that is trusted: {offered}.",
                hint="If the host was set up anew, set this as its host-key; if not, somebody may be in between.",
            )
        else:
            self._problem = HostKeyChanged(
                f"Nobody has said yet which host key {self._place} has. It shows {offered}.",
                hint="Compare it with the host's own (ssh-keygen -lf), and set it as the agent's host-key.",
            )
        return fail(self._problem)

    def connectionSecure(self) -> None:
        if not self._secure:  # it is also called when the keys were exchanged anew
            self._secure = True
            self.requestService(SignIn(self._user, self._key, self.connection))

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
            self._problem = AgentUnreachable(
                f"{self._place} does not let {self._user} in with this key ({fingerprint(self._key.public().blob())}).",
                hint="Put its public half into the user's ~/.ssh/authorized_keys there, and see what sshd logs.",
            )
        elif "kex parts" in said:
            self._problem = AgentUnreachable(
                f"{self._place} and this program know no common algorithm of SSH.",
                hint="Let its sshd accept aes128-gcm@openssh.com or aes256-ctr, hmac-sha2-256 and curve25519-sha256.",
            )
        else:
            self._problem = AgentUnreachable(f"The SSH connection to {self._place} was ended: {said}.")

    def _lost(self, reason: Failure | None) -> ProxyError:
        error = reason.value if reason is not None else None
        if not self.gotVersion:
            return AgentUnreachable(f"{self._place} does not answer as an SSH server: it hung up.")
        if isinstance(error, ConnectionAborted | ConnectionDone | ConnectionLost) or error is None:
            return AgentUnreachable(f"The SSH connection to {self._place} was lost.")
        return AgentUnreachable(f"The SSH connection to {self._place} broke: {error}.")
