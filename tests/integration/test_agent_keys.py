"""How an agent's host is trusted, and what we sign in with: real sshd, ssh-keygen and ssh-agent."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ipmiproxyd.agents.ssh_link import SshPlace, hang_up, sign_in
from ipmiproxyd.agents.ssh_maker import SshMaker
from ipmiproxyd.errors import HostKeyChanged, HostKeyUnknown, KeyRefused, ProxyError
from ipmiproxyd.model import SSH_AGENT, RemoteAgent, Secret
from tests.support.scratch import scratch
from tests.support.sshd import ADDRESS, Sshd, login_account, make_key


class KeysCase(TestCase):
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = scratch(self)
        self.folder.chmod(0o711)
        self.sshd = Sshd(self.folder)

    async def comes_in(self, place: SshPlace) -> str:
        """The kind of the host key that was shown."""

        transport = await sign_in(reactor, "far", place)
        await hang_up(transport)
        return transport.kind

    async def refused(self, kind: type[ProxyError], work: Any) -> ProxyError:
        return cast(ProxyError, await self.assertFailure(Deferred.fromCoroutine(work), kind))


class HostKeyTests(KeysCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.keys = {"ED25519": self.sshd.host_key, "ECDSA": self.sshd.another_host_key("-t", "ecdsa")}
        self.keys["RSA"] = self.sshd.another_host_key("-t", "rsa", "-b", "2048")
        await self.sshd.start(self)
        self.known = self.folder / "known_hosts"
        account = login_account()
        self.mine = self.folder / "mine"
        self.mine.mkdir()
        if os.geteuid() == 0:
            os.chown(self.mine, account.pw_uid, account.pw_gid)
        self.maker = SshMaker(
            reactor,
            home_files={},
            user_prefix="x",
            lease=60,
            displays=range(1, 101),
            known_hosts=[self.folder / "none", self.known],
        )

    def know(self, kind: str, *, hashed: bool = False, marker: str = "", host: str = "") -> None:
        """Write a line of known hosts, as OpenSSH does."""

        name = {"ED25519": "host_key", "ECDSA": "host_key_ecdsa", "RSA": "host_key_rsa"}[kind]
        key = (self.folder / f"{name}.pub").read_text()
        self.known.write_text(f"# ours\n{marker} {host or f'[{ADDRESS}]:{self.sshd.port}'} {key}")
        if hashed:
            subprocess.run(["ssh-keygen", "-H", "-f", self.known], check=True, capture_output=True, timeout=30)
            self.assertNotIn(ADDRESS, self.known.read_text())

    def vouched(self, **more: Any) -> Any:
        agent = RemoteAgent(
            name="far",
            host=ADDRESS,
            port=self.sshd.port,
            user=login_account().pw_name,
            key=str(self.folder / "key"),
            host_keys=more.pop("host_keys", ()),
            folder=str(self.mine),
        )
        return self.maker.vouched(agent, **{"check": True, "known_hosts": True, **more})

    async def test_each_kind_may_be_the_trusted_one(self) -> None:
        for kind, key in self.keys.items():
            self.assertEqual(await self.comes_in(self.sshd.place(host_keys=(key,))), kind)
        error = await self.refused(HostKeyChanged, self.comes_in(self.sshd.place(host_keys=("SHA256:else",))))
        for key in self.keys.values():
            self.assertIn(key, error.message)

    async def test_nobody_vouches(self) -> None:
        error = await self.refused(HostKeyUnknown, self.vouched())
        shown = cast(list[Mapping[str, str]], error.details["host_keys"])
        self.assertEqual({one["kind"]: one["fingerprint"] for one in shown}, self.keys)
        self.know("ED25519", host=ADDRESS)  # another port's
        await self.refused(HostKeyUnknown, self.vouched())
        self.know("ED25519")
        await self.refused(HostKeyUnknown, self.vouched(known_hosts=False))
        self.assertEqual((await self.vouched(host_keys=(self.keys["RSA"],))).host_keys, (self.keys["RSA"],))

    async def test_known_hosts_vouch(self) -> None:
        for kind, hashed in (("ED25519", False), ("RSA", True), ("ECDSA", True)):
            self.know(kind, hashed=hashed)
            self.assertEqual((await self.vouched()).host_keys, (self.keys[kind],))
        self.know("RSA", host=f"!elsewhere,[127.0.0.*]:{self.sshd.port}")
        self.assertEqual((await self.vouched()).host_keys, (self.keys["RSA"],))
        self.know("RSA", host=f"*,![127.0.0.*]:{self.sshd.port}")
        await self.refused(HostKeyUnknown, self.vouched())

    async def test_known_hosts_have_lines_as_for_ssh(self) -> None:
        name = f"[{ADDRESS}]:{self.sshd.port}"
        key = (self.folder / "host_key.pub").read_text().strip()
        for separator in "\f\v\x1c\x85\u2028":
            self.known.write_text(f"else ssh-ed25519 AAAA by{separator}{name} {key}\n", encoding="utf-8")
            await self.refused(HostKeyUnknown, self.vouched())
        self.known.write_text(f"{name} {key}\r\n")
        self.assertEqual((await self.vouched()).host_keys, (self.keys["ED25519"],))

    async def test_known_hosts_tell_of_another(self) -> None:
        make_key(self.folder / "else")
        self.known.write_text(f"[{ADDRESS}]:{self.sshd.port} {(self.folder / 'else.pub').read_text()}")
        error = await self.refused(HostKeyChanged, self.vouched())
        self.assertIn(self.keys["ECDSA"], error.message)

    async def test_known_hosts_tell_of_a_revoked_key(self) -> None:
        self.know("ED25519", marker="@revoked")
        own = {"host_keys": (self.keys["ED25519"], self.keys["RSA"])}
        for more in ({}, {"known_hosts": False}, own, {**own, "check": False}):
            self.assertIn("revoked", (await self.refused(HostKeyChanged, self.vouched(**more))).message)

    async def test_key_that_is_revoked_later(self) -> None:
        for trusted in (self.keys["ED25519"],), tuple(self.keys.values()):
            place = self.sshd.place(host_keys=trusted, known_hosts=(self.folder / "none", self.known))
            self.assertEqual(await self.comes_in(place), "ED25519")
            self.know("ED25519", marker="@revoked")
            self.assertIn("revoked", (await self.refused(HostKeyChanged, self.comes_in(place))).message)
            self.known.unlink()
        self.know("RSA", marker="@revoked")
        self.assertEqual(await self.comes_in(place), "ED25519")


class SshAgentProgram(ProcessProtocol):
    """A real ssh-agent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()

    async def start(self, test: TestCase) -> None:
        argv = ["ssh-agent", "-D", "-a", str(self.path)]
        cast(IReactorProcess, reactor).spawnProcess(self, argv[0], argv, env={"PATH": os.environ["PATH"]})
        test.addCleanup(self.stop)
        await self.started.addTimeout(10.0, cast(IReactorTime, reactor))

    def outReceived(self, _data: bytes) -> None:
        if not self.started.called:
            self.started.callback(None)

    def stop(self) -> Deferred[None]:
        if not self.ended.called:
            assert self.transport is not None
            self.transport.signalProcess("TERM")
        return self.ended

    def processEnded(self, _reason: Failure) -> None:
        self.ended.callback(None)

    def hold(self, *options: str) -> None:
        env = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": str(self.path)}
        subprocess.run(["ssh-add", *options], env=env, check=True, capture_output=True, timeout=30)


