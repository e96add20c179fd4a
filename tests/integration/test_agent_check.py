"""What is found out about an agent, over a real sshd and sudo."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from ipmiproxyd.agents import runner
from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.errors import AgentOutdated, AgentUnreachable
from ipmiproxyd.model import Command
from tests.support.ssh_case import AM_ROOT, PYTHON, SshCase
from tests.support.sshd import login_account


def by_name(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


class FindingsTests(SshCase):
    async def test_all_is_well(self) -> None:
        found = by_name(await self.agent.check())
        self.assertEqual({what: finding.level for what, finding in found.items()}, {
            "ssh": "ok", "sessions": "ok", "displays": "ok", "tcp": "ok", "runner": "warning",
        })  # fmt: skip
        self.assertIn(f"{self.sshd.host_key} (ED25519)", found["ssh"].words)
        self.assertIn("not installed", found["runner"].words)
        self.assertIn(f"install -D -o root -g root -m 644 runner.py {self.installed}", found["runner"].advice)
        self.assertEqual((await self.agent.run(Command(argv=("true",)))).status, 0)

    async def test_the_daemons_key_is_gone(self) -> None:
        """We are connected, and shall not be again."""

        self.assertEqual((await self.agent.run(Command(argv=("true",)))).status, 0)
        keys = self.sshd.folder / "authorized_keys"
        keys.rename(f"{keys}.away")
        found = by_name(await self.agent.check())
        self.assertEqual((found["key"].level, found["displays"].level), ("fault", "ok"))
        self.assertIn("the next connection will be refused", found["key"].words)
        self.assertIn("agent provision name=", found["key"].advice)

    async def test_several_look_at_once(self) -> None:
        """And what else is in the folder is left alone."""

        (self.folder / "mine" / "agent" / "check").mkdir()
        for findings in await gatherResults([Deferred.fromCoroutine(self.agent.check()) for _ in range(4)]):
            found = by_name(findings)
            self.assertEqual((found["displays"].level, found["tcp"].level), ("ok", "ok"), found)
        left = [path.name for path in (self.folder / "mine" / "agent").iterdir() if path.name.startswith("check")]
        self.assertEqual(left, ["check"])


class NarrowSshdTests(SshCase):
    sshd_options = ("AllowStreamLocalForwarding no", "AllowTcpForwarding no", "MaxSessions 4")

    async def test_what_sshd_does_not_allow(self) -> None:
        found = by_name(await self.agent.check())
        for what, level, setting in (
            ("sessions", "warning", "MaxSessions"),
            ("displays", "fault", "AllowStreamLocalForwarding"),
            ("tcp", "warning", "AllowTcpForwarding"),
        ):
            self.assertEqual(found[what].level, level, what)
            self.assertIn(setting, found[what].advice)
        self.assertIn("only 4 programs", found["sessions"].words)


if AM_ROOT:

    class RepairTests(SshCase):
        """The account may do all by sudo, or nothing: one test at a time."""

        by_sudo: ClassVar[bool] = False

        async def setUp(self) -> None:  # type: ignore[override]
            alone = open(Path(tempfile.gettempdir()) / "ipmiproxyd-tests-sudo.lock", "w")  # noqa: SIM115
            self.addCleanup(alone.close)
            await deferToThread(fcntl.flock, alone, fcntl.LOCK_EX)
            await super().setUp()
            self.account = login_account().pw_name
            self.rooted = self.folder / "rooted"
            self.runner = self.rooted / "lib" / "runner.py"
            self.rules = Path("/etc/sudoers.d") / self.folder.name

        def allow_all(self) -> None:
            self.rules.write_text(f"Defaults:{self.account} !use_pty\n{self.account} ALL=(root) NOPASSWD: ALL\n")
            self.rules.chmod(0o440)
            self.addCleanup(self.rules.unlink, True)

        async def test_sudo_installs_what_is_missing_or_old(self) -> None:
            self.allow_all()
            agent = await self.make_agent(runner=str(self.runner))
            self.assertEqual(agent.describe()["runner"], "sent")
            fixed = await agent.repair()
            assert fixed is not None
            self.assertEqual((fixed.level, fixed.what), ("ok", "fix"), fixed)
            self.assertEqual(self.runner.read_text(), Path(runner.__file__).read_text())
            self.assertEqual((self.runner.stat().st_uid, self.runner.stat().st_mode & 0o777), (0, 0o644))
            self.assertIsNone(await agent.repair())
            agent = await self.make_agent(runner=str(self.runner))
            self.assertEqual((agent.describe()["runner"], agent.describe()["isolation"]), ("installed", "users"))
            self.assertEqual(by_name(await agent.check())["runner"].level, "ok")

            with self.runner.open("a") as file:
                file.write("# an old one\n")
            late = await self.make_agent(runner=str(self.runner))
            error: Any = await self.assertFailure(Deferred.fromCoroutine(late.check()), AgentOutdated)
            self.assertIn("agent update", error.hint)
            self.assertEqual(late.describe()["runner"], "outdated")
            await late.repair()
            self.assertEqual(late.describe()["runner"], "installed")

        async def test_what_has_changed_since_the_connection_was_made(self) -> None:
            """It is taken into use at once; but with another runner than ours nothing is begun."""

            agent = await self.make_agent(runner=str(self.runner))
            self.assertEqual(by_name(await agent.check())["runner"].level, "warning")
            self.allow_all()
            self.runner.parent.mkdir(parents=True)
            shutil.copy(runner.__file__, self.runner)
            self.assertEqual(by_name(await agent.check())["runner"].level, "ok")
            self.assertEqual((agent.describe()["runner"], agent.describe()["isolation"]), ("installed", "users"))
            for place, mode in ((self.runner, 0o666), (self.rooted, 0o777)):
                before = place.stat().st_mode & 0o777
                place.chmod(mode)
                found = by_name(await agent.check())["runner"]
                self.assertEqual(found.level, "fault")
                self.assertIn(f"Others than root can change {place} (mode {mode:o})", found.words)
                self.assertIn(f"chmod go-w {place}", found.advice)
                place.chmod(before)
            spec = self.spec()
            text = self.runner.read_text()
            for change in (lambda: self.runner.write_text(f"{text}#"), self.runner.unlink):
                change()
                found = by_name(await agent.check())["runner"]
                self.assertEqual((found.level, agent.describe()["runner"]), ("fault", "outdated"))
                await self.assertFailure(
                    Deferred.fromCoroutine(agent.launch(spec, lambda _: None)), AgentOutdated
                )
            self.assertEqual((await agent.run(Command(argv=("true",)))).status, 0)
            self.runner.write_text(text)
            self.assertEqual(by_name(await agent.check())["runner"].level, "ok")
            self.assertEqual(agent.describe()["runner"], "installed")

        async def test_folder_that_is_not_roots(self) -> None:
            self.allow_all()
            account = login_account()
            self.runner.parent.mkdir(parents=True)
            os.chown(self.runner.parent, account.pw_uid, account.pw_gid)
            agent = await self.make_agent(runner=str(self.runner))
            fixed = await agent.repair()
            assert fixed is not None
            self.assertIn("can be changed by others than root", fixed.words)
            self.assertEqual(list(self.runner.parent.iterdir()), [])

        async def test_sudo_that_refuses(self) -> None:
            self.rooted.mkdir()
            shutil.copy(runner.__file__, self.rooted / "runner.py")
            agent = await self.make_agent(runner=str(self.rooted / "runner.py"))
            found = by_name(await agent.check())["runner"]
            self.assertEqual(found.level, "warning")
            self.assertIn("the rule for sudo, /etc/sudoers.d/ipmiproxyd-agent, is missing", found.words)
            self.assertIn(f"NOPASSWD: {PYTHON} -I -S {self.rooted}/runner.py", found.advice)
            agent = await self.make_agent(runner=str(self.runner))
            fixed = await agent.repair()
            assert fixed is not None
            self.assertEqual(fixed.level, "fault")
            self.assertIn("may not install the runner", fixed.words)
            self.assertIn("agent update name=", fixed.advice)
            self.assertIn("as root there", fixed.advice)
            agent = await self.make_agent(runner=str(self.rooted / "runner.py"), users="always")
            error = await self.assertFailure(Deferred.fromCoroutine(agent.check()), AgentUnreachable)
            self.assertIn("sudo", str(error))
