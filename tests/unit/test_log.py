"""The log: one event is one line, wherever it goes."""

from __future__ import annotations

import io
import os
import tempfile
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.application.app import AppLogger
from twisted.application.service import Application, IServiceCollection, Service
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, globalLogBeginner
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.log import LONGEST_LINE, LineObserver, LoggedService, goes_to_journal, make_observer, one_line
from ipmiproxyd.model import Secret


def failure(words: str) -> Failure:
    try:
        raise ValueError(words)
    except ValueError:
        return Failure()


class Room:
    """A place that logs to a stream."""

    def __init__(self, observer: ILogObserver) -> None:
        self.log = Logger(namespace="ipmiproxyd.room", observer=LogPublisher(observer))


class LineTests(SynchronousTestCase):
    def written(self, journal: bool, log_level: Any, format_: str, **values: Any) -> list[str]:
        stream = io.StringIO()
        Room(LineObserver(stream, journal=journal)).log.emit(log_level, format_, **values)
        text = stream.getvalue()
        self.assertTrue(text.endswith("\n"))
        return text[:-1].split("\n")

    def test_the_journal_gets_the_priority(self) -> None:
        for level, priority in [("debug", 7), ("info", 6), ("warn", 4), ("error", 3), ("critical", 2)]:
            lines = self.written(True, LogLevel.lookupByName(level), "display {display} is up", display=7)
            self.assertEqual(lines, [f"<{priority}>ipmiproxyd.room: display 7 is up"])

    def test_people_get_the_time_and_the_level(self) -> None:
        stream = io.StringIO()
        event = {"log_level": LogLevel.warn, "log_namespace": "room", "log_format": "display {n} is up", "n": 7}
        LineObserver(stream, journal=False)({**event, "log_time": 86400.0 * 365})
        self.assertRegex(stream.getvalue(), r"^197[01]-\S+T\d\d:\d\d:\d\d[+-]\d{4} warn     room: display 7 is up\n$")

    def test_a_value_cannot_begin_a_line_or_steer_a_terminal(self) -> None:
        value = "a\nb\r\x1b[31m\x00\u2028<1>c\u202e"
        [line] = self.written(True, LogLevel.info, "{value}", value=value)
        self.assertEqual(line, r"<6>ipmiproxyd.room: a\nb\r\x1b[31m\x00\u2028<1>c\u202e")

    def test_a_secret_is_not_seen(self) -> None:
        [line] = self.written(True, LogLevel.info, "{secret} {secret!r} {secret:>9}", secret=Secret("hunter2"))
        self.assertEqual(line, "<6>ipmiproxyd.room: *** *** ***")

    def test_every_line_of_a_traceback_has_the_prefix(self) -> None:
        lines = self.written(True, LogLevel.critical, "it broke", log_failure=failure("two\nlines"))
        self.assertEqual(lines[0], "<2>ipmiproxyd.room: it broke")
        self.assertGreater(len(lines), 4)
        for line in lines[1:]:
            self.assertRegex(line, "^<2>    ")
        self.assertEqual(lines[-2:], ["<2>    builtins.ValueError: two", "<2>    lines"])

    def test_a_failure_without_words(self) -> None:
        lines = self.written(True, LogLevel.critical, "", log_failure=failure("alone"))
        self.assertEqual(lines[0], "<2>ipmiproxyd.room: alone")

    def test_an_event_without_words_is_no_line(self) -> None:
        stream = io.StringIO()
        Room(LineObserver(stream, journal=True)).log.info("")
        self.assertEqual(stream.getvalue(), "")

    def test_a_format_that_does_not_fit_its_values_is_told(self) -> None:
        [line] = self.written(True, LogLevel.info, "{missing}")
        self.assertIn("missing", line)

    def test_a_long_line_is_cut(self) -> None:
        [line] = self.written(True, LogLevel.info, "{value}", value="x" * (LONGEST_LINE + 100))
        self.assertTrue(line.endswith("more)"))
        self.assertLess(len(line), LONGEST_LINE + 30)

    @given(st.text())
    def test_any_text_is_one_printable_line(self, text: str) -> None:
        line = one_line(text)
        self.assertLessEqual(len(line.splitlines()), 1)
        line.encode()


class DestinationTests(SynchronousTestCase):
    def test_the_journal_is_known_by_device_and_inode(self) -> None:
        with tempfile.TemporaryFile("w+") as stream:
            status = os.fstat(stream.fileno())
            for value, expected in [
                (f"{status.st_dev}:{status.st_ino}", True),
                (f"{status.st_dev}:{status.st_ino + 1}", False),
                (f"{status.st_dev + 1}:{status.st_ino}", False),
                ("", False),
                ("nonsense", False),
            ]:
                self.assertEqual(goes_to_journal(stream, {"JOURNAL_STREAM": value}), expected, value)
            self.assertFalse(goes_to_journal(stream, {}))

    def test_a_stream_without_a_descriptor_is_not_the_journal(self) -> None:
        self.assertFalse(goes_to_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"}))

    def test_the_form_follows_the_destination(self) -> None:
        with tempfile.TemporaryFile("w+") as stream:
            status = os.fstat(stream.fileno())
            Room(make_observer("info", stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})).log.info("one")
            Room(make_observer("info", stream, {})).log.info("two")
            stream.seek(0)
            first, second = stream.read().splitlines()
        self.assertEqual(first, "<6>ipmiproxyd.room: one")
        self.assertRegex(second, r"^\d{4}-.* info     ipmiproxyd\.room: two$")

    def test_the_level_filters(self) -> None:
        names = ["debug", "info", "warn", "error", "critical"]
        for least, name in enumerate(names):
            stream = io.StringIO()
            room = Room(make_observer(name, stream, {}))
            for level in names:
                room.log.emit(LogLevel.lookupByName(level), "at {name}", name=level)
            seen = [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()]
            self.assertEqual(seen, names[least:])


class TwistdTests(SynchronousTestCase):
    """The service brings its observer to the application, where twistd looks for it."""

    def test_twistd_uses_it(self) -> None:
        stream = io.StringIO()
        begun: list[list[Any]] = []
        self.patch(globalLogBeginner, "beginLoggingTo", begun.append)
        service = LoggedService(make_observer("info", stream, {}))
        application = Application("ipmiproxyd")
        service.setServiceParent(application)
        AppLogger({}).start(application)
        [[observer]] = begun
        Room(observer).log.info("hello")
        self.assertIn("hello", stream.getvalue())

    def test_it_is_a_service_among_services(self) -> None:
        service, inner, application = (
            LoggedService(make_observer("info", io.StringIO(), {})),
            Service(),
            Application("x"),
        )
        inner.setServiceParent(service)
        service.setServiceParent(application)
        self.assertEqual(list(IServiceCollection(application)), [service])
        self.assertEqual(list(service), [inner])

    def test_it_may_be_inside_of_another_service(self) -> None:
        outer, inner = (LoggedService(make_observer("info", io.StringIO(), {})) for _ in range(2))
        inner.setServiceParent(outer)
        self.assertEqual(list(outer), [inner])
