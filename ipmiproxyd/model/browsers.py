"""The browsers that panels can be shown in, and where their builds read the policies that lock them down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

CHROMIUM: Final = "chromium"
"""Stands for whatever the daemon's configuration calls Chromium."""
NO_BROWSER: Final = "none"
"""Of an agent that is to have no browser."""
PolicyPlace = Literal["chromium-policy", "chrome-policy", "edge-policy", "brave-policy"]
"""A place of a job's files: the folder of managed policies of one maker's builds, see ``agents/sandbox.py``."""
POLICY_PLACES: Final[Mapping[str, PolicyPlace]] = {
    CHROMIUM: "chromium-policy",
    "google-chrome-stable": "chrome-policy",
    "microsoft-edge-stable": "edge-policy",
    "brave-browser": "brave-policy",
}
"""What an agent's browser may be: by the name of the package, which is that of the program, too. One whose folder is
not known for certain would run without its lock-down, and is not in here: chromium-browser (distributions differ),
Vivaldi, Opera."""
PROGRAM_PLACES: Final[Mapping[str, PolicyPlace]] = {
    **POLICY_PLACES,
    "google-chrome": "chrome-policy",
    "google-chrome-beta": "chrome-policy",
    "google-chrome-unstable": "chrome-policy",
    "microsoft-edge": "edge-policy",
    "microsoft-edge-beta": "edge-policy",
    "microsoft-edge-dev": "edge-policy",
    "brave-browser-stable": "brave-policy",
}
"""The same by all the names that their programs go by, for those that the configuration names."""
