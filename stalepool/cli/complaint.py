"""The end of a command that cannot do its work: a line on stderr, and an exit status."""

from __future__ import annotations

import contextlib
import sys

FAILED, USAGE_ERROR = 1, 2


class Complaint(Exception):
    """A command cannot go on; the text is for the operator.

    :param status: the exit status.
    """

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


def say(who: str, text: object) -> None:
    """Write a line to stderr; to one that takes nothing it is lost."""
    with contextlib.suppress(OSError):
        print("%s: %s" % (who, text), file=sys.stderr)
