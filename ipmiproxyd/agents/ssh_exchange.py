"""Conch's client with packets of our own making: more ciphers, less work per packet, a key exchange into which nobody
slips messages ("strict", see OpenSSH's PROTOCOL), and a limit to what waits to be sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from twisted.conch.ssh.common import NS, ffs, getNS
from twisted.conch.ssh.connection import MSG_CHANNEL_DATA
from twisted.conch.ssh.transport import (
    DISCONNECT_PROTOCOL_ERROR,
    MSG_DISCONNECT,
    MSG_KEXINIT,
    MSG_NEWKEYS,
    MSG_UNIMPLEMENTED,
    SSHClientTransport,
)

from ipmiproxyd.agents.ssh_channel import QUIET, Connection
from ipmiproxyd.agents.ssh_packets import (
    AUTHENTICATE,
    CHACHA,
    CIPHERS,
    MACS,
    Agreed,
    BadPacket,
    Mode,
    PacketReader,
    PacketWriter,
)

READ: Final = 128 << 10
"""Bytes that are read at once; then it is the others' turn."""
HELD_BACK: Final = 4 << 20
"""Bytes that may wait besides what channels send: answers to a host that asks and asks, but reads nothing."""

_STRICT_CLIENT: Final = b"kex-strict-c-v00@openssh.com"
_STRICT_SERVER: Final = b"kex-strict-s-v00@openssh.com"
_ALWAYS: Final = range(MSG_DISCONNECT, 5)
_EXCHANGE: Final = range(30, 50)


class _NextKeys:
    """What was agreed upon, and from it what protects the packets, as soon as there are keys. Has what Conch sets and
    looks at.

    :ivar incoming: None until then.
    """

    def __init__(self, outgoing: Agreed, incoming: Agreed) -> None:
        self._agreed = (outgoing, incoming)
        self.outgoing: Mode | None = None
        self.incoming: Mode | None = None
        self.encBlockSize = 0

    def setKeys(self, *keys: bytes) -> None:
        out_nonce, out_key, in_nonce, in_key, out_mac, in_mac = keys
        outgoing, incoming = self._agreed
        self.outgoing = outgoing.mode(out_nonce, out_key, out_mac)
        self.incoming = incoming.mode(in_nonce, in_key, in_mac)
        self.encBlockSize = self.outgoing.block


