"""A test case with a real sshd and an agent behind it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from ipmiproxyd.agents import runner
from ipmiproxyd.agents.ssh import SshAgent
from ipmiproxyd.agents.ssh_link import SshPlace
from ipmiproxyd.model import RemoteAgent
from tests.support.agent_suite import AgentHelpers, Endings
from tests.support.scratch import remove_root_jobs, root_jobs, scratch
from tests.support.sshd import Sshd, login_account

AM_ROOT = os.geteuid() == 0
PYTHON = "/usr/bin/python3"


def allow_sudo(test: TestCase, account: str, installed: Path) -> None:
    """Install the runner, and let the account run it as root."""

    shutil.copy(runner.__file__, installed)
    rules = Path("/etc/sudoers.d") / installed.parent.name
    rules.write_text(
        f"Defaults:{account} !use_pty, !requiretty, !mail_badpass\n"
        f"{account} ALL=(root) NOPASSWD: {PYTHON} -I -S {installed}\n"
    )
    rules.chmod(0o440)
    test.addCleanup(rules.unlink)


class SshCase(AgentHelpers, TestCase):
    """Makes an sshd and the agent.

    :cvar by_sudo: the account may run the runner as root.
    """

    timeout: ClassVar[float] = 60
    by_sudo: ClassVar[bool] = False
    lease: ClassVar[float] = 60.0
    sshd_options: ClassVar[tuple[str, ...]] = ()
    agent: SshAgent

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = scratch(self)
        self.folder.chmod(0o711)
        self.endings = Endings()
        account = login_account()
        for name in ("ssh", "mine"):
            (self.folder / name).mkdir(mode=0o711)
        if AM_ROOT:
            os.chown(self.folder / "mine", account.pw_uid, account.pw_gid)
        self.installed = self.folder / "runner.py"
        as_root = root_jobs(self.folder)
        self.jobs_dir = self.folder / "mine" / "agent" / "jobs" / as_root.name
        if self.by_sudo:
            allow_sudo(self, account.pw_name, self.installed)
            self.jobs_dir = as_root
        self.addCleanup(remove_root_jobs, as_root)
        self.sshd = Sshd(self.folder / "ssh", more=self.sshd_options)
        await self.sshd.start(self)
        self.agent = await self.make_agent()
        self.agent.watch(self.endings)

    def told(self, *, place: SshPlace | None = None, **settings: Any) -> RemoteAgent:
        """What an operator would tell of the agent."""

        where = place or self.sshd.place()
        given: dict[str, Any] = {
            "folder": str(self.folder / "mine" / "agent"),
            "jobs_name": self.jobs_dir.name,
            "python": PYTHON,
            "runner": str(self.installed),
            **settings,
        }
        return RemoteAgent(
            name="far",
            host=where.host,
            port=where.port,
            user=where.user,
            key=str(where.key),
            passphrase=where.passphrase,
            host_keys=where.host_keys,
            **given,
        )

    async def make_agent(self, *, displays: Sequence[int] = range(1, 101), **settings: Any) -> SshAgent:
        agent = SshAgent(
            self.told(**settings),
            known_hosts=(),
            home_files={".config/small/file": "text"},
            user_prefix="easydcim_vnc_",
            displays=displays,
            lease=self.lease,
            reactor=reactor,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(agent.close()))
        await agent.start()
        return agent
