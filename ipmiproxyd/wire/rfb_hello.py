"""How an RFB conversation begins, both ways round: RFC 6143, sections 7.1 to 7.3, and VeNCrypt 0.2. No I/O, no Twisted.

The relay signs in at the VNC server itself (:class:`ServerHello`) and asks the browser for nothing
(:class:`BrowserHello`), since the browser's grant has already decided. Then both sides are where messages begin.

    server                                      client
    version                                     version           ; 12 bytes, "RFB 003.008" LF
    3.3:      u32 security type
    3.7, 3.8: u8 count, count * u8 type         u8 type
      0 (3.3: the type; else: the count)        ; refused: u32 length, reason
      1, None
      2, VncAuth: 16 bytes                      16 bytes          ; DES, the key is the password
      19, VeNCrypt:
        0 2                                     0 2
        0, u8 count, count * u32 sub-type       u32 sub-type      ; 260 X509None, 261 X509Vnc
        1, then TLS begins, and in it what None (260) or VncAuth (261) have to say
    u32 result                                                    ; not for None before 3.8
      not 0                                     ; refused; in 3.8: u32 length, reason
                                                u8 shared
    u16 width, u16 height, 16 bytes, u32 length, name
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Generator, Sequence
from typing import Final

from ipmiproxyd.errors import BmcAuth, BmcError, BmcUnreachable, BmcUnsupported, LimitReached, ProxyError, TimedOut
from ipmiproxyd.model import Secret
from ipmiproxyd.wire.rfb import ProtocolError

VERSION: Final = b"RFB 003.008\n"
NONE: Final = 1
VNC_AUTH: Final = 2
VENCRYPT: Final = 19
MAX_NAME: Final = 4096
MAX_REASON: Final = 1024

_X509: Final = {260: NONE, 261: VNC_AUTH}
"""The sub-types of VeNCrypt that have a certificate, and what goes on inside TLS."""
_TYPES: Final = {
    NONE: "None", VNC_AUTH: "VncAuth", 5: "RA2", 6: "RA2ne", 16: "Tight", 17: "Ultra", 18: "TLS", VENCRYPT: "VeNCrypt",
    20: "SASL", 21: "MD5", 22: "xvp", 30: "Apple", 113: "MSLogon II", 129: "RA256", 130: "RAne256", 256: "Plain",
    257: "TLSNone", 258: "TLSVnc", 259: "TLSPlain", 260: "X509None", 261: "X509Vnc", 262: "X509Plain",
    263: "TLSSASL", 264: "X509SASL",
}  # fmt: skip
_LOCKED: Final = re.compile(r"too many .*(fail|attempt|tries)|locked|blocked|blacklist", re.IGNORECASE)
_FULL: Final = re.compile(r"in use|too many|maximum|limit|busy", re.IGNORECASE)
_NO_PLACE: Final = "Most likely it takes no further viewer: close another one, or allow more on the device."
_GIVE_IT: Final = "Set the device's vnc_password to the password of its VNC server."


# --- towards the browser ----------------------------------------------------------------------------------------------


class BrowserHello:
    """The server's part towards a browser: versions 3.3, 3.7 and 3.8, security type None.

    :cvar greeting: to be said at once.
    :ivar done: the browser has said everything; it waits for ServerInit.
    :ivar rest: what it has said beyond that.
    """

    __slots__ = ("_head", "_hear", "_says_result", "done", "rest")

    greeting: Final = VERSION

    def __init__(self) -> None:
        self._head = b""
        self._hear: Callable[[], bytes] = self._version
        self._says_result = False
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """What to answer. Raises :class:`ProtocolError`. Once it is done, all goes to ``rest``."""

        self._head += data
        answer = b""
        while self._head and not self.done:
            before = len(self._head)
            answer += self._hear()
            if len(self._head) == before:
                break
        if self.done:
            self.rest += self._head
            self._head = b""
        return answer

    def _version(self) -> bytes:
        if len(self._head) < 12:
            if not VERSION.startswith(self._head[:10]):
                self._refuse_version()
            return b""
        version, self._head = self._head[:12], self._head[12:]
        if version == b"RFB 003.003\n":
            self._hear = self._init
            return NONE.to_bytes(4, "big")
        if version not in (b"RFB 003.007\n", VERSION):
            self._refuse_version()
        self._says_result = version == VERSION
        self._hear = self._security
        return bytes((1, NONE))

    def _refuse_version(self) -> None:
        raise ProtocolError("The viewer does not speak RFB 3.3, 3.7 or 3.8")

    def _security(self) -> bytes:
        if self._head[0] != NONE:
            raise ProtocolError(f"The viewer chose security type {self._head[0]}, which was not offered")
        self._head = self._head[1:]
        self._hear = self._init
        return bytes(4) if self._says_result else b""

    def _init(self) -> bytes:
        self._head = self._head[1:]  # whether it wants the screen for itself; that is not its choice
        self.done = True
        return b""


# --- towards the server -----------------------------------------------------------------------------------------------


class Encryption(enum.Enum):
    """Whether to sign in through VeNCrypt with a certificate."""

    NEVER = "never"
    PREFERRED = "preferred"  # where the server offers it
    DEMANDED = "demanded"


class Step(enum.Enum):
    """What a :class:`ServerHello` waits for."""

    MORE = "more"  # what the server says next
    START_TLS = "start-tls"  # begin TLS, check the certificate, then call secured(); all bytes go through TLS from now
    ANEW = "anew"  # connect again with Encryption.NEVER: this server's VeNCrypt is of no use, and has no way back
    DONE = "done"
    FAILED = "failed"  # an error was raised; nothing follows


_Talk = Generator[int, bytes, None]
_Part = Generator[int, bytes, bytes]


class ServerHello:
    """The client's part towards a VNC server, always shared.

    Versions below 3.7 are spoken as 3.3, those above 3.8 (3.889 of Apple, 4.x, 5.x of RealVNC and Intel) as 3.8.
    Every error is one of ipmiproxyd.errors, in words for the user.

    :ivar step: what it waits for.
    :ivar init: the ServerInit message, whole, once it is done.
    :ivar rest: what the server has said beyond that.
    """

    __slots__ = ("_encryption", "_heard", "_password", "_say", "_talk", "_wanted", "_where", "init", "step")

    def __init__(self, password: Secret, encryption: Encryption = Encryption.PREFERRED) -> None:
        self._password = password
        self._encryption = encryption
        self._heard = bytearray()
        self._say = bytearray()
        self._where = "greeting"
        self.step = Step.MORE
        self.init = b""
        self._talk = self._conversation()
        self._wanted = next(self._talk)

    @property
    def rest(self) -> bytes:
        return bytes(self._heard) if self.step is Step.DONE else b""

    def feed(self, data: bytes) -> bytes:
        """What to say to the server. Raises ProxyError. Look at ``step`` afterwards."""

        if self.step is Step.FAILED:
            return b""
        self._heard += data
        try:
            self._go_on()
        except ProxyError:
            self.step = Step.FAILED
            raise
        say = bytes(self._say)
        self._say.clear()
        return say

    def _go_on(self) -> None:
        try:
            while self.step is Step.MORE and len(self._heard) >= self._wanted:
                part = bytes(self._heard[: self._wanted])
                del self._heard[: self._wanted]
                self._wanted = self._talk.send(part)
        except StopIteration:
            if self.step is Step.MORE:
                self.step = Step.DONE
        if self.step is Step.START_TLS and self._heard:
            # It would be taken for something that was said under TLS.
            raise BmcError("The VNC server went on in clear text where TLS was to begin.")

    def secured(self) -> None:
        """TLS has begun, as ``step`` demanded; the certificate is to be checked before any byte comes out of it."""

        self.step = Step.MORE

    def hung_up(self) -> ProxyError:
        """What it means that the server has closed the connection here."""

        if self._where == "greeting":
            return BmcUnreachable("The VNC server closed the connection at once.")
        if self._where == "refusal":
            return _refused("", VNC_AUTH)
        if self._where == "init":
            return LimitReached(
                "The VNC server closed the connection after the sign-in.",
                hint=_NO_PLACE,
            )
        return BmcError("The VNC server closed the connection during the sign-in.")

    def too_slow(self, limit: float) -> ProxyError:
        """What it means that ``limit`` seconds have passed."""

        if self._where == "greeting":
            return TimedOut(
                f"What is connected to did not greet as a VNC server within {limit:g} s.",
                hint="Check the port, and that the VNC server is enabled.",
            )
        return TimedOut(f"The VNC server did not finish the sign-in within {limit:g} s.")

    # --- the conversation: each yield asks for so many bytes --------------------------------------------------------

    def _conversation(self) -> _Talk:
        minor = yield from self._version()
        self._where = "security"
        offered = yield from self._offered(minor)
        choice = self._choose(offered)
        if minor > 3:
            self._say.append(choice)
        has_result = choice != NONE or minor == 8
        if choice == VENCRYPT:
            inner = yield from self._vencrypt(offered)
            if not inner:
                self.step = Step.ANEW
                return
            choice = inner[0]
        if choice == VNC_AUTH:
            challenge = yield 16
            self._say += vnc_des(self._password, challenge)
        if has_result:
            yield from self._result(minor, choice)
        self._where = "init"
        self._say.append(1)
        self.init = yield from self._server_init()

    def _version(self) -> Generator[int, bytes, int]:
        version = yield 4
        if version == b"RFB ":
            version += yield 8
        numbers = re.fullmatch(rb"RFB (\d{3})\.(\d{3})\n", version)
        if numbers is None:
            raise BmcError(
                f'What is connected to is no VNC server: it says "{_shown(version + self._heard)}".',
                hint="Check the port of the device's VNC server.",
            )
        number = int(numbers[1]), int(numbers[2])
        if number < (3, 3):
            raise BmcUnsupported(f"The VNC server speaks RFB {number[0]}.{number[1]} only; 3.3 or later is needed.")
        minor = 3 if number < (3, 7) else min(number, (3, 8))[1]
        self._say += b"RFB 003.%03d\n" % minor
        return minor

    def _offered(self, minor: int) -> _Part:
        """The security types. Version 3.3 leaves no choice."""

        if minor == 3:
            dictated = int.from_bytes((yield 4), "big")
            types = bytes((min(dictated, 255),)) if dictated else b""
        else:
            count = (yield 1)[0]
            types = (yield count) if count else b""
        if not types:
            reason = yield from self._reason()
            raise _refused(_words(reason))
        return types

    def _choose(self, offered: bytes) -> int:
        if VENCRYPT in offered and self._encryption is not Encryption.NEVER:
            return VENCRYPT
        if self._encryption is Encryption.DEMANDED:
            raise BmcUnsupported(
                f"The VNC server offers no encryption with a certificate, but {_named(offered)}.",
                hint="Enable it on the device (X509), or remove the device's vnc_fingerprint.",
            )
        choice = self._sign_in(offered)
        if choice is None:
            raise _nothing_in_common(offered)
        self._check_password(choice)
        return choice

    def _sign_in(self, offered: Sequence[int]) -> int | None:
        """The password is used where there is one; a server may give more rights with it."""

        order = (VNC_AUTH, NONE) if self._password else (NONE, VNC_AUTH)
        return next((choice for choice in order if choice in offered), None)

    def _check_password(self, choice: int) -> None:
        if choice == VNC_AUTH and not self._password:
            raise BmcAuth("The VNC server wants a password, and the device has no vnc_password.", hint=_GIVE_IT)

    def _vencrypt(self, outside: bytes) -> _Part:
        """What remains to be done inside TLS, as one byte; empty if it is better to come again without VeNCrypt."""

        version = yield 2
        if version < b"\x00\x02":
            raise BmcUnsupported(f"The VNC server speaks VeNCrypt {version[0]}.{version[1]} only; 0.2 is needed.")
        self._say += b"\x00\x02"
        if (yield 1) != b"\x00":
            raise BmcUnsupported("The VNC server refuses VeNCrypt 0.2.")
        count = (yield 1)[0]
        types = struct.unpack(f">{count}I", (yield 4 * count))
        with_certificate = {_X509[number]: number for number in types if number in _X509}
        choice = self._sign_in(tuple(with_certificate))
        if choice is None:
            if self._encryption is Encryption.PREFERRED and self._sign_in(outside) is not None:
                return b""
            raise _nothing_in_common((*types, *(number for number in outside if number != VENCRYPT)))
        self._check_password(choice)
        self._say += with_certificate[choice].to_bytes(4, "big")
        if (yield 1) != b"\x01":
            raise BmcError("The VNC server cannot begin TLS.", hint="Check its certificate and key on the device.")
        self.step = Step.START_TLS
        return bytes((choice,))

    def _result(self, minor: int, choice: int) -> _Talk:
        self._where = "result"
        result = int.from_bytes((yield 4), "big")
        if result == 0:
            return
        if result > 2:
            raise BmcError(f"The VNC server answered the sign-in with the unknown result {result}.")
        self._where = "refusal"
        reason = (yield from self._reason()) if minor == 8 else b""
        if result == 2:
            raise _locked_out(_words(reason))
        raise _refused(_words(reason), choice)

    def _reason(self) -> _Part:
        """Why the server refuses. Of a long reason only the beginning is waited for."""

        length = int.from_bytes((yield 4), "big")
        return (yield min(length, MAX_REASON))

    def _server_init(self) -> _Part:
        head = yield 24
        length = int.from_bytes(head[20:], "big")
        if length > MAX_NAME:
            raise BmcError(f"The VNC server's screen has a name of {length} bytes; {MAX_NAME} are allowed.")
        return head + (yield length)


# --- words ------------------------------------------------------------------------------------------------------------


def _refused(reason: str, choice: int = NONE) -> ProxyError:
    """The server's refusal, after the sign-in ``choice`` if there was one."""

    if _LOCKED.search(reason):
        return _locked_out(reason)
    said = f": {reason}" if reason else ""
    if choice == VNC_AUTH and not _FULL.search(reason):
        return BmcAuth(f"The VNC server refused the sign-in{said}.", hint=_GIVE_IT)
    if "password" in reason.lower():
        return BmcAuth(f"The VNC server refused the connection{said}.", hint="Set a password on the device.")
    return LimitReached(f"The VNC server refused the connection{said}.", hint=_NO_PLACE)