class SshAgentTests(KeysCase):
    """Keys that an ssh-agent holds."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        await self.sshd.start(self)
        self.place = self.sshd.place(key=SSH_AGENT)
        self.patch(os, "environ", {**os.environ, "SSH_AUTH_SOCK": str(self.folder / "agent")})

    async def test_each_kind_of_key(self) -> None:
        held = SshAgentProgram(self.folder / "agent")
        await held.start(self)
        self.assertIn("holds no key", (await self.refused(KeyRefused, self.comes_in(self.place))).message)
        for options in (("-t", "ed25519"), ("-t", "ecdsa"), ("-t", "rsa", "-b", "2048")):
            path = self.folder / "another"
            make_key(path, *options)
            held.hold(str(path))
            path.unlink()
            error = await self.refused(KeyRefused, self.comes_in(self.place))
            self.assertIn("does not let", error.message)
            self.sshd.let_in(path.with_suffix(".pub"))  # the last one that it holds
            await self.comes_in(self.place)
            make_key(path)
            self.sshd.let_in(path.with_suffix(".pub"))

    async def test_what_stands_in_the_way(self) -> None:
        self.assertIn("cannot be reached", (await self.refused(KeyRefused, self.comes_in(self.place))).message)
        held = SshAgentProgram(self.folder / "agent")
        await held.start(self)
        held.hold(str(self.folder / "key"))
        await self.comes_in(self.place)
        held.hold("-D")
        self.assertIn("holds no key", (await self.refused(KeyRefused, self.comes_in(self.place))).message)
        del os.environ["SSH_AUTH_SOCK"]
        self.assertIn("SSH_AUTH_SOCK", (await self.refused(KeyRefused, self.comes_in(self.place))).message)


class FileTests(KeysCase):
    async def test_passphrase_of_a_key_that_has_none(self) -> None:
        await self.sshd.start(self)
        await self.comes_in(self.sshd.place(passphrase=Secret("not needed")))
