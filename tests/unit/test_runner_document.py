"""What the runner accepts, and the bytes that process 1 of a job speaks with a display."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents import inside, runner
from tests.support.scratch import scratch

PROGRAM = {"name": "Xvnc", "argv": ["Xvnc", ":7"], "ready": "display", "env": ["A=b=c"], "stdin": "a secret"}
PROGRAM |= {"door": ""}
FILE = {"place": "home", "name": ".config/rc.xml", "text": "<a/>\n", "encoding": "utf-8"}
JOB: dict[str, Any] = {
    "id": "c0ffee-1",
    "display": 7,
    "vnc": "unix",
    "programs": [PROGRAM],
    "files": [FILE],
    "library": [{"sha256": "0123456789abcdef" * 4, "name": "viewer.jar"}],
    "cache": "/var/lib/ipmiproxyd/tools-cache",
    "java": "/opt/java/jdk1.8.0_121",
    "lease": 900,
    "start_timeout": 30.5,
    "inside": "print()",
}
START: dict[str, Any] = {
    "verb": "start",
    "jobs": "/run/ipmiproxyd/jobs",
    "owner": {"users": "auto", "prefix": "easydcim_vnc_", "group": 0},
    "job": JOB,
}
Place = tuple[str | int, ...]


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    """Every member of a document, however deep."""

    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def changed(path: Place, value: Any) -> bytes:
    """The document with one member of another value."""

    document = copy.deepcopy(START)
    at: Any = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return json.dumps(document).encode()


class DocumentTests(SynchronousTestCase):
    def refuse(self, line: bytes) -> None:
        error = self.assertRaises(runner.RefusedError, runner.parse, line)
        self.assertEqual(error.code, "bad-request")

    def test_good_documents(self) -> None:
        self.assertEqual(runner.parse(json.dumps(START).encode() + b"\n"), START)
        common = {"jobs": "/j", "owner": START["owner"]}
        for more in ({"verb": "list"}, {"verb": "stop", "id": "a"}, {"verb": "watch", "lease": 0.5}):
            self.assertEqual(runner.parse(json.dumps(common | more).encode()), common | more)

    def test_what_is_no_document(self) -> None:
        for line in (b"", b"\n", b"null", b"[]", b"{", b'{"verb":[]}', b'{"verb":"reboot"}', b"\xff", b"[" * 100_000):
            self.refuse(line)

    def test_bad_members(self) -> None:
        bad: dict[Place, tuple[Any, ...]] = {
            ("jobs",): ("run", "/", "/a/../b", "/a//b", "/a/.", "/a\n", "/a/", "/" + "x" * 200),
            ("owner", "users"): ("", "root", True),
            ("owner", "prefix"): ("", "-x", "Root", "a b", "x" * 30, "a:b"),
            ("owner", "group"): (-1, 2**32, "0", 1.5, True),
            ("job", "id"): ("", ".", "..", "a/b", "alive", "lock", "displays", "tombstones", "-a", "a\n", "x" * 49),
            ("job", "display"): (0, 1000, "7", 7.0, None),
            ("job", "vnc"): ("any", ""),
            ("job", "programs", 0, "name"): ("", " x", "a\nb", "x" * 40),
            ("job", "programs", 0, "argv"): ([], ["a\0b"], "Xvnc", [1], ["\ud800"], ["x"] * 201),
            ("job", "programs", 0, "ready"): ("later", None),
            ("job", "programs", 0, "env"): (["A"], ["=x"], ["A-B=c"], {"A": "b"}),
            ("job", "files", 0, "place"): ("etc", "home/x"),
            ("job", "programs", 0, "stdin"): (None, "x" * 262_145, "\0"),
            ("job", "programs", 0, "door"): (None, True, "socket", "../door"),
            ("job", "files", 0, "name"): ("", ".", "..", "/a", "a/", "a//b", "../a", "a/../b", "a b", "a\n", "x" * 65),
            ("job", "files", 0, "encoding"): ("utf-16", "", None),
            ("job", "library", 0, "sha256"): ("", "../../etc/shadow", "0" * 63, "A" * 64),
            ("job", "library", 0, "name"): ("", "..", "a/b", "a b"),
            ("job", "cache"): ("", "a", "/a/../b"),
            ("job", "java"): ("java", "/", "/a/../b", None),
            ("job", "files", 0, "text"): ("x" * 262_145, b"".hex, None),
            ("job", "lease"): (0, -1, 1e9, "900", None),
            ("job", "start_timeout"): (0, 601, float("nan")),
        }
        for path, values in bad.items():
            for value in values:
                if not callable(value):
                    self.refuse(changed(path, value))
        document = copy.deepcopy(START)
        document["job"]["files"][0] |= {"encoding": "base64", "text": "no base64"}
        self.refuse(json.dumps(document).encode())

    @given(st.sampled_from(list(places(START))), st.integers() | st.none() | st.binary().map(repr) | st.just({}))
    def test_nothing_may_be_of_another_type(self, path: Place, value: Any) -> None:
        """Whatever is accepted is of the right type and has all of its members."""

        try:
            document = runner.parse(changed(path, value))
        except runner.RefusedError as error:
            self.assertEqual(error.code, "bad-request")
        else:
            self.assertEqual(types_of(document), types_of(START))

    @given(st.sampled_from([path for path in places(START) if isinstance(path[-1], str)]))
    def test_no_member_may_be_missing_or_unknown(self, path: Place) -> None:
        document = copy.deepcopy(START)
        around = at(document, path[:-1])
        value = around.pop(path[-1])
        self.refuse(json.dumps(document).encode())
        around |= {path[-1]: value, "unknown": 1}
        self.refuse(json.dumps(document).encode())

    @given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
    def test_any_bytes(self, line: bytes) -> None:
        self.refuse(line)


def at(document: Any, path: Place) -> Any:
    for key in path:
        document = document[key]
    return document


def types_of(document: Any) -> dict[Place, str]:
    kinds = {int: "number", float: "number"}
    return {path: kinds.get(type(at(document, path)), type(at(document, path)).__name__) for path in places(document)}


class PartsTests(SynchronousTestCase):
    def test_identity_is_of_one_process_only(self) -> None:
        me = runner.identity(os.getpid())
        self.assertRegex(me, rf"^[0-9a-f-]+:{os.getpid()}:[0-9]+$")
        fd = runner.open_process(me)
        assert fd is not None
        os.close(fd)
        self.assertIsNone(runner.open_process(me + "0"))
        self.assertIsNone(runner.open_process(""))
        self.assertEqual(runner.identity(2**22 + 1), "")

    def test_lock_is_held_once_and_leaves_nothing(self) -> None:
        path = str(scratch(self) / "lock")
        first = runner.Lock(path)
        self.assertRaises(BlockingIOError, runner.Lock, path, wait=False)
        first.release()
        self.assertFalse(os.path.exists(path))
        second = runner.Lock(path, wait=False)
        second.close()
        self.assertTrue(os.path.exists(path))

    def test_words_are_one_printable_line(self) -> None:
        self.assertEqual(runner.words(" a\x1b[31m\nb\0 "), "a [31m b")
        self.assertLessEqual(len(runner.words("x" * 10_000)), 300)

    def test_sandbox_has_a_policy_folder_of_its_own(self) -> None:
        args = runner.sandbox("/vnc", [(9, "/home/console/x")], "/usr/bin/python3", "")
        self.assertEqual(args[-4:], ["/usr/bin/python3", "-I", "-S", "/run/console/inside.py"])
        self.assertNotIn("--disable-userns", args)
        writable = [args[at + 1 : at + 3] for at, word in enumerate(args) if word == "--bind"]
        self.assertEqual(writable, [["/vnc", "/run/console/vnc"]])
        if os.path.isdir("/etc/chromium"):
            self.assertLess(args.index("/etc/chromium"), args.index("9"))
            read_only = [args[index + 1] for index, word in enumerate(args) if word == "--remount-ro"]
            self.assertEqual(read_only, ["/dev", "/run/console/library", "/etc/chromium"])
        for java, seen in (("/opt/java/jdk", 0), ("/usr/lib/jvm/jdk", 0), ("/srv/java/jdk", 2), ("/usrjava/jdk", 2)):
            self.assertEqual(runner.sandbox("/vnc", [], "/usr/bin/python3", java).count(java), seen)

    def test_files_from_the_cache(self) -> None:
        cache = scratch(self)

        def put(content: bytes, name: str = "") -> dict[str, str]:
            digest = hashlib.sha256(content).hexdigest()
            (cache / (name or digest)).write_bytes(content)
            return {"sha256": name or digest, "name": "a.jar"}

        good = put(b"good")
        ((fd, place),) = runner.library(str(cache), [good])
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
                runner.RefusedError, runner.library, str(cache), [{"sha256": bad, "name": "b.jar"}]
            )
            self.assertIn("b.jar", error.message)
        self.assertRaises(runner.RefusedError, runner.library, f"{cache}/none", [good])
        self.patch(runner, "LIBRARY_LIMIT", 7)
        self.assertRaises(runner.RefusedError, runner.library, str(cache), [good, good])
        if not os.geteuid():
            os.chown(cache / good["sha256"], 65534, -1)
            self.assertRaises(runner.RefusedError, runner.library, str(cache), [good])

    def test_java_that_nobody_else_can_change(self) -> None:
        folder = scratch(self)
        java = folder / "jdk"
        java.mkdir()
        if os.geteuid() == 0:  # closed to the displays' users
            self.assertRaises(runner.RefusedError, runner.check_java, str(java))
        folder.chmod(0o755)
        runner.check_java(str(java))
        (folder / "link").symlink_to(java)
        for bad in (folder / "link", folder / "none", "/proc/self", "/run/console/x"):
            self.assertRaises(runner.RefusedError, runner.check_java, str(bad))
        for changeable in (java, folder):
            changeable.chmod(0o777)
            self.assertRaises(runner.RefusedError, runner.check_java, str(java))
            changeable.chmod(0o755)


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
