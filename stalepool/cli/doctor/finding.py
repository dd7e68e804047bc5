"""Findings of all parts of the doctor, and their table."""

from __future__ import annotations

import textwrap
from typing import List, NamedTuple

OK, WARNING, ERROR = "ok", "warning", "error"

#: the exit status of a level is its index
LEVELS = (OK, WARNING, ERROR)


class Finding(NamedTuple):
    """One answer to one question."""

    question: str
    level: str  # one of LEVELS
    says: str
    remedy: str = ""  # a sentence, where the level is not OK


def worst(findings: List[Finding]) -> str:
    return max((finding.level for finding in findings), key=LEVELS.index, default=OK)


def table(findings: List[Finding]) -> str:
    """Return the findings as lines of a hundred characters at most, and the count of each level."""
    lines = []
    width = max((len(finding.question) for finding in findings), default=0)
    for finding in findings:
        start = "%-8s %-*s  " % (finding.level, width, finding.question)
        for text in filter(None, [finding.says, finding.remedy]):
            lines += textwrap.wrap(
                text,
                99,
                initial_indent=start,
                subsequent_indent=" " * len(start),
                break_long_words=False,
                break_on_hyphens=False,
            )
            start = " " * len(start)
    counts = [sum(finding.level == level for finding in findings) for level in LEVELS]
    lines.append("%d ok, %d to look at, %d wrong" % tuple(counts))
    return "\n".join(lines)
