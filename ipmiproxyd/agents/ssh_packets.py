"""Packets of SSH as they go over the wire (RFC 4253 §6): their length, padding, encryption and authentication.

AES-GCM (RFC 5647, as OpenSSH uses it: the length is authenticated, not encrypted); AES-CTR with an HMAC, either of the
packet before it was encrypted, or ("-etm") of the encrypted packet, and then the length is not encrypted; where a host
wants nothing else, ChaCha20 with Poly1305 (OpenSSH's PROTOCOL.chacha20poly1305: the length has a key of its own).
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.poly1305 import Poly1305

GCM: Final = (b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com")
CHACHA: Final = b"chacha20-poly1305@openssh.com"
CIPHERS: Final = (*GCM, b"aes256-ctr", b"aes192-ctr", b"aes128-ctr", CHACHA)
"""The quickest first: AES-GCM takes a fifth of what AES-CTR with an HMAC does."""
AUTHENTICATE: Final = (*GCM, CHACHA)
"""Ciphers that do so themselves: the MAC that was agreed upon does not count."""
ETM: Final = b"-etm@openssh.com"
MACS: Final = (b"hmac-sha2-256" + ETM, b"hmac-sha2-512" + ETM, b"hmac-sha2-256", b"hmac-sha2-512")

LONGEST: Final = 256 << 10
"""Bytes of the longest packet; OpenSSH's limit, too."""
REKEY_BYTES: Final = 32 << 30
"""Keys are exchanged anew after so many bytes in one direction: half of what AES lets one send (RFC 4344 §3.2)."""
REKEY_PACKETS: Final = 1 << 31
"""The same in packets (RFC 4344 §3.1): their number of 32 bits must not come again."""

PROTOCOL_ERROR: Final = 2
MAC_ERROR: Final = 5

_BLOCK: Final = 16
_LENGTH: Final = struct.Struct(">L")
_COUNTER: Final = struct.Struct(">Q")


