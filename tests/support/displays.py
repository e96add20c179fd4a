"""Display numbers for tests that start jobs by themselves: no two tests have the same at a time."""

from __future__ import annotations

import fcntl
import os

from twisted.trial.unittest import SynchronousTestCase

FIRST, LAST = 41, 99


def claim_display(test: SynchronousTestCase) -> int:
    """A number that is this test's until it ends, whatever tests run beside it."""

    for number in range(FIRST, LAST + 1):
        descriptor = os.open(f"/tmp/ipx-display-{os.getuid()}-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        test.addCleanup(os.close, descriptor)
        return number
    raise AssertionError("no display number is free")
