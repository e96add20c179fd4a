"""What the runner accepts, how a job's box lays out its sandbox and fence, and the bytes that process 1 of a job speaks
with a display."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents import box, fence, inside, runner, watcher
from tests.support.scratch import scratch

COMMON: dict[str, Any] = {"version": runner.VERSION, "jobs": "main", "prefix": "easydcim_vnc_", "group": 0}
START: dict[str, Any] = {
    "verb": "start",
    **COMMON,
    "id": "c0ffee-1",
    "display": 7,
    "vnc": "unix",
    "door": "",
    "lease": 900,
    "memory": 2 << 30,
    "least_free": 0,
    "box": "print()",
    "given": "{}",
}


FORWARD = """
import runpy, socket, sys, threading
names = runpy.run_path(sys.argv[1])
for address in ("127.0.0.1", "198.51.100.7"):
    loop, server, listener = names["Loop"](), names["listen"](address, 0), names["listen"]("127.0.0.1", 0)
    names["Forwarder"](loop).serve(listener, names["dial_to"](server.getsockname()))
    threading.Thread(target=loop.run, daemon=True).start()
    try:
        client = socket.create_connection(listener.getsockname(), 5)
        server.accept()[0].send(b"told")
        print(client.recv(9).decode())
    except OSError as error:
        print(type(error).__name__)
