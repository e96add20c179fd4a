"""What keeps others out of a display whose port is open."""

from __future__ import annotations

import base64
import hashlib
import ssl
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents.sandbox import HOME
from ipmiproxyd.errors import AgentUnreachable
from ipmiproxyd.model import ConsoleState
from ipmiproxyd.tools.guard import CERTIFICATE, KEY, SIGN_IN, Guard
from ipmiproxyd.tools.xvnc import Display
from tests.support.console_life import Life
from tests.support.fake_rooms import FakeEndpoint


class GuardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.guard = Guard.make()
        self.password = self.guard.password.reveal()
        self.files = {file.name: file for file in self.guard.files}

    def test_display_with_a_guard(self) -> None:
        (server, _), files = Display().programs(7, guard=self.guard)
        options = " ".join(server.argv)
        for option in (
            "-SecurityTypes X509Vnc",
            f"-X509Cert {HOME}/{CERTIFICATE}",
            f"-X509Key {HOME}/{KEY}",
            f"-rfbauth {HOME}/{SIGN_IN}",
        ):
            self.assertIn(option, options)
        self.assertEqual(options.count("-SecurityTypes"), 1)
        self.assertLessEqual(set(self.guard.files), set(files))
        told = f"{server} {files} {self.guard}"
        for secret in (self.password, self.files[KEY].text.splitlines()[1], self.files[SIGN_IN].text):
            self.assertNotIn(secret, told)
        (plain, _), _ = Display().programs(7)
        self.assertIn("-SecurityTypes None", " ".join(plain.argv))

    def test_password_file_is_that_of_vncpasswd(self) -> None:
        said = f"{self.password}\n".encode()
        hidden = subprocess.run(["vncpasswd", "-f"], input=said, capture_output=True, check=True).stdout
        self.assertEqual(base64.b64decode(self.files[SIGN_IN].text), hidden)
        self.assertEqual(len(self.password), 8)

    def test_each_is_another_one(self) -> None:
        other = Guard.make()
        self.assertNotEqual((other.password, other.own.key), (self.guard.password, self.guard.own.key))
        self.assertNotEqual(other.fingerprint, self.guard.fingerprint)

    def test_fingerprint(self) -> None:
        certificate = ssl.PEM_cert_to_DER_cert(self.files[CERTIFICATE].text)
        self.assertEqual(hashlib.sha256(certificate).hexdigest(), self.guard.fingerprint)


class DirectLife(Life):
    def setUp(self) -> None:
        super().setUp()
        self.agent.is_direct = True

    def test_console(self) -> None:
        console = self.opened()
        (spec,) = self.agent.launched
        self.assertEqual(spec.vnc, "direct")
        screen = self.relay.opened[0].console.screen()
        self.assertEqual(self.checked, [screen])
        self.assertEqual(screen.endpoint, FakeEndpoint(self.agent.running[spec.id].vnc))
        self.assertTrue(screen.password and screen.fingerprint)
        self.assertIn(KEY, [file.name for file in spec.files])
        self.close(console)
        self.assert_nothing_left()

    def test_display_that_cannot_be_reached(self) -> None:
        self.check_error = AgentUnreachable("The display's port cannot be reached.")
        self.failureResultOf(self.begin(), AgentUnreachable)
        self.settle()
        self.assert_nothing_left()
        self.assertNotIn(ConsoleState.READY, [console.state for console in self.manager.list()])

    def test_as_it_is_just_now(self) -> None:
        """A console that is open stays as it is."""

        self.opened()
        guarded = self.relay.opened[0].console.screen()
        self.agent.is_direct = False
        self.opened(existing="new")
        self.assertEqual(self.relay.opened[0].console.screen(), guarded)
        self.assertEqual(self.relay.opened[1].console.screen().fingerprint, "")
        self.assertEqual([spec.vnc for spec in self.agent.launched], ["direct", "unix"])
