"""Files of keys by OpenSSH, whole and broken."""

from __future__ import annotations

import base64
import contextlib
import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents.ssh_keys import FileIdentity, load_key, load_passphrase
from ipmiproxyd.errors import KeyRefused
from ipmiproxyd.model import Secret
from tests.support.scratch import scratch
from tests.support.sshd import make_key

KEYS: Final = {
    "ed25519": ("-t", "ed25519"),
    "ecdsa": ("-t", "ecdsa"),
    "rsa": ("-t", "rsa", "-b", "2048"),
    "ecdsa-pem": ("-t", "ecdsa", "-m", "PEM"),
    "ecdsa-pkcs8": ("-t", "ecdsa", "-b", "384", "-m", "PKCS8"),
    "rsa-pkcs8": ("-t", "rsa", "-b", "2048", "-m", "PKCS8"),
}
PASSPHRASE: Final = "of the tests"


class LoadKeyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = scratch(self)

    def refused(self, path: Path, passphrase: str = "") -> str:
        with self.assertRaises(KeyRefused) as caught:
            load_key(str(path), Secret(passphrase))
        return str(caught.exception.message)

    def test_each_kind_of_file(self) -> None:
        for name, options in KEYS.items():
            shown = make_key(self.folder / name, *options)
            for passphrase in ("", "not needed"):
                identity = FileIdentity(load_key(str(self.folder / name), Secret(passphrase)))
                public = (self.folder / f"{name}.pub").read_text().split()
                self.assertEqual(base64.b64encode(identity.blob).decode(), public[1], shown)

    def test_each_kind_of_file_encrypted(self) -> None:
        for name, options in KEYS.items():
            path = self.folder / name
            make_key(path, *options, passphrase=PASSPHRASE)
            load_key(str(path), Secret(PASSPHRASE))
            self.assertIn("is encrypted, and its passphrase is not set", self.refused(path))
            self.assertIn("is encrypted, and its passphrase is wrong", self.refused(path, "else"))

    def test_keys_that_cannot_sign_here(self) -> None:
        path = self.folder / "key"
        for key in (generate_private_key(SECP256K1()), X25519PrivateKey.generate()):
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            self.assertIn("can be used here", self.refused(path))

    def test_public_half(self) -> None:
        make_key(self.folder / "key")
        self.assertIn("is the public half", self.refused(self.folder / "key.pub"))


class LoadPassphraseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = scratch(self) / "passphrase"

    def refused(self) -> str:
        with self.assertRaises(KeyRefused) as caught:
            load_passphrase(str(self.path))
        return str(caught.exception.message)

    def test_it_is_what_is_in_the_file(self) -> None:
        self.path.touch(mode=0o640)
        for text, meant in (("for this test\n", "for this test"), ("…\t ", "…\t "), ("", "")):
            self.path.write_text(text, encoding="utf-8")
            self.assertEqual(load_passphrase(str(self.path)).reveal(), meant)

    def test_files_of_no_use(self) -> None:
        self.assertIn("cannot be read: No such file", self.refused())
        self.path.mkdir()
        self.assertIn("cannot be read: Is a directory", self.refused())
        self.path.rmdir()
        self.path.write_bytes(b"\xff\n")
        self.assertIn("is no text", self.refused())
        for mode in (0o604, 0o602, 0o666):
            self.path.write_text("for this test")
            self.path.chmod(mode)
            self.assertIn("is not secret", self.refused())
        self.path.unlink()
        os.mkfifo(self.path, 0o600)
        self.assertIn("is no ordinary file", self.refused())


class BrokenKeyTests(SynchronousTestCase):
    """Whatever is wrong with a file: the key is refused, or it can sign."""

    def setUp(self) -> None:
        self.folder = scratch(self)
        self.texts = []
        for name, options in {**KEYS, "encrypted": (*KEYS["ed25519"], "-a", "1")}.items():
            make_key(self.folder / name, *options, passphrase=PASSPHRASE if name == "encrypted" else "")
            self.texts.append((self.folder / name).read_bytes())
        self.path = self.folder / "broken"
        self.path.touch(mode=0o600)

    def tried(self, text: bytes) -> None:
        self.path.write_bytes(text)
        with contextlib.suppress(KeyRefused):
            identity = FileIdentity(load_key(str(self.path), Secret("")))
            algorithm = b"rsa-sha2-256" if identity.kind == b"ssh-rsa" else identity.kind
            self.successResultOf(Deferred.fromCoroutine(identity.sign(b"something", algorithm)))

    @settings(max_examples=250)
    @given(st.data())
    def test_other_bytes_in_it(self, data: st.DataObject) -> None:
        first, *middle, last = data.draw(st.sampled_from(self.texts)).splitlines()
        content = bytearray(base64.b64decode(b"".join(middle)))
        for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
            content[at] = data.draw(st.integers(0, 255))
        content = content[: data.draw(st.integers(0, len(content)))]
        self.tried(b"\n".join((first, base64.b64encode(content), last, b"")))

    @settings(max_examples=100)
    @given(st.data())
    def test_other_text_in_it(self, data: st.DataObject) -> None:
        text = data.draw(st.sampled_from(self.texts))
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        self.tried(text[:start] + data.draw(st.binary(max_size=4)) + text[end:])