"""


def changed(name: str, value: Any) -> bytes:
    """The document with one member of another value."""

    return json.dumps({**START, name: value}).encode()


class DocumentTests(SynchronousTestCase):
    def refuse(self, line: bytes, code: str = "bad-request") -> None:
        error = self.assertRaises(runner.RefusedError, runner.parse, line)
        self.assertEqual(error.code, code)

    def test_good_documents(self) -> None:
        self.assertEqual(runner.parse(json.dumps(START).encode() + b"\n"), START)
        for more in ({"verb": "hello"}, {"verb": "stop", "id": "a"}, {"verb": "sweep", "jobs": "/a/jobs"}):
            self.assertEqual(runner.parse(json.dumps(COMMON | more).encode()), COMMON | more)

    def test_what_is_no_document(self) -> None:
        for line in (b"", b"\n", b"null", b"[]", b"{", b'{"verb":[]}', b'{"verb":"reboot"}', b"\xff", b"[" * 100_000):
            self.refuse(line)
        bad: tuple[Any, ...] = ([], "reboot", "watch", None, {})
        for verb in bad:
            self.refuse(json.dumps({**COMMON, "verb": verb}).encode())

    def test_another_version(self) -> None:
        for version in (runner.VERSION - 1, runner.VERSION + 1, 10**30):
            self.refuse(changed("version", version), "agent-outdated")
            self.refuse(json.dumps({"version": version}).encode(), "agent-outdated")
        bad: tuple[Any, ...] = (None, "2", 2.0, True, [2])
        for other in bad:
            self.refuse(changed("version", other))

    def test_bad_members(self) -> None:
        bad: dict[str, tuple[Any, ...]] = {
            "jobs": ("", ".", "..", "-x", "a/b", "../a", "a\n", "x" * 33, "/", "/a/../b", "/a//b", "/a/.", "/a\n"),
            "prefix": ("", "-x", "Root", "a b", "x" * 30, "a:b", "a1", "easydcim_vnc_1"),
            "group": (-1, 2**32, "0", 1.5, True),
            "id": ("", ".", "..", "a/b", "alive", "lock", "displays", "tombstones", "-a", "a\n", "x" * 49),
            "display": (0, 1000, "7", 7.0, None, True),
            "vnc": ("any", "", "unix\n"),
            "door": (None, True, "socket", "../door"),
            "lease": (0, -1, 1e9, "900", None, float("nan"), float("inf")),
            "memory": (0, -1, 1 << 50, 2.0, None),
            "least_free": (-1, 1 << 50, 0.5, None),
            "box": (None, 1, "\0", "\ud800", []),
            "given": (None, {}, "\0"),
        }
        for name, values in bad.items():
            for value in values:
                self.refuse(changed(name, value))

    ANYTHING = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) |
        st.dictionaries(st.text(), inner), max_leaves=5)  # fmt: skip

    @given(st.sampled_from(sorted(START)), ANYTHING)
    def test_nothing_may_be_of_another_type(self, name: str, value: Any) -> None:
        """Whatever is accepted is of the right type and has all of its members."""

        try:
            document = runner.parse(changed(name, value))
        except runner.RefusedError as error:
            self.assertIn(error.code, ("bad-request", "agent-outdated"))
        else:
            good = (float, int) if name == "lease" else (type(START[name]),)
            self.assertIn(type(document[name]), good)
            self.assertEqual({**document, name: START[name]}, START)

    @given(st.sampled_from(sorted(START)), st.text())
    def test_no_member_may_be_missing_or_unknown(self, name: str, other: str) -> None:
        document = copy.deepcopy(START)
        value = document.pop(name)
        self.refuse(json.dumps(document).encode())
        if other not in START:
            self.refuse(json.dumps({**document, name: value, other: 1}).encode())

    @given(st.text())
    def test_names_lead_nowhere_else(self, name: str) -> None:
        """Whatever is accepted as a name stays below the folder that it is appended to."""

        for member in ("id", "jobs"):
            try:
                accepted = runner.parse(changed(member, name))[member]
            except runner.RefusedError:
                continue
            if not (member == "jobs" and accepted.startswith("/")):
                self.assertEqual(os.path.dirname(os.path.normpath(f"/base/{accepted}")), "/base")

    @given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
    def test_any_bytes(self, line: bytes) -> None:
        self.refuse(line)


class PartsTests(SynchronousTestCase):
    def test_identity_is_of_one_process_only(self) -> None:
        me = runner.identity(os.getpid())
        self.assertRegex(me, rf"^[0-9a-f-]+:{os.getpid()}:[0-9]+$")
        self.assertEqual(watcher.identity(os.getpid()), me)
        fd = watcher.open_process(me)
        assert fd is not None
        os.close(fd)
        self.assertIsNone(watcher.open_process(me + "0"))
        self.assertTrue(runner.end_process(me + "0", 9))
        self.assertEqual(runner.identity(2**22 + 1), "")

    def test_lock_is_held_once(self) -> None:
        path = str(scratch(self) / "lock")
        first = runner.hold(path)
        self.assertRaises(BlockingIOError, runner.hold, path, wait=False)
        first.close()
        runner.hold(path, wait=False).close()

    def test_sign_of_life(self) -> None:
        """One that is still to come is none: it would keep a job for ever."""

        jobs = scratch(self)
        site = runner.Site.__new__(runner.Site)
        site.jobs = str(jobs)
        self.assertEqual(runner.last_sign(site), 0.0)
        now = time.monotonic()
        for told, sign in ((f"{now - 5}", now - 5), (f"{now + 1000}", 0.0), ("", 0.0), ("nan", 0.0), ("inf", 0.0)):
            (jobs / "alive").write_text(told)
            self.assertEqual(runner.last_sign(site), sign, told)

    def test_folder_that_was_only_half_made(self) -> None:
        path, me = scratch(self) / "folder", os.geteuid()
        path.mkdir(mode=0o700)
        runner.make_folder(str(path), 0o711, me, -1)
        self.assertEqual(path.stat().st_mode & 0o7777, 0o711)
        path.chmod(0o750)
        runner.make_folder(str(path), 0o711, me, -1)
        self.assertEqual(path.stat().st_mode & 0o7777, 0o750)
        path.chmod(0o770)
        self.assertRaises(runner.RefusedError, runner.make_folder, str(path), 0o711, me, -1)

    def test_half_a_user_is_never_left(self) -> None:
        """Whoever is stopped meanwhile."""

        folder = scratch(self)
        steps = f"import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nopen('{folder}/made', 'x')\n"
        (folder / "useradd").write_text(f"#!/usr/bin/python3 -IS\n{steps}")
        (folder / "useradd").chmod(0o755)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{folder}:{before}"
        self.addCleanup(os.environ.__setitem__, "PATH", before)
        runner.add_user("somebody")
        self.assertTrue((folder / "made").exists())

    def test_words_are_one_printable_line(self) -> None:
        self.assertEqual(runner.words(" a\x1b[31m\nb\0 "), "a [31m b")
        self.assertLessEqual(len(runner.words("x" * 10_000)), 300)

    def test_sandbox_has_a_policy_folder_of_its_own(self) -> None:
        args = box.sandbox("/vnc", [(9, "/home/console/x")], "/usr/bin/python3", "", (7, 8, -1), sizes=True)
        self.assertEqual(args[-4:], ["/usr/bin/python3", "-I", "-S", "/run/console/inside.py"])
        self.assertNotIn("--disable-userns", args)
        writable = [args[at + 1 : at + 3] for at, word in enumerate(args) if word == "--bind"]
        self.assertEqual(writable, [["/vnc", "/run/console/vnc"]])
        if os.path.isdir("/etc/chromium"):
            self.assertLess(args.index("/etc/chromium"), args.index("9"))
            read_only = [args[index + 1] for index, word in enumerate(args) if word == "--remount-ro"]
            self.assertEqual(read_only, ["/dev", "/run/console/library", "/etc/chromium", "/"])
        for java, seen in (("/opt/java/jdk", 0), ("/usr/lib/jvm/jdk", 0), ("/srv/java/jdk", 2), ("/usrjava/jdk", 2)):
            args = box.sandbox("/vnc", [], "/usr/bin/python3", java, (7, 8, -1), sizes=True)
            self.assertEqual(args.count(java), seen)

    def test_policies_of_other_browsers(self) -> None:
        """A browser that would not find them is never started."""

        args = box.sandbox(
            "/vnc", [(9, f"{box.POLICIES['chrome-policy']}/p.json")], "/usr/bin/python3", "", (7, 8, -1), sizes=True
        )
        for folder in ("/etc/opt", "/etc/chromium"):
            there = os.path.isdir(folder)
            self.assertEqual((args.count(folder), args.index(folder) < args.index("9")), (2, True) if there else (0, 0))
        self.assertNotIn(box.POLICIES["edge-policy"], args)
        self.patch(os.path, "isdir", lambda path: path == "/etc/opt")
        for place in ("home", "library", "chrome-policy", "edge-policy"):
            box.check_policies(place)
        for place, words in (("chromium-policy", "not installed"), ("brave-policy", "mkdir -m 755 /etc/brave")):
            self.assertIn(words, self.assertRaises(box.OverError, box.check_policies, place).message)

    def test_what_an_old_bubblewrap_knows(self) -> None:
        args = box.sandbox("/vnc", [(9, "/home/console/x")], "/usr/bin/python3", "", (7, 8, -1), sizes=False)
        self.assertEqual({"--size", "--perms", "--chmod"} & set(args), set())
        args = box.sandbox("/vnc", [(9, "/home/console/x")], "/usr/bin/python3", "", (7, 8, -1), sizes=True)
        self.assertEqual([args[at + 2] for at, word in enumerate(args) if word == "--size"], ["--tmpfs"] * 6)

    def test_files_from_the_cache(self) -> None:
        cache = scratch(self)

        def put(content: bytes, name: str = "") -> dict[str, str]:
            digest = hashlib.sha256(content).hexdigest()
            (cache / (name or digest)).write_bytes(content)
            return {"sha256": name or digest, "name": "a.jar"}

        good = put(b"good")
        ((fd, place),) = box.library(str(cache), [good])
        with open(fd, "rb") as file:
            self.assertEqual((file.read(), place), (b"good", "/run/console/library/a.jar"))
        elsewhere = scratch(self) / "elsewhere"
        elsewhere.write_bytes(b"else")
        link, other_name, pipe, folder = ("0123"[at] * 64 for at in range(4))
        (cache / link).symlink_to(elsewhere)
        os.link(elsewhere, cache / other_name)
        os.mkfifo(cache / pipe)
        (cache / folder).mkdir()
        for bad in (link, other_name, pipe, folder, put(b"changed", "4" * 64)["sha256"], "5" * 64):
            error = self.assertRaises(
                box.OverError, box.library, str(cache), [{"sha256": bad, "name": "b.jar"}]
            )
            self.assertIn("b.jar", error.message)
        self.assertRaises(box.OverError, box.library, f"{cache}/none", [good])
        self.patch(box, "LIBRARY_LIMIT", 7)
        self.assertRaises(box.OverError, box.library, str(cache), [good, good])
        if not os.geteuid():
            os.chown(cache / good["sha256"], 65534, -1)
            self.assertRaises(box.OverError, box.library, str(cache), [good])

    def test_java_that_nobody_else_can_change(self) -> None:
        folder = scratch(self)
        java = folder / "jdk"
        java.mkdir()
        me = os.geteuid()
        folder.chmod(0o755)
        box.check_java(str(java), me)
        (folder / "link").symlink_to(java)
        for bad in (folder / "link", folder / "none", "/proc/self", "/run/console/x"):
            self.assertRaises(box.OverError, box.check_java, str(bad), me)
        for changeable in (java, folder):
            changeable.chmod(0o777)
            self.assertRaises(box.OverError, box.check_java, str(java), me)
            changeable.chmod(0o755)
        if me == 0:
            os.chown(java, 65534, -1)
            self.assertRaises(box.OverError, box.check_java, str(java), me)
            box.check_java(str(java), 65534)

    def test_java_of_32_bits(self) -> None:
        java = scratch(self)
        self.assertFalse(box.is_32_bit(str(java)))
        (java / "bin").mkdir()
        for start, expected in ((b"\x7fELF\x01\x01", True), (b"\x7fELF\x02\x01", False), (b"#!/bin/sh", False)):
            (java / "bin" / "java").write_bytes(start)
            self.assertEqual(box.is_32_bit(str(java)), expected, start)

    def test_names(self) -> None:
        """Nothing but names comes into /etc/hosts."""

        reach = [{"address": "192.0.2.7", "names": ["bmc7", "bmc.example.org", "a b", "x\n6.6.6.6 y", "", "-x", "a#"]}]
        lines = ["127.0.0.1 localhost console", "::1 localhost", "192.0.2.7 bmc7", "192.0.2.7 bmc.example.org"]
        self.assertEqual(box.hosts(reach).splitlines(), lines)


class FenceTests(SynchronousTestCase):
    def test_wide_ranges_share_a_socket(self) -> None:
        ports = [[443, 443], [5900, 5901], [1024, 65535]]
        other = {"address": "2001:DB8::7", "ports": [[443, 443]]}
        made = fence.Fence([{"address": "192.0.2.7", "ports": ports}, other])
        self.assertEqual(
            made.single, [("192.0.2.7", 443), ("192.0.2.7", 5900), ("192.0.2.7", 5901), ("2001:db8::7", 443)]
        )
        self.assertEqual((made.wide, made.families), ([("192.0.2.7", 1024, 65535)], [socket.AF_INET]))
        self.assertEqual(len(made.dials), 5)

    def test_rules(self) -> None:
        made = fence.Fence([{"address": name, "ports": [[1, 65535]]} for name in ("192.0.2.7", "127.0.0.1", "::1")])
        doors = {family: socket.socket(family) for family in made.families}
        for door in doors.values():
            self.addCleanup(door.close)
        rules = made.rules(doors).splitlines()[3:-2]
        self.assertEqual(
            [rule.split(" redirect")[0] for rule in rules],
            [
                "ip daddr 192.0.2.7 tcp dport 1-65535",
                "ip daddr 127.0.0.1 tcp dport 1-65535 tcp dport != 61000-65535",
                "ip6 daddr ::1 tcp dport 1-65535 tcp dport != 61000-65535",
            ],
        )

    def test_kernel_that_forbids_namespaces(self) -> None:
        """In a namespace of users that may make none."""

        script = "import runpy, sys; names = runpy.run_path(sys.argv[1]); names['Fence']([]).enter()"
        limit = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
        argv = ["unshare", "-Ur", "sh", "-c", limit, "sh", sys.executable, "-c", script, str(fence.__file__)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
        self.assertIn("FenceError: The network fence cannot be made", done.stderr)
        self.assertIn("(user.max_user_namespaces is 0 on the agent)", done.stderr)

    def test_the_agent_itself_is_no_bmc(self) -> None:
        """Whatever name has led there. It is reached by its loopback addresses only, which somebody must have meant."""

        done = subprocess.run(
            ["unshare", "-Urn", "sh", "-c", 'ip link set lo up && ip address add 198.51.100.7/32 dev lo && exec "$@"',
             "sh", sys.executable, "-c", FORWARD, str(fence.__file__)],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        self.assertEqual((done.stdout.split(), done.stderr), (["told", "ConnectionResetError"], ""))

    def test_socket_filter(self) -> None:
        """Eight bytes a step, and the jumps of the last stay inside."""

        for other_calls in (True, False):
            steps = list(struct.iter_unpack("=HBBI", fence.socket_filter(other_calls=other_calls)))
            self.assertTrue(steps or os.uname().machine not in fence.MACHINES)
            for at, (_, yes, no, _) in enumerate(steps):
                self.assertLess(at + max(yes, no), len(steps))

    def test_what_is_no_address(self) -> None:
        for bad in ("bmc7", "192.0.2.7; drop", "", "192.0.2.0/24"):
            self.assertRaises(fence.FenceError, fence.Fence, [{"address": bad, "ports": []}])
        too_many = [{"address": f"192.0.2.{last}", "ports": [[1, 50]]} for last in range(9)]
        self.assertRaises(fence.FenceError, fence.Fence, too_many)


class InsideTests(SynchronousTestCase):
    def test_xauthority(self) -> None:
        """As ``xauth add :7 . …`` writes it, but for any host."""

        expected = b"\xff\xff" b"\0\0" b"\0\x017" b"\0\x12MIT-MAGIC-COOKIE-1" b"\0\x10" + b"c" * 16
        self.assertEqual(inside.xauthority(7, b"c" * 16), expected)

    def test_setup(self) -> None:
        said = inside.x_setup(b"c" * 16)
        self.assertEqual(said[:12], b"l\0\x0b\0\0\0\x12\0\x10\0\0\0")
        self.assertEqual(said[12:], b"MIT-MAGIC-COOKIE-1\0\0" + b"c" * 16)

    @given(st.binary(max_size=40), st.integers(0, 9), st.integers(0, 2**32 - 1))
    def test_root_window(self, vendor: bytes, formats: int, root: int) -> None:
        padded = vendor + bytes(-len(vendor) % 4)
        head = struct.pack("<IIIIHHBBBBBBBBI", 1, 2, 3, 4, len(vendor), 65535, 1, formats, 0, 0, 32, 32, 8, 255, 0)
        setup = head + padded + bytes(8 * formats) + struct.pack("<I", root) + bytes(36)
        self.assertEqual(inside.x_root(setup), root)

    def test_obituaries(self) -> None:
        output = b"starting\n(EE) cannot open the screen\n(EE)\n"
        for status, words in (
            (0, "Xvnc ended by itself (exit status 0)"),
            (1, "Xvnc ended by itself (exit status 1): (EE) cannot open the screen"),
            (-9, "Xvnc was killed by signal 9 (SIGKILL)"),
            (-11, "Xvnc was killed by signal 11 (SIGSEGV): (EE) cannot open the screen"),
            (-40, "Xvnc was killed by signal 40: (EE) cannot open the screen"),
        ):
            self.assertEqual(inside.obituary("Xvnc", status, output), words)
        self.assertEqual(inside.obituary("a", 2, b"\xff"), "a ended by itself (exit status 2)")
        trace = b"java.lang.Error: x\n\tat a.b(c:1)\nCaused by: java.io.IOException: y z\n\tat d.e(f)\n\t... 9 more\n"
        cause = "Java ended by itself (exit status 1): Caused by: java.io.IOException: y z"
        self.assertEqual(inside.obituary("Java", 1, trace), cause)


class LastWordTests(SynchronousTestCase):
    """A keeper writes how its job ended just before it ends itself: maybe between a look at the state and one at it."""

    def test_it_is_read(self) -> None:
        folder = scratch(self)
        (folder / "c1").mkdir()
        state = folder / "c1" / "state.json"
        begun = {"state": "starting", "keeper": "boot:1:1", "code": "", "reason": ""}
        ended = {**begun, "state": "ended", "code": "no-free-display", "reason": "Port 5907 is in use"}

        site = runner.Site.__new__(runner.Site)
        site.jobs = str(folder)
        for module, read in ((runner, site.state), (watcher, watcher.Jobs(str(folder)).state)):
            for last, code in ((ended, "no-free-display"), (begun, "job-failed")):
                state.write_text(json.dumps(begun))
                self.patch(module, "identity", lambda _, last=last: str(state.write_text(json.dumps(last))))
                found = read("c1")
                assert found is not None
                self.assertEqual(found["code"], code)
