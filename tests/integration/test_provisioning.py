"""``agent provision`` and its relatives: from a bare host to a console, and back."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ipmiproxyd.config import Settings
from tests.simulator.bmc import BmcUser
from tests.support import java_archive, leftovers
from tests.support.bare import OPT, ROOTS_HOME, BareWorld
from tests.support.hosts import RUNNER, SUDOERS
from tests.support.wire_client import Reply
from tests.support.ws_client import WsClient

KEYS = f"{ROOTS_HOME}/.ssh/authorized_keys"
PASSWORD = "corr3ct-h0rse-&+/=x"
MARKER = "/run/marker"
PYTHON = "/usr/bin/python3"
APT = "/usr/local/sbin/apt-get"  # found in front of apt's own
NO_PYTHON = f"mv -n {PYTHON} {PYTHON}.kept; printf '#!/bin/sh\nexit 1\n' >{PYTHON}; chmod 755 {PYTHON}"
FAILS = "#!/bin/sh\necho 'E: No mirror' >&2\nexit 100\n"
WORKS = f"#!/bin/sh\ncase $* in *'install python3') mv {PYTHON}.kept {PYTHON} ;; esac\n"
JAVAS, ARCHIVES = map(str, (Settings().java.dir, Settings().java.archives))
JAVA, ARCHIVE = "jdk1.8.0_121", "jdk-8u121-linux-x64.tar.gz"
OLD_RUNNER = "raise SystemExit('I am old')\n"


class ProvisionWorld(BareWorld):
    """Asks for provisioning."""

    def line(self, verb: str = "provision", **words: str) -> str:
        given = {"host": self.east.address, "key": str(self.key), "host_key": self.host.sshd.host_key}
        told = {**(given if verb == "provision" else {}), **words}
        return f"agent {verb} name=east " + " ".join(f"{name}={shlex.quote(value)}" for name, value in told.items())

    async def refused(self, line: str, code: str) -> Mapping[str, Any]:
        """The body of a refusal with this code: one line of words, and a hint."""

        reply = await self.client.ask(line)
        self.assertEqual(reply.code, code, reply.body)
        self.assertTrue(reply.body["hint"])
        self.assertNotIn("\n", reply.body["message"])
        return reply.body

    async def names_known(self) -> list[str]:
        return [one["name"] for one in (await self.client.must("agent list"))["agents"]]

    def account(self) -> list[str]:
        """Whatever of an agent is on the host."""

        passwd = self.host.path("/etc/passwd").read_text().splitlines()
        users = [line.split(":")[0] for line in passwd if line.startswith(("ipmiproxyd:", "easydcim_vnc_"))]
        there = [path for path in (RUNNER, SUDOERS, "/var/lib/ipmiproxyd-agent") if self.host.path(path).exists()]
        return [*users, *there]

    def mark(self) -> None:
        """From now on changes are looked for."""

        self.host.run("touch", MARKER)

    def changed(self) -> list[str]:
        """Files of the host that were changed since, apart from what signing in writes."""

        places = ("/etc", "/usr", "/opt", "/srv", "/var", "/run", "/home", "/tmp")
        argv = ["find", *places, "-xdev", "-cnewer", MARKER, "!", "-type", "d"]
        found = [path for path in self.host.run(*argv).split("\n") if path]
        return [path for path in found if not path.startswith(("/var/log/", "/run/sudo/")) and self.is_own(path)]

    def is_own(self, path: str) -> bool:
        """Not gone again, nor a file of the machine itself, which is seen through: users are made there meanwhile."""

        here, there = (
            os.stat(file, follow_symlinks=False).st_ctime_ns if os.path.lexists(file) else 0
            for file in (path, self.host.path(path))
        )
        return there not in (0, here)

    def engines(self) -> list[str]:
        """Engines at work there."""

        return [one.command for one in self.host.processes() if "given.pop" in one.command]


    async def picture(self, viewer: WsClient) -> None:
        """A whole picture comes."""

        self.assertIsNone(viewer.closed)
        viewer.data.clear()
        viewer.say(bytes((3, 0, 0, 0, 0, 0, 0, 64, 0, 64)))
        await viewer.hears(16)


class LifeTests(ProvisionWorld):
    """Its displays are reached at their ports, which are closed to everybody else. A Java comes with it."""

    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)
    personality: ClassVar[str] = "supermicro"
    users: ClassVar[Sequence[BmcUser]] = (BmcUser("ADMIN", PASSWORD),)
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **ProvisionWorld.settings,
        "java": {"dir": JAVAS, "archives": ARCHIVES},
    }

    async def test_from_a_bare_host_to_a_console_and_back(self) -> None:
        await self.is_refused_as_long_as_nobody_vouches()
        self.host.let_in(self.public)
        await self.is_only_looked_at()
        self.put_archive()
        reply = await self.client.ask(self.line(transport="direct", javas="8"))
        self.assertTrue(reply.ok, reply)
        self.assertIn("The Java jdk_8u121", reply.body["changes"], reply.body["warnings"])
        self.assertEqual((reply.body["state"], reply.body["runner"]), ("connected", "installed"))
        self.assertEqual((reply.body["isolation"], reply.body["dry_run"]), ("users", False))
        stages = list(dict.fromkeys(told["stage"] for told in reply.progress))
        self.assertEqual((stages[0], stages[-1]), ("look", "agent"))
        self.assertTrue({"account", "key", "runner", "sudo"} < set(stages), stages)
        keys = self.host.path("/home/ipmiproxyd/.ssh/authorized_keys").read_text()
        self.assertIn("restrict,port-forwarding ssh-ed25519", keys)
        self.assertEqual(await self.power(self.east), ("", "off"))
        opened = await self.opened("device=east1 agent=east")
        viewer = await self.use(opened["url"])
        await self.consoles_run_with_it()

        again = await self.client.must("agent provision name=east javas=8")
        self.assertEqual((again["changes"], again["words"]), ([], "Nothing had to be changed."))
        self.assertIn("another user", (await self.refused(self.line(user="other"), "bad-value"))["message"])
        await self.picture(viewer)
        await self.refused("agent unprovision name=east", "in-use")
        looked = await self.client.must("agent unprovision name=east force=yes dry_run=yes")
        self.assertIn(f"{SUDOERS} is removed", looked["changes"])
        await self.picture(viewer)
        self.assertIsNone(viewer.closed)
        gone = await self.client.must("agent unprovision name=east force=yes")
        self.assertEqual(gone["removed"], "east")
        self.assertIn(f"{JAVAS} is removed, with {JAVA}", gone["changes"])
        await viewer.is_closed()
        self.assertEqual((self.account(), self.host.path(OPT).exists()), ([], False))
        self.assertEqual(await self.names_known(), ["local"])
        self.assertEqual(self.host.path(KEYS).read_text(), f"{self.public}\n")
        await self.nothing_left()

    def put_archive(self) -> None:
        """As an administrator does."""

        place = self.host.path(f"{ARCHIVES}/{ARCHIVE}")
        place.parent.mkdir(mode=0o755, parents=True)
        program = java_archive.launcher("1.8.0_121")
        java_archive.write(place, java_archive.members(JAVA, "1.8.0_121", program))

    async def consoles_run_with_it(self) -> None:
        found = await self.client.must("java list agent=east")
        self.assertEqual([one["home"] for one in found["installed"] if one["used"]], [f"{JAVAS}/{JAVA}"])
        checked = await self.client.must("agent check name=east trial=no")
        (finding,) = [one for one in checked["findings"] if one["what"] == "java"]
        self.assertEqual((finding["level"], "run with jdk_8u121" in finding["words"]), ("ok", True), finding)
        opened = await self.opened("device=east1 agent=east type=java existing=new")
        self.assertEqual(opened["warnings"], [])
        running = {line.partition(" -XX")[0] for line in self.host.console_processes().values()}
        self.assertIn(f"{self.host.user_of(12)} {JAVAS}/{JAVA}/bin/java", running)
        await self.close(opened["console"])

    async def is_refused_as_long_as_nobody_vouches(self) -> None:
        shown = await self.refused(self.line(host_key=""), "agent-host-key-unknown")
        self.assertIn(f"host_key={self.host.sshd.host_key}", shown["hint"])
        await self.refused("agent provision name=east host=10.77.1.2", "missing-argument")
        await self.refused("agent provision name=local", "forbidden")
        body = await self.refused(self.line(), "agent-key")
        self.assertIn(" ".join(self.public.split()[:2]), body["hint"])
        self.assertIn("~root/.ssh/authorized_keys", body["hint"])

    async def is_only_looked_at(self) -> None:
        self.mark()
        looked = await self.client.must(self.line(dry_run="yes"))
        self.assertTrue(looked["dry_run"])
        self.assertGreater(len(looked["changes"]), 3)
        self.assertEqual((self.changed(), self.account(), await self.names_known()), ([], [], ["local"]))


class UpdateTests(ProvisionWorld):
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)

    async def test_update_under_a_console(self) -> None:
        self.host.let_in(self.public)
        await self.client.must(self.line())
        opened = await self.opened("device=east1 agent=east")
        viewer = await self.use(opened["url"])
        serving = self.host.serving()
        self.host.path(RUNNER).write_text(OLD_RUNNER)
        await self.client.must("agent check name=east")
        refused = await self.refused("console open device=east1 agent=east existing=new", "agent-outdated")
        self.assertIn("agent update name=east", refused["hint"])
        updated = await self.client.must("agent update name=east")
        self.assertEqual((updated["runner"], updated["state"]), ("installed", "connected"))
        self.assertTrue(updated["changes"])
        await self.picture(viewer)
        self.assertLessEqual({*serving}, {*self.host.serving()})
        second = await self.opened("device=east1 agent=east existing=new")
        await self.close(second["console"])

        self.host.path(RUNNER).write_text(OLD_RUNNER)
        self.host.cut()
        await leftovers.until_none(lambda: [] if "outdated" in self.daemon.log_text() else ["not noticed"])
        told = await self.client.must("agent update name=east")
        self.assertEqual((told["runner"], told["state"]), ("installed", "connected"))
        self.assertEqual((await self.show(opened["console"]))["state"], "ready")
        await self.use((await self.client.must(f"console url console={opened['console']}"))["url"])
        await self.close(opened["console"])
        await self.nothing_left()


class RefusalTests(ProvisionWorld):
    async def test_what_can_be_in_the_way(self) -> None:
        """One clear line for each, and nothing is stored or changed."""

        self.host.run("useradd", "--create-home", "--shell", "/bin/sh", "ada")
        self.host.run("sh", "-c", f"echo 'ada:{PASSWORD}' | chpasswd")
        self.host.let_in(self.public, "ada")
        ada = {"as": "ada"}
        self.assertIn("wants the password", (await self.refused(self.line(**ada), "agent-sudo"))["message"])
        right = {**ada, "sudo_password": PASSWORD}
        self.assertIn("not let ada do all", (await self.refused(self.line(**right), "agent-sudo"))["message"])
        self.host.run("usermod", "-aG", "sudo", "ada")
        wrong = self.line(**ada, sudo_password="something else")
        self.assertIn("does not accept", (await self.refused(wrong, "agent-sudo"))["message"])
        os_release = self.host.path("/etc/os-release")
        release = os_release.read_text()
        os_release.unlink()
        os_release.write_text("ID=fedora\nVERSION_ID=41\nPRETTY_NAME='Fedora Linux 41'\n")
        self.assertIn("Fedora Linux 41", (await self.refused(self.line(**right), "system-unsupported"))["message"])
        os_release.write_text(release)
        self.host.path("/etc/sudoers.d/ada").write_text("ada ALL=(root) NOPASSWD: /usr/bin/true\n")
        self.host.run("gpasswd", "-d", "ada", "sudo")
        self.assertIn("not let ada do all", (await self.refused(self.line(**right), "agent-sudo"))["message"])
        self.host.path("/etc/sudoers.d/ada").unlink()
        self.host.run("usermod", "-aG", "sudo", "ada")
        key = self.line(**right, as_key="/nowhere")
        self.assertIn("as_key=", (await self.refused(key, "agent-key"))["hint"])
        self.assertEqual((self.account(), await self.names_known()), ([], ["local"]))
        self.lose_python(FAILS)
        self.assertIn("E: No mirror", (await self.refused(self.line(**right), "packages-failed"))["message"])
        self.lose_python(WORKS)

        await self.is_cut_and_completed(self.line(**right))
        self.assert_unseen(PASSWORD)
        self.assertEqual((await self.client.must(self.line(**right)))["changes"], [])
        # By a rule that asks for no password the one that is given is left alone.
        self.host.path("/etc/sudoers.d/ada").write_text("ada ALL=(ALL:ALL) NOPASSWD: ALL\n")
        for words in (ada, right):
            self.assertEqual((await self.client.must(self.line(**words)))["changes"], [])
        self.lose_python(FAILS)
        failed = await self.refused("agent unprovision name=east as=ada keep=yes", "packages-failed")
        self.assertIn("agent provision name=east", failed["hint"])
        self.lose_python(WORKS)
        self.assertIn("kept", await self.client.must("agent unprovision name=east as=ada keep=yes"))
        self.assertEqual((self.account(), await self.names_known()), ([], ["local", "east"]))
        self.lose_python(FAILS)
        again = await self.client.must("agent unprovision name=east as=ada keep=yes")
        self.assertEqual(again["words"], "Nothing of it is there.")
        looked = await self.client.must("agent provision name=east as=ada dry_run=yes")
        self.assertIn("The account ipmiproxyd", looked["changes"])
        self.lose_python(WORKS)
        self.assertEqual((await self.client.must("agent provision name=east as=ada"))["state"], "connected")

    def lose_python(self, apt: str) -> None:
        """Python is there and of no use, until this apt-get installs it."""

        self.host.run("sh", "-c", NO_PYTHON)
        self.host.path(APT).write_text(apt)
        self.host.path(APT).chmod(0o755)

    async def is_cut_and_completed(self, line: str) -> None:
        """The connection is cut in the middle. What was changed can be taken back; the same line completes it."""

        asked = self.client.ask(line)
        while not any(told["stage"] == "runner" for told in self.client.progress):
            await self.client.something()
        self.assertEqual(leftovers.seen_in_processes(PASSWORD.encode()), [])
        busy = await (await self.connect()).ask(line)
        self.assertEqual(busy.code, "busy", busy)
        self.host.cut()
        cut: Reply = await asked
        self.assertEqual((cut.code, "same line again" in cut.body["hint"]), ("agent-unreachable", True), cut)
        self.assertIn(f"agent unprovision name=east host={self.east.address} key=", cut.body["hint"])
        await leftovers.until_none(self.engines)
        given = line.replace("agent provision", "agent unprovision")
        self.assertEqual((await self.client.must(given))["host"], self.east.address)
        self.assertEqual((self.account(), await self.names_known()), ([], ["local"]))
        self.assertEqual((await self.client.must(line))["state"], "connected")
