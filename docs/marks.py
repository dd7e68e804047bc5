"""Comments in a page between which a script writes its text."""

from __future__ import annotations


def insert(page: str, begin: str, end: str, new: str) -> str:
    """Return a page with new text between its comments, and a blank line around it.

    :raises ValueError: the page lacks them.
    """
    before, begins, rest = page.partition(begin)
    _, ends, after = rest.partition(end)
    if not begins or not ends:
        raise ValueError("the page has no place for the tables: %r ... %r" % (begin, end))
    return "%s%s\n\n%s\n\n%s%s" % (before, begin, new, end, after)
