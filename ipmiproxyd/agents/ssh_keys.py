"""The keys that the daemon signs in with: from a file, or held by an ssh-agent."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.conch.error import ConchError
from twisted.conch.ssh.agent import AGENTC_SIGN_REQUEST, SSHAgentClient
from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.keys import EncryptedKeyError, Key
from twisted.conch.ssh.userauth import MSG_USERAUTH_REQUEST, SSHUserAuthClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TooSlow
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from ipmiproxyd.agents.ssh_channel import QUIET, Connection
from ipmiproxyd.errors import KeyRefused
from ipmiproxyd.model import SSH_AGENT, Secret

KINDS: Final = (b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521", b"ssh-rsa")
"""The keys that can sign here, as SSH calls them."""
TRIED: Final = 5
"""Keys of an ssh-agent that are tried: sshd's MaxAuthTries is 6."""
AGENT_LIMIT: Final = 10.0
"""Seconds in which an ssh-agent has to answer; it may ask its owner."""
AGENT_ANSWER: Final = 256 << 10
"""Bytes that an answer of an ssh-agent may have."""

_EVERYBODY: Final = 0o007
_PKCS8: Final = (b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
"""The beginning of files that Conch does not read."""
_SHA2: Final = {b"rsa-sha2-256": 2, b"rsa-sha2-512": 4}


def fingerprint(blob: bytes) -> str:
    """Of a public key, as OpenSSH shows it."""

    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


class Identity(Protocol):
    """A key to sign in with: ``kind`` is one of KINDS, ``blob`` its public half."""

    kind: bytes
    blob: bytes

    async def sign(self, data: bytes, algorithm: bytes) -> bytes:
        """The signature as SSH writes it. Raises KeyRefused."""


class FileIdentity:
    """A private key that was read from a file."""

    def __init__(self, key: Key) -> None:
        self.kind: bytes = key.sshType()
        self.blob: bytes = key.public().blob()
        self._key = key

    async def sign(self, data: bytes, algorithm: bytes) -> bytes:
        signature: bytes = self._key.sign(data, algorithm)
        return signature


class AgentIdentity:
    """A private key that an ssh-agent holds."""

    def __init__(self, reactor: Any, client: _AgentClient, blob: bytes) -> None:
        self.kind: bytes = getNS(blob)[0]
        self.blob = blob
        self._reactor = reactor
        self._client = client

    async def sign(self, data: bytes, algorithm: bytes) -> bytes:
        flags = struct.pack("!L", _SHA2.get(algorithm, 0))  # Conch's own request has none: RSA would be SHA-1
        client: Any = self._client
        asked: Deferred[bytes] = client.sendRequest(AGENTC_SIGN_REQUEST, NS(self.blob) + NS(data) + flags)
        try:
            answer = await asked.addTimeout(AGENT_LIMIT, self._reactor)
        except (ConchError, TooSlow):
            raise KeyRefused(f"The ssh-agent does not sign with the key {fingerprint(self.blob)}.") from None
        signature: bytes = getNS(answer[1:])[0]
        if self.kind == b"ssh-rsa" and getNS(signature)[0] != algorithm:
            raise KeyRefused("The ssh-agent is too old to sign with RSA and SHA-2.")
        return signature


class _AgentClient(SSHAgentClient):
    """Conch's does not tell those who wait that the ssh-agent hung up."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        if len(self.buf) > AGENT_ANSWER or not self.deferreds:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        waiting, self.deferreds = self.deferreds, []
        for one in waiting:
            one.errback(ConchError("it hung up"))


@asynccontextmanager
async def identities(reactor: Any, key: str, passphrase: Secret) -> AsyncIterator[Sequence[Identity]]:
    """The keys to try, for as long as the sign-in takes. Raises KeyRefused.

    :param key: the path of a private key's file, or SSH_AGENT.
    """

    if key != SSH_AGENT:
        yield [FileIdentity(await deferToThread(load_key, key, passphrase))]
        return
    client = await _ssh_agent(reactor)
    try:
        yield await _held(reactor, client)
    finally:
        client.transport.abortConnection()


async def public_keys(reactor: Any, key: str, passphrase: Secret) -> Sequence[str]:
    """The public halves of the keys to try, as lines of authorized_keys. Raises KeyRefused. See :func:`identities`."""

    async with identities(reactor, key, passphrase) as found:
        return [f"{one.kind.decode()} {base64.b64encode(one.blob).decode()}" for one in found]


async def _ssh_agent(reactor: Any) -> _AgentClient:
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise KeyRefused(
            "The daemon knows of no ssh-agent: SSH_AUTH_SOCK is not set where it runs.",
            hint="Set it for the daemon (systemctl edit ipmiproxyd: Environment=SSH_AUTH_SOCK=…), or name a file.",
        )
    try:
        client: _AgentClient = await connectProtocol(
            UNIXClientEndpoint(reactor, path, timeout=AGENT_LIMIT), _AgentClient()  # type: ignore[no-untyped-call]
        )
    except CancelledError:
        raise
    except Exception as error:
        raise KeyRefused(f"The ssh-agent at {path} cannot be reached: {error}.") from None
    return client


async def _held(reactor: Any, client: Any) -> Sequence[Identity]:
    try:
        keys = await client.requestIdentities().addTimeout(AGENT_LIMIT, reactor)
    except (ConchError, TooSlow, struct.error, IndexError) as error:
        raise KeyRefused(f"The ssh-agent does not tell its keys: {error or 'it did not answer'}.") from None
    usable = [AgentIdentity(reactor, client, blob) for blob, _ in keys if getNS(blob)[0] in KINDS]
    if not usable:
        raise KeyRefused(
            "The ssh-agent holds no key that can be used here (Ed25519, ECDSA or RSA).",
            hint="Give it one: ssh-add FILE",
        )
    return usable[:TRIED]


def load_key(path: str, passphrase: Secret) -> Key:
    """A private key from its file. Blocks: the derivation of an encrypted key's own key takes its time. Raises
    KeyRefused."""

    hint = "Check the agent's key and its passphrase."
    try:
        data, mode = _read(path)
        key = _parsed(data, passphrase)
        can_sign = not key.isPublic() and key.sshType() in KINDS
    except OSError as error:
        problem = f"The SSH key {path} cannot be read: {error.strerror}."
    except EncryptedKeyError:
        problem = f"The SSH key {path} is encrypted, and its passphrase is {'wrong' if passphrase else 'not set'}."
    except Exception:  # Conch lets out whatever a malformed key brings about
        problem = f"{path} is no SSH key that can be used here (Ed25519, ECDSA or RSA), or its passphrase is wrong."
    else:
        if key.isPublic():
            problem = f"{path} is the public half of an SSH key; the private one is needed here."
            hint = f"key={path.removesuffix('.pub')}" if path.endswith(".pub") else hint
        elif not can_sign:
            problem = f"{path} is no private SSH key that can be used here (Ed25519, ECDSA or RSA)."
        elif mode & _EVERYBODY:
            problem = f"The SSH key {path} is not secret: everybody on this machine may read or change it."
            hint = f"chmod 0600 {path}; and if others may have read it, make a new one."
        else:
            return key
    raise KeyRefused(problem, hint=hint)


def load_passphrase(path: str) -> Secret:
    """A key's passphrase, from a file that has nothing else in it. Raises KeyRefused."""

    hint = "Check the agent's passphrase-file."
    try:
        data, mode = _read(path)
        passphrase = data.decode().rstrip("\n")
    except OSError as error:
        problem = f"The passphrase file {path} cannot be read: {error.strerror}."
    except ValueError:
        problem = f"The passphrase file {path} is no text (in UTF-8)."
    else:
        if not mode & _EVERYBODY:
            return Secret(passphrase)
        problem = f"The passphrase file {path} is not secret: everybody on this machine may read or change it."
        hint = f"chmod 0600 {path}; and if others may have read it, give the key a new one (ssh-keygen -p)."
    raise KeyRefused(problem, hint=hint) from None


def _read(path: str) -> tuple[bytes, int]:
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no ordinary file")
        return file.read(64 << 10), mode


def _parsed(data: bytes, passphrase: Secret) -> Key:
    try:
        return _from_text(data, passphrase.reveal())
    except Exception:
        if not passphrase:
            raise
    try:
        return _from_text(data, "")  # it is not encrypted at all
    except EncryptedKeyError:
        raise EncryptedKeyError from None


def _from_text(data: bytes, passphrase: str) -> Key:
    if not data.startswith(_PKCS8):
        key: Key = Key.fromString(data, passphrase=passphrase or None)
        return key
    try:
        return Key(load_pem_private_key(data, passphrase.encode() or None))
    except TypeError:
        raise EncryptedKeyError from None


class SignIn(SSHUserAuthClient):
    """Signs in with one of some keys, or not at all.

    :ivar problems: what hindered one of them, in words.
    """

    _log = QUIET
    preferredOrder = [b"publickey"]  # noqa: RUF012 - Conch's attribute

    def __init__(self, user: str, keys: Sequence[Identity], connection: Connection) -> None:
        super().__init__(user.encode(), connection)
        self._keys = list(keys)
        self.problems: list[str] = []

    def tryAuth(self, kind: bytes) -> Deferred[bool] | None:
        """Conch's own asks first whether the key would do, and signs for RSA with SHA-1 only."""

        if kind != b"publickey" or not self._keys:
            return None
        return Deferred.fromCoroutine(self._try_next())

    async def _try_next(self) -> bool:
        transport: Any = self.transport
        while self._keys:
            identity = self._keys.pop(0)
            algorithm = _algorithm(identity.kind, transport.peerExtensions.get(b"server-sig-algs", b""))
            key = NS(algorithm) + NS(identity.blob)
            head = NS(self.user) + NS(self.instance.name) + NS(b"publickey") + b"\x01" + key
            try:
                signature = await identity.sign(
                    NS(transport.sessionID) + bytes((MSG_USERAUTH_REQUEST,)) + head, algorithm
                )
            except KeyRefused as error:
                self.problems.append(error.message)
                continue
            self.askForAuth(b"publickey", b"\x01" + key + NS(signature))
            return True
        return False


def _algorithm(kind: bytes, accepted: bytes) -> bytes:
    if kind != b"ssh-rsa":
        return kind
    return b"rsa-sha2-256" if b"rsa-sha2-512" not in accepted.split(b",") else b"rsa-sha2-512"