class PacketTransport(SSHClientTransport):
    """An SSH connection up to its packets. ``verifyHostKey`` has to know at once: hosts go on.

    :ivar connection: told of what comes in for its channels, and whether it can send.
    :ivar heard: counts what came in.
    """

    _log = QUIET
    supportedCiphers = list(CIPHERS)  # noqa: RUF012 - Conch's attributes
    supportedMACs = list(MACS)  # noqa: RUF012
    supportedCompressions = [b"none"]  # noqa: RUF012
    supportedKeyExchanges = [  # noqa: RUF012
        *(name for name in SSHClientTransport.supportedKeyExchanges if not name.endswith(b"sha1")),
        _STRICT_CLIENT,
    ]
    transport: Any
    nextEncryptions: Any = None

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.heard = 0
        self._reader = PacketReader()
        self._writer = PacketWriter()
        self._strict = False
        self._bare = True  # they have had no keys yet
        self._theirs = True  # their key exchange goes on: from their KEXINIT to their NEWKEYS, and at first
        self._over = False
        self._full = False  # the transport's buffer
        self._held_back = 0

    def connectionMade(self) -> None:
        self.transport.bufferSize = READ
        self.transport.registerProducer(self, True)
        super().connectionMade()  # type: ignore[no-untyped-call]

    # --- inwards ------------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        self.heard += 1
        if not self.gotVersion:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
            data, self.buf = (self.buf, b"") if self.gotVersion else (b"", self.buf)
        if not data or self._over:
            return
        try:
            self._take(self._reader.read(data))
        except BadPacket as bad:
            self.sendDisconnect(bad.code, bad.words)
        finally:
            self.connection.hand_out()
        self._renew_keys()

    def _take(self, payloads: Iterator[memoryview]) -> None:
        for payload in payloads:
            if payload[0] == MSG_CHANNEL_DATA and not self._theirs and self.service is self.connection:
                self.connection.data(payload)
            else:
                self._message(payload[0], bytes(payload[1:]))
            if self._over:
                return

    def getPacket(self) -> None:
        """For Conch there are none, while it waits for the host's version."""

    def _message(self, number: int, payload: bytes) -> None:
        first = self.sessionID is None
        if number in _ALWAYS:
            fits = not (self._strict and self._bare) or number == MSG_DISCONNECT
        elif number == MSG_KEXINIT:
            fits = not self._theirs or (first and self.nextEncryptions is None)
        elif number == MSG_NEWKEYS or number in _EXCHANGE:
            agreed = self.nextEncryptions
            fits = self._theirs and agreed is not None and (agreed.incoming is None) == (number != MSG_NEWKEYS)
        else:
            fits = not self._theirs
        if fits:
            self.dispatchMessage(number, payload)  # type: ignore[no-untyped-call]
        else:
            self.sendDisconnect(DISCONNECT_PROTOCOL_ERROR, b"message %d out of turn" % number)

    def sendUnimplemented(self) -> None:
        rejected = (self._reader.sequence - 1) & 0xFFFFFFFF
        self.sendPacket(MSG_UNIMPLEMENTED, rejected.to_bytes(4, "big"))

    # --- outwards -----------------------------------------------------------------------------------------------------

    def sendPacket(self, messageType: int, payload: bytes) -> None:  # noqa: N803 - Conch's names
        exchanging = self._keyExchangeState != self._KEY_EXCHANGE_NONE
        if (exchanging or self._full) and not self._may_wait(len(payload)):
            return
        if exchanging and not self._allowedKeyExchangeMessageType(messageType):  # type: ignore[no-untyped-call]
            self._blockedByKeyExchange.append((messageType, payload))
        else:
            self.send(messageType.to_bytes(1, "big"), payload)

    def send(self, *payload: bytes | memoryview) -> None:
        """One packet, now."""

        self.transport.writeSequence(self._writer.packet(*payload))

    def _may_wait(self, size: int) -> bool:
        self._held_back += size + 64
        if self._held_back > HELD_BACK and not self._over:
            self._over = True
            self.receiveError(DISCONNECT_PROTOCOL_ERROR, b"it asks, but does not read the answers")  # type: ignore[no-untyped-call]
            self.transport.abortConnection()
        return not self._over

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        super().sendDisconnect(reason, desc)  # type: ignore[no-untyped-call]
        self._over = True

    def pauseProducing(self) -> None:
        self._full = True
        self._tell_connection()

    def resumeProducing(self) -> None:
        self._full = False
        self._tell_connection()

    def stopProducing(self) -> None:
        """``connectionLost`` tells."""

    def _tell_connection(self) -> None:
        if self._full or self._keyExchangeState != self._KEY_EXCHANGE_NONE:
            self.connection.is_clogged = True
        else:
            self._held_back = 0
            self.connection.unclogged()

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _renew_keys(self) -> None:
        worn = self._reader.is_worn or self._writer.is_worn
        if worn and self._keyExchangeState == self._KEY_EXCHANGE_NONE and not self._over:
            self.sendKexInit()

    def sendKexInit(self) -> None:
        super().sendKexInit()  # type: ignore[no-untyped-call]
        self._tell_connection()

    def ssh_KEXINIT(self, packet: bytes) -> None:
        self._theirs = True
        names = _names(packet)
        if self.sessionID is None:
            self._strict = _STRICT_SERVER in names[0].split(b",")
            if self._strict and self._reader.sequence != 1:
                self.sendDisconnect(DISCONNECT_PROTOCOL_ERROR, b"the key exchange does not come first")
                return
        if CHACHA in _ciphers(names) and not self._strict:
            # Else messages may go missing at the beginning, and nobody would know (CVE-2023-48795).
            self.sendDisconnect(DISCONNECT_PROTOCOL_ERROR, b"its ChaCha20 needs a strict key exchange")
            return
        super().ssh_KEXINIT(packet[:16] + b"".join(map(NS, _any_mac(names))) + packet[-5:])  # type: ignore[no-untyped-call]
        self.otherKexInitPayload = bytes((MSG_KEXINIT,)) + packet
        if not self._over:
            agreed = self.nextEncryptions
            self.nextEncryptions = _NextKeys(
                Agreed(agreed.outCipType, agreed.outMACType), Agreed(agreed.inCipType, agreed.inMACType)
            )

    def _keySetup(self, sharedSecret: bytes, exchangeHash: bytes) -> None:  # noqa: N803
        super()._keySetup(sharedSecret, exchangeHash)  # type: ignore[no-untyped-call]
        self._writer.use(self.nextEncryptions.outgoing, restart=self._strict)

    def ssh_NEWKEYS(self, packet: bytes) -> None:
        keys = self.nextEncryptions
        if packet:
            self.sendDisconnect(DISCONNECT_PROTOCOL_ERROR, b"NEWKEYS takes no data")
            return
        self._reader.use(keys.incoming, restart=self._strict)
        self._bare = self._theirs = False
        self._newKeys()  # type: ignore[no-untyped-call]
        self._tell_connection()
        self.connectionSecure()  # type: ignore[no-untyped-call]


def _names(kexinit: bytes) -> list[bytes]:
    """The ten lists of names in it."""

    *names, _ = getNS(kexinit[16:], 10)
    return names


def _ciphers(names: list[bytes]) -> list[bytes | None]:
    """What is agreed upon, for either direction."""

    return [ffs(CIPHERS, names[at].split(b",")) for at in (2, 3)]


def _any_mac(names: list[bytes]) -> list[bytes]:
    """The same, but where the cipher authenticates, any MAC will do."""

    ours = b",".join(MACS)
    macs = [ours if cipher in AUTHENTICATE else names[at] for at, cipher in enumerate(_ciphers(names), 4)]
    return names[:4] + macs + names[6:]
