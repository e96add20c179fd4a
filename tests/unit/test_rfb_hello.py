"""How RFB conversations begin, towards browsers and towards servers."""

from __future__ import annotations

import struct
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, BmcUnreachable, BmcUnsupported, LimitReached, ProxyError, TimedOut
from ipmiproxyd.model import Secret
from ipmiproxyd.wire.rfb import ProtocolError
from ipmiproxyd.wire.rfb_hello import MAX_NAME, MAX_REASON, BrowserHello, Encryption, ServerHello, Step
from tests.support.chunks import PLACES, cut

V33, V37, V38 = b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"
INIT = struct.pack(">HH16sI", 640, 480, bytes(range(16)), 4) + b"name"
OK = bytes(4)
CHALLENGE = bytes(range(16))
# What OpenSSL's own DES says of the challenge: openssl enc -des-ecb -nopad -K cea6c64ea62e0000, which is
# "secret" with each byte reversed.
ANSWER = bytes.fromhex("ee22539f33a5983ec12f9c2edbc995dd")
REST = b"\x00further"


class BrowserHelloTests(SynchronousTestCase):
    def talk(self, chunks: list[bytes]) -> tuple[BrowserHello, bytes]:
        hello, said, rest = BrowserHello(), b"", b""
        for chunk in chunks:
            if hello.done:
                rest += chunk
            else:
                said += hello.feed(chunk)
        hello.rest += rest
        return hello, said

    def test_versions(self) -> None:
        self.assertEqual(BrowserHello.greeting, V38)
        for heard, answer in (
            (V33 + b"\x00", b"\x00\x00\x00\x01"),
            (V37 + b"\x01\x00", b"\x01\x01"),
            (V38 + b"\x01\x01", b"\x01\x01\x00\x00\x00\x00"),
        ):
            hello, said = self.talk([heard + REST])
            self.assertEqual((hello.done, said, hello.rest), (True, answer, REST))

    def test_it_waits(self) -> None:
        hello = BrowserHello()
        answers = [hello.feed(bytes((byte,))) for byte in V38 + b"\x01"]
        self.assertEqual(answers, [b""] * 11 + [b"\x01\x01", OK])
        self.assertFalse(hello.done)
        self.assertEqual((hello.feed(b"\x00"), hello.done, hello.rest), (b"", True, b""))

    @given(st.sampled_from([V33 + b"\x01", V37 + b"\x01\x01", V38 + b"\x01\x00"]), st.binary(max_size=40), PLACES)
    def test_any_chunking(self, heard: bytes, rest: bytes, places: list[int]) -> None:
        whole, said = self.talk([heard + rest])
        pieces, same = self.talk(cut(heard + rest, places))
        self.assertEqual((pieces.done, pieces.rest, same), (True, rest, said))
        self.assertEqual(whole.rest, rest)

    @settings(max_examples=300)
    @given(st.sampled_from([b"", V33[:11], V37, V38, V38 + b"\x01"]), st.binary(max_size=100), PLACES)
    def test_garbage_raises_nothing_else(self, heard: bytes, garbage: bytes, places: list[int]) -> None:
        try:
            self.talk(cut(heard + garbage, places))
        except ProtocolError as error:
            self.assertLessEqual(len(str(error).encode()), 123)

    def test_refusals(self) -> None:
        for heard in (
            b"RFB 003.005\n",
            b"RFB 004.001\n",
            b"GET",
            b"RFB 003.0x",
            bytes(12),
            V38 + b"\x02",
            V37 + b"\x00",
        ):
            self.assertRaises(ProtocolError, self.talk, [heard])

    def test_it_keeps_little(self) -> None:
        hello = BrowserHello()
        self.assertRaises(ProtocolError, hello.feed, b"x" * 100_000)
        self.assertFalse(hasattr(BrowserHello(), "__dict__"))
        self.assertLess(sys.getsizeof(BrowserHello()), 100)


