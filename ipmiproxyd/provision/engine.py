"""The engine (``host/``) as it is sent to a host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ipmiproxyd.agents import runner
from ipmiproxyd.agents.scripts import modules_input, script_argv

MODULES: Final = (
    *("talk", "system", "files", "record", "work"),
    *("apt", "made", "whole", "installing", "removing"),
    *("accounts", "keys", "javas", "privileges", "jobs", "firewall", "kernel"),
    "main",
)
"""Each after those that it imports."""
_HOST: Final = Path(__file__).with_name("host")


def engine_argv(python: str) -> tuple[str, ...]:
    """To be run as root."""

    return script_argv(python)


def engine_texts() -> Mapping[str, str]:
    """The modules, by their names."""

    return {f"ipmiproxyd.provision.host.{name}": (_HOST / f"{name}.py").read_text() for name in MODULES}


def engine_input(document: Mapping[str, Any]) -> bytes:
    """For standard input; reads files. The runner is the daemon's own, if the document brings no text of it.

    :param document: see ``host/main.py``; the answers are told there, too.
    """

    text = Path(runner.__file__).read_text()
    return modules_input(engine_texts(), {**document, "runner": {"text": text, **document["runner"]}})
