"""Folders for tests: short paths, since a UNIX socket's path has room for 107 bytes only."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents import runner


def scratch(test: SynchronousTestCase) -> Path:
    """A fresh folder that only this test uses; it is removed when the test ends."""

    folder = Path(tempfile.mkdtemp(prefix="ipx-", dir="/tmp"))
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def root_jobs(folder: Path) -> Path:
    """Where a runner that is root keeps the jobs of a test with this folder."""

    return Path(runner.JOBS, re.sub(r"[^A-Za-z0-9-]", "", "-".join(folder.parts[-2:]))[-32:].strip("-"))


def remove_root_jobs(jobs: Path) -> None:
    """Remove that place, and the cache that goes with it."""

    if jobs.parent == Path(runner.JOBS):
        for folder in (jobs, Path(runner.CACHE, jobs.name)):
            shutil.rmtree(folder, ignore_errors=True)
