"""What a look at an agent finds, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    :ivar what: a stable word.
    :ivar level: "fault": something will not work; "warning": it works, but could be better, or only seldom matters.
    :ivar advice: what to do about it.
    :ivar ms: milliseconds that it took, where that was measured.
    """

    what: str
    level: Literal["ok", "warning", "fault"]
    words: str
    advice: str = ""
    ms: int | None = None

    @property
    def sentences(self) -> str:
        return " ".join(filter(None, (self.words, self.advice)))


def told(findings: Iterable[Finding]) -> Mapping[str, Any]:
    """As members of an answer; ``problems`` and ``warnings`` have the words of those that are not "ok"."""

    found = list(findings)
    return {
        "problems": [finding.words for finding in found if finding.level == "fault"],
        "warnings": [finding.sentences for finding in found if finding.level == "warning"],
        "findings": [_as_row(finding) for finding in found],
    }


def _as_row(finding: Finding) -> dict[str, Any]:
    row = asdict(finding)
    if finding.ms is None:
        del row["ms"]
    return row