class Server:
    """What a hello has said, fed with a server's words."""

    def __init__(self, password: str = "", encryption: Encryption = Encryption.PREFERRED) -> None:
        self.hello = ServerHello(Secret(password), encryption)
        self.heard = b""

    def says(self, *chunks: bytes) -> Server:
        for chunk in chunks:
            self.heard += self.hello.feed(chunk)
        return self

    @property
    def step(self) -> Step:
        return self.hello.step


class ServerHelloTests(SynchronousTestCase):
    def done(self, server: Server, heard: bytes) -> None:
        self.assertEqual(server.step, Step.DONE)
        self.assertEqual((server.heard, server.hello.init, server.hello.rest), (heard, INIT, REST))

    def test_without_a_password(self) -> None:
        for stream, heard in (
            (V33 + b"\x00\x00\x00\x01", V33 + b"\x01"),
            (b"RFB 003.005\n\x00\x00\x00\x01", V33 + b"\x01"),
            (V37 + b"\x01\x01", V37 + b"\x01\x01"),
            (V38 + b"\x01\x01" + OK, V38 + b"\x01\x01"),
            (V38 + b"\x03\x05\x01\x02" + OK, V38 + b"\x01\x01"),
            (b"RFB 003.889\n\x01\x01" + OK, V38 + b"\x01\x01"),
            (b"RFB 004.000\n\x01\x01" + OK, V38 + b"\x01\x01"),
            (b"RFB 005.000\n\x01\x01" + OK, V38 + b"\x01\x01"),
        ):
            self.done(Server().says(stream + INIT + REST), heard)

    def test_with_a_password(self) -> None:
        for stream, heard in (
            (V33 + b"\x00\x00\x00\x02", V33),
            (V37 + b"\x01\x02", V37 + b"\x02"),
            (V38 + b"\x02\x01\x02", V38 + b"\x02"),
        ):
            self.done(Server("secret").says(stream + CHALLENGE + OK + INIT + REST), heard + ANSWER + b"\x01")

    def test_only_eight_bytes_of_the_password_count(self) -> None:
        stream = V38 + b"\x01\x02" + CHALLENGE
        self.assertEqual(Server("12345678").says(stream).heard, Server("123456789").says(stream).heard)
        self.assertNotEqual(Server("12345678").says(stream).heard, Server("1234567").says(stream).heard)
        self.assertEqual(len(Server("пароль").says(stream).heard), 12 + 1 + 16)

    def vencrypt(self, server: Server, *types: int) -> Server:
        return server.says(
            V38 + b"\x02\x13\x02", b"\x00\x02", b"\x00", struct.pack(f">B{len(types)}I", len(types), *types)
        )

    def test_vencrypt(self) -> None:
        for password, kind, talk in (("", 260, b""), ("secret", 261, CHALLENGE)):
            server = self.vencrypt(Server(password), 258, 260, 261).says(b"\x01")
            chosen = V38 + b"\x13" + b"\x00\x02" + struct.pack(">I", kind)
            self.assertEqual((server.step, server.heard), (Step.START_TLS, chosen))
            server.hello.secured()
            server.says(talk + OK + INIT + REST)
            self.done(server, chosen + (ANSWER if talk else b"") + b"\x01")

    def test_clear_text_is_not_taken_for_encrypted(self) -> None:
        server = self.vencrypt(Server(), 260)
        self.assertRaises(BmcError, server.says, b"\x01" + OK + INIT)
        self.assertEqual(server.step, Step.FAILED)

    def test_vencrypt_of_no_use(self) -> None:
        server = self.vencrypt(Server("secret"), 257, 258)
        self.assertEqual(server.step, Step.ANEW)
        error = self.assertRaises(BmcUnsupported, self.vencrypt, Server("secret", Encryption.DEMANDED), 257, 258, 4711)
        self.assertIn("TLSNone, TLSVnc, type 4711, VncAuth", error.message)
        server = Server("secret", Encryption.NEVER).says(V38 + b"\x02\x13\x02")
        self.assertEqual(server.heard, V38 + b"\x02")

    def test_encryption_is_demanded(self) -> None:
        error = self.assertRaises(BmcUnsupported, Server("", Encryption.DEMANDED).says, V38 + b"\x02\x01\x02")
        self.assertIn("None, VncAuth", error.message)
        self.assertRaises(BmcUnsupported, Server("", Encryption.DEMANDED).says, V33 + b"\x00\x00\x00\x01")

    def test_other_vencrypts(self) -> None:
        start = V38 + b"\x01\x13"
        self.assertRaises(BmcUnsupported, Server().says, start + b"\x00\x01")
        self.assertRaises(BmcUnsupported, Server().says, start + b"\x00\x02\x01")
        self.assertRaises(BmcUnsupported, Server().says, start + b"\x00\x02\x00\x00")
        self.assertRaises(BmcError, Server().says, start + b"\x00\x02\x00\x01\x00\x00\x01\x04\x00")

    def refusal(self, server: Server, stream: bytes) -> ProxyError:
        error: ProxyError = self.assertRaises(ProxyError, server.says, stream)
        self.assertEqual((server.step, server.hello.feed(b"more"), server.hello.rest), (Step.FAILED, b"", b""))
        return error

    def test_a_refused_password(self) -> None:
        tried = V38 + b"\x01\x02" + CHALLENGE
        for said, kind, words in (
            (b"Authentication failure", BmcAuth, "refused the sign-in: Authentication failure."),
            (b"password check failed!", BmcAuth, "refused the sign-in: password check failed."),
            (b"", BmcAuth, "refused the sign-in."),
            (b"Too many authentication failures", BmcAuth, "for a while: Too many authentication failures."),
            (b"The server is already in use", LimitReached, "already in use"),
        ):
            error = self.refusal(Server("x"), tried + struct.pack(">II", 1, len(said)) + said)
            self.assertIsInstance(error, kind)
            self.assertIn(words, error.message)
        self.assertIn("for a while", self.refusal(Server("x"), tried + struct.pack(">II", 2, 0)).message)
        for version in (V37 + b"\x01\x02", V33 + b"\x00\x00\x00\x02"):
            self.assertIsInstance(self.refusal(Server("x"), version + CHALLENGE + b"\x00\x00\x00\x01"), BmcAuth)
        self.assertIsInstance(self.refusal(Server("x"), tried + b"\x00\x00\x00\x09"), BmcError)

    def test_no_password(self) -> None:
        for stream in (V38 + b"\x01\x02", V33 + b"\x00\x00\x00\x02"):
            error = self.refusal(Server(), stream)
            self.assertIsInstance(error, BmcAuth)
            self.assertIn("vnc_password", error.message)
        self.assertIsInstance(self.assertRaises(ProxyError, self.vencrypt, Server(), 261), BmcAuth)

    def test_turned_away(self) -> None:
        for version in (V33 + bytes(4), V37 + b"\x00", V38 + b"\x00"):
            for said, kind in (
                (b"Too many security failures", BmcAuth),
                (b"This server does not have a valid password enabled.", BmcAuth),
                (b"Too many connections", LimitReached),
                (b"", LimitReached),
            ):
                error = self.refusal(Server(), version + struct.pack(">I", len(said)) + said)
                self.assertIsInstance(error, kind)
                self.assertIn(said.decode().rstrip("."), error.message)

    def test_words_of_a_hostile_server(self) -> None:
        said = b"\x1b[31mno\r\n\x00\xff way" + b"y" * 100_000
        error = self.refusal(Server(), V38 + b"\x00" + struct.pack(">I", 1 << 31) + said[:MAX_REASON])
        self.assertIn("[31mno \ufffd wayyy", error.message)
        self.assertTrue(error.message.isprintable())
        self.assertLess(len(error.message), 300)

    def test_no_vnc_server(self) -> None:
        error = self.refusal(Server(), b"SSH-2.0-OpenSSH_9.2\r\n")
        self.assertIn('it says "SSH-2.0-OpenSSH_9.2"', error.message)
        self.assertIn('"\\x16\\x03\\x01\\x00"', self.refusal(Server(), b"\x16\x03\x01\x00").message)
        self.assertIn("no VNC server", self.refusal(Server(), b"RFB 3.8 \n\n\n\n\n").message)
        self.assertIsInstance(self.refusal(Server(), b"RFB 000.000\n"), BmcUnsupported)
        self.assertIsInstance(self.refusal(Server(), b"RFB 003.002\n"), BmcUnsupported)

    def test_nothing_in_common(self) -> None:
        error = self.refusal(Server("x"), V38 + b"\x03\x05\x1e\xc8")
        self.assertIn("but RA2, Apple, type 200.", error.message)
        self.assertIn("type 255", self.refusal(Server("x"), V33 + b"\x7f\xff\xff\xff").message)

    def test_a_long_name(self) -> None:
        greeted = V38 + b"\x01\x01" + OK
        name = b"n" * MAX_NAME
        init = INIT[:20] + struct.pack(">I", MAX_NAME) + name
        self.assertEqual(Server().says(greeted + init).hello.init, init)
        self.refusal(Server(), greeted + INIT[:20] + struct.pack(">I", MAX_NAME + 1))

    def test_the_end_and_the_time(self) -> None:
        for stream, end, late in (
            (b"", BmcUnreachable, "did not greet"),
            (V38, BmcError, "did not finish"),
            (V38 + b"\x01\x02" + CHALLENGE, BmcError, "did not finish"),
            (V38 + b"\x01\x02" + CHALLENGE + b"\x00\x00\x00\x01", BmcAuth, "did not finish"),
            (V38 + b"\x01\x01" + OK, LimitReached, "did not finish"),
        ):
            server = Server("x").says(stream)
            self.assertIs(type(server.hello.hung_up()), end)
            error = server.hello.too_slow(15.0)
            self.assertIsInstance(error, TimedOut)
            self.assertIn(late, error.message)
            self.assertIn("15 s", error.message)

    @given(
        st.sampled_from([V33 + b"\x00\x00\x00\x02", V37 + b"\x01\x02", V38 + b"\x02\x01\x02"]),
        st.binary(max_size=60),
        PLACES,
    )
    def test_any_chunking(self, start: bytes, rest: bytes, places: list[int]) -> None:
        stream = start + CHALLENGE + OK + INIT + rest
        whole, pieces = Server("secret").says(stream), Server("secret").says(*cut(stream, places))
        self.assertEqual(
            (pieces.step, pieces.heard, pieces.hello.init, pieces.hello.rest), (Step.DONE, whole.heard, INIT, rest)
        )

    @settings(max_examples=500)
    @given(
        st.sampled_from([b"", V33, V37, V38, V38 + b"\x01\x13\x00\x02\x00", V38 + b"\x01\x02" + CHALLENGE]),
        st.binary(max_size=200),
        PLACES,
        st.sampled_from(list(Encryption)),
        st.sampled_from(["", "secret"]),
    )
    def test_garbage_raises_nothing_else(
        self, start: bytes, garbage: bytes, places: list[int], encryption: Encryption, password: str
    ) -> None:
        def outcome(chunks: list[bytes]) -> tuple[bytes, Step, str]:
            server, words = Server(password, encryption), ""
            for chunk in chunks:
                try:
                    server.says(chunk)
                except ProxyError as error:
                    words = error.message
                    self.assertTrue(words.isprintable() and len(words) < 400)
                    break
            return server.heard, server.step, words

        pieces = outcome(cut(start + garbage, places))
        if pieces[1] is not Step.FAILED:
            self.assertEqual(pieces, outcome([start + garbage]))

    def test_it_keeps_little(self) -> None:
        server = Server()
        for _ in range(100):
            try:
                server.says(b"RFB ")
            except ProxyError:
                break
        self.assertEqual(server.step, Step.FAILED)
        self.assertFalse(hasattr(server.hello, "__dict__"))
        self.assertNotIn("secret", repr(ServerHello(Secret("secret"))))