class BadPacket(Exception):
    """The other side sent what is no packet. ``code`` is SSH's."""

    def __init__(self, code: int, words: bytes) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class Mode(Protocol):
    """How packets of one direction are protected.

    :ivar block: what is padded is a multiple of this.
    :ivar first: bytes of a packet that tell its length.
    :ivar skipped: bytes in front that do not count for the padding: those of the length, if it is not encrypted with
        the rest.
    :ivar tag: bytes behind the packet.
    """

    @property
    def block(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def skipped(self) -> int: ...
    @property
    def tag(self) -> int: ...

    def length(self, sequence: int, data: memoryview, at: int, /) -> int:
        """Of the packet that begins there. Called once for each."""

    def open(self, sequence: int, frame: memoryview, /) -> bytes | memoryview:
        """What follows the length, of a whole packet with its tag. Raises BadPacket."""

    def seal(self, sequence: int, length: bytes, body: bytes, /) -> Sequence[bytes]:
        """The packet's pieces with its tag."""


class Plain:
    """Nothing protects them."""

    block = 8
    first = 4
    skipped = 0
    tag = 0

    def length(self, _sequence: int, data: memoryview, at: int) -> int:
        (length,) = _LENGTH.unpack_from(data, at)
        return int(length)

    def open(self, _sequence: int, frame: memoryview) -> memoryview:
        return frame[4:]

    def seal(self, _sequence: int, length: bytes, body: bytes) -> Sequence[bytes]:
        return length, body


class Gcm:
    """The nonce is a fixed part of 4 bytes, and a number of 8 that counts the packets."""

    block = _BLOCK
    first = 4
    skipped = 4
    tag = 16

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._aead = AESGCM(key)
        self._fixed = nonce[:4]
        self._count = int.from_bytes(nonce[4:12], "big")

    def _nonce(self) -> bytes:
        count = self._count
        self._count = (count + 1) & 0xFFFFFFFFFFFFFFFF
        return self._fixed + _COUNTER.pack(count)

    def length(self, _sequence: int, data: memoryview, at: int) -> int:
        (length,) = _LENGTH.unpack_from(data, at)
        return int(length)

    def open(self, _sequence: int, frame: memoryview) -> bytes:
        try:
            return self._aead.decrypt(self._nonce(), frame[4:], frame[:4])
        except InvalidTag:
            raise BadPacket(MAC_ERROR, b"bad MAC") from None

    def seal(self, _sequence: int, length: bytes, body: bytes) -> Sequence[bytes]:
        return length, self._aead.encrypt(self._nonce(), body, length)


class _Hmac:
    def __init__(self, name: bytes, key: bytes) -> None:
        digest = "sha512" if b"512" in name else "sha256"
        self.size = 64 if b"512" in name else 32
        self._keyed = hmac.new(key[: self.size], None, digest)

    def of(self, sequence: int, *pieces: bytes | memoryview) -> bytes:
        mac = self._keyed.copy()
        mac.update(_LENGTH.pack(sequence))
        for piece in pieces:
            mac.update(piece)
        return mac.digest()

    def check(self, tag: memoryview, sequence: int, *pieces: bytes | memoryview) -> None:
        if not hmac.compare_digest(tag, self.of(sequence, *pieces)):
            raise BadPacket(MAC_ERROR, b"bad MAC")


class CtrEtm:
    """AES-CTR, and then an HMAC of what is encrypted. One object serves one direction."""

    block = _BLOCK
    first = 4
    skipped = 4

    def __init__(self, key: bytes, nonce: bytes, mac: bytes, mac_key: bytes) -> None:
        self._stream = Cipher(algorithms.AES(key), modes.CTR(nonce[:_BLOCK])).encryptor()  # both ways the same
        self._mac = _Hmac(mac, mac_key)
        self.tag = self._mac.size

    def length(self, _sequence: int, data: memoryview, at: int) -> int:
        (length,) = _LENGTH.unpack_from(data, at)
        return int(length)

    def open(self, sequence: int, frame: memoryview) -> bytes:
        self._mac.check(frame[-self.tag :], sequence, frame[: -self.tag])
        return self._stream.update(frame[4 : -self.tag])

    def seal(self, sequence: int, length: bytes, body: bytes) -> Sequence[bytes]:
        sealed = self._stream.update(body)
        return length, sealed, self._mac.of(sequence, length, sealed)


class CtrMac:
    """AES-CTR, the length included, and an HMAC of what was encrypted. One object serves one direction."""

    block = _BLOCK
    first = _BLOCK
    skipped = 0

    def __init__(self, key: bytes, nonce: bytes, mac: bytes, mac_key: bytes) -> None:
        self._stream = Cipher(algorithms.AES(key), modes.CTR(nonce[:_BLOCK])).encryptor()
        self._mac = _Hmac(mac, mac_key)
        self.tag = self._mac.size
        self._first = b""

    def length(self, _sequence: int, data: memoryview, at: int) -> int:
        self._first = self._stream.update(data[at : at + _BLOCK])
        return int.from_bytes(self._first[:4], "big")

    def open(self, sequence: int, frame: memoryview) -> bytes:
        packet = self._first + self._stream.update(frame[_BLOCK : -self.tag])
        self._mac.check(frame[-self.tag :], sequence, packet)
        return packet[4:]

    def seal(self, sequence: int, length: bytes, body: bytes) -> Sequence[bytes]:
        return self._stream.update(length + body), self._mac.of(sequence, length, body)


class ChaCha:
    """The nonce is the packet's number. The key's first half is for the packet, its second for the length."""

    block = 8
    first = 4
    skipped = 4
    tag = 16

    def __init__(self, key: bytes) -> None:
        self._keys = key[:32], key[32:64]

    def _stream(self, of_length: int, sequence: int, counter: int) -> CipherContext:
        nonce = counter.to_bytes(8, "little") + sequence.to_bytes(8, "big")
        return Cipher(algorithms.ChaCha20(self._keys[of_length], nonce), None).encryptor()  # both ways the same

    def _tag(self, sequence: int, *pieces: bytes | memoryview) -> bytes:
        mac = Poly1305(self._stream(0, sequence, 0).update(bytes(32)))
        for piece in pieces:
            mac.update(piece)
        return mac.finalize()

    def length(self, sequence: int, data: memoryview, at: int) -> int:
        return int.from_bytes(self._stream(1, sequence, 0).update(data[at : at + 4]), "big")

    def open(self, sequence: int, frame: memoryview) -> bytes:
        if not hmac.compare_digest(frame[-16:], self._tag(sequence, frame[:-16])):
            raise BadPacket(MAC_ERROR, b"bad MAC")
        return self._stream(0, sequence, 1).update(frame[4:-16])

    def seal(self, sequence: int, length: bytes, body: bytes) -> Sequence[bytes]:
        sealed = self._stream(1, sequence, 0).update(length), self._stream(0, sequence, 1).update(body)
        return *sealed, self._tag(sequence, *sealed)


@dataclass(frozen=True, slots=True)
class Agreed:
    """The algorithms of one direction. ``mac`` counts for nothing where the cipher authenticates, too."""

    cipher: bytes
    mac: bytes

    def mode(self, nonce: bytes, key: bytes, mac_key: bytes) -> Mode:
        """With these keys, which are as long as any algorithm wants them, or longer."""

        if self.cipher == CHACHA:
            return ChaCha(key)
        key = key[: int(self.cipher[3:6]) // 8]
        if self.cipher in GCM:
            return Gcm(key, nonce)
        kind = CtrEtm if self.mac.endswith(ETM) else CtrMac
        return kind(key, nonce, self.mac, mac_key)


class _Direction:
    """:ivar sequence: the number of the next packet."""

    def __init__(self) -> None:
        self.sequence = 0
        self._mode: Mode = Plain()
        self._bytes = 0
        self._packets = 0

    def use(self, mode: Mode, *, restart: bool) -> None:
        """From the next packet on. ``restart``: its number is 0."""

        self._mode = mode
        self._bytes = self._packets = 0
        if restart:
            self.sequence = 0

    @property
    def is_worn(self) -> bool:
        """The keys have seen enough."""

        return self._bytes >= REKEY_BYTES or self._packets >= REKEY_PACKETS

    def _count(self, size: int) -> None:
        self.sequence = (self.sequence + 1) & 0xFFFFFFFF
        self._bytes += size
        self._packets += 1


class PacketReader(_Direction):
    """Finds the packets in what comes in. Keeps less than one packet."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = bytearray()  # of a packet that is not whole yet
        self._size = 0  # of that packet, once it is known

    def read(self, data: bytes) -> Iterator[memoryview]:
        """Each payload that is complete, as a view of its own memory. :meth:`use` holds from the next one on. Raises
        BadPacket; then nothing more may be read."""

        view, at, end = memoryview(data), 0, len(data)
        while self._rest and at < end:
            wanted = self._size or self._mode.first
            piece = view[at : at + wanted - len(self._rest)]
            self._rest += piece
            at += len(piece)
            if len(self._rest) < wanted:
                return
            whole = memoryview(self._rest)
            if not self._size:
                self._size = self._measure(whole, 0)
            if len(whole) == self._size:
                self._rest, self._size = bytearray(), 0
                yield self._open(whole)
            else:
                whole.release()
        while end - at >= self._mode.first:
            stop = at + self._measure(view, at)
            if stop > end:
                self._size = stop - at
                break
            yield self._open(view[at:stop])
            at = stop
        self._rest += view[at:]

    def _measure(self, data: memoryview, at: int) -> int:
        """Bytes of the whole packet that begins there."""

        mode = self._mode
        length = mode.length(self.sequence, data, at)
        if not 8 <= length <= LONGEST or (4 - mode.skipped + length) % mode.block:
            raise BadPacket(PROTOCOL_ERROR, b"bad packet length %d" % length)
        return 4 + length + mode.tag

    def _open(self, frame: memoryview) -> memoryview:
        body = self._mode.open(self.sequence, frame)
        self._count(len(frame))
        padding = body[0]
        end = len(body) - padding
        if padding < 4 or end < 2:
            raise BadPacket(PROTOCOL_ERROR, b"bad padding")
        return memoryview(body)[1:end]


class PacketWriter(_Direction):
    """Makes packets."""

    def packet(self, *payload: bytes | memoryview) -> Sequence[bytes]:
        """One packet, in pieces, of a payload in pieces."""

        mode = self._mode
        length = 1 + sum(map(len, payload))
        padding = mode.block - (4 - mode.skipped + length) % mode.block
        if padding < 4:
            padding += mode.block
        length += padding
        body = b"".join((padding.to_bytes(1, "big"), *payload, os.urandom(padding)))
        pieces = mode.seal(self.sequence, _LENGTH.pack(length), body)
        self._count(length)
        return pieces