def _locked_out(reason: str) -> ProxyError:
    return BmcAuth(
        f"The VNC server lets nobody sign in for a while: {reason or 'too many sign-ins have failed'}.",
        hint="Check the device's vnc_password, and wait some minutes before the next attempt.",
    )


def _nothing_in_common(offered: Sequence[int]) -> ProxyError:
    return BmcUnsupported(
        f"The VNC server offers no way to sign in that is known here, but {_named(offered)}.",
        hint="Enable None, VncAuth, X509None or X509Vnc there.",
    )


def _named(types: Sequence[int]) -> str:
    names = list(dict.fromkeys(_TYPES.get(number, f"type {number}") for number in types))
    return ", ".join(names[:12] + ["…"] * (len(names) > 12)) or "nothing"


def _words(said: bytes) -> str:
    """A server's text, fit for a line of ours."""

    text = "".join(letter if letter.isprintable() else " " for letter in said.decode("utf-8", "replace"))
    return " ".join(text.split())[:200].rstrip(" .!")


def _shown(said: bytes) -> str:
    """Bytes of any kind, for a line of ours."""

    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in said[:40].rstrip(b"\r\n"))


def vnc_des(password: Secret, challenge: bytes) -> bytes:
    """The challenge, encrypted by DES; the key is the password's first eight bytes, each with its bits reversed."""

    # Not at the top: what is in wire/ can be imported without it.
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    key = bytes(
        int(f"{byte:08b}"[::-1], 2) for byte in password.reveal().encode("utf-8", "replace")[:8].ljust(8, b"\x00")
    )
    encryptor = Cipher(TripleDES(3 * key), modes.ECB()).encryptor()  # noqa: S305 - three equal keys: DES
    return encryptor.update(challenge) + encryptor.finalize()
