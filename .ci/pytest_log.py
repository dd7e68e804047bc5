"""What pytest has printed: the failed tests, and the summary."""

import re


def failed(text: str) -> list:
    """Return the ids of the tests that failed, as ``-rfE`` lists them."""
    return re.findall(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", text, re.M)


def summary(text: str) -> str:
    """Return the last line: how many passed, failed and were skipped; empty if there is none."""
    found = re.findall(r"^=*\s*(\d+ (?:passed|failed|error).*? in [\d.]+s)", text, re.M)
    return found[-1] if found else ""
