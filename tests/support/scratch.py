"""Folders for tests: short paths, since a UNIX socket's path has room for 107 bytes only."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


def scratch(test: SynchronousTestCase) -> Path:
    """A fresh folder that only this test uses; it is removed when the test ends."""

    folder = Path(tempfile.mkdtemp(prefix="ipx-", dir="/tmp"))
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder
