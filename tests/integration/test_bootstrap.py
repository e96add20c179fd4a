"""The shell that installs Python on a host without one, and what can be in its way. Its apt-get is the test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from ipmiproxyd.errors import Busy, PackagesFailed, ProxyError, SystemUnsupported
from ipmiproxyd.model import Outcome
from ipmiproxyd.provision import bootstrap
from tests.support.hosts import AgentHost

FOLDER = "/var/lib/ipmiproxyd-agent"
APT = f"""#!/bin/sh
printf '%s\\n' "$*" >>/run/asked
for word; do
    parts=${{word#Dir::Etc::SourceParts=}}
    [ "$parts" = "$word" ] || stat -c '%a %n' "$parts" "$parts/ipmiproxyd.list" >>/run/asked
done
[ ! -e /run/broken ] || {{ cat /run/broken >&2; exit 100; }}
echo 'Setting up python3'
cp {FOLDER}/bootstrap /run/before
"""
LINE = "deb http://mirror.example.org/debian bookworm main"


class BootstrapTests(TestCase):
    timeout = 60

    async def test_what_can_be_in_its_way(self) -> None:
        self.host = AgentHost(self, "bare", 3, Path(self.mktemp()).resolve() / "keys")
        self.addCleanup(lambda: Deferred.fromCoroutine(self.host.stop()))
        await self.host.start()
        for name, text in (("apt-get", APT), ("dpkg", "#!/bin/sh\n")):
            self.host.path(f"/usr/local/sbin/{name}").write_text(text)
            self.host.path(f"/usr/local/sbin/{name}").chmod(0o755)

        release = self.host.path("/etc/os-release")
        kept = release.read_text()
        release.unlink()
        release.write_text("ID=debian\nVERSION_ID=10\nPRETTY_NAME='Debian 10'\n")
        self.assertIn("runs Debian 10,", self.failed(SystemUnsupported))
        self.assertFalse(self.host.path(FOLDER).exists())
        release.write_text(kept)

        broken = self.host.path("/run/broken")
        broken.write_text("E: The list of sources could not be read.\n")
        self.assertIn("could not be read", self.failed(PackagesFailed, "deb foo"))
        asked = self.host.path("/run/asked").read_text().splitlines()
        self.assertTrue(asked[0].endswith("update"), asked)
        self.assertTrue(asked[1].startswith("755 /tmp/tmp."), asked)
        self.assertEqual((len(asked), asked[2][:4]), (3, "644 "))
        self.assertIn("APT::Keep-Downloaded-Packages=false", asked[0])
        self.assertFalse(self.host.path("/etc/apt/sources.list.d/ipmiproxyd.list").exists())
        self.assertEqual(self.host.run("sh", "-c", "ls -d /tmp/tmp.* 2>/dev/null || :"), "")
        broken.unlink()

        # Of what was there before the first try, the second one knows.
        self.host.run("sh", "-c", f"echo 'ii  first' >{FOLDER}/bootstrap")
        bootstrap.judge("east", self.bootstrap(LINE))
        self.assertEqual(self.host.path("/run/before").read_text(), "ii  first\n")
        self.assertEqual(self.host.run("stat", "-c", "%a", FOLDER), "700\n")

        argv = [*self.host.inside(), "flock", FOLDER, "sh", "-c", "echo held; read line"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            try:
                assert holder.stdout
                self.assertEqual(holder.stdout.readline(), b"held\n")
                self.assertRegex(self.failed(Busy), r"agent east, since \d\d:\d\d:\d\d ")
            finally:
                holder.kill()

    def failed(self, kind: type[ProxyError], repository: str = "") -> str:
        with self.assertRaises(kind) as caught:
            bootstrap.judge("east", self.bootstrap(repository))
        self.assertTrue(caught.exception.hint)
        message: str = caught.exception.message
        return message

    def bootstrap(self, repository: str = "") -> Outcome:
        argv = [*self.host.inside(), *bootstrap.argv(repository)]
        done = subprocess.run(argv, capture_output=True, timeout=30, check=False)
        return Outcome(status=done.returncode, stdout=done.stdout, stderr=done.stderr)
