"""The table of findings."""

from stalepool.cli.doctor import finding
from stalepool.cli.doctor.finding import ERROR, OK, WARNING, Finding


def test_a_table_of_nothing_and_of_long_words():
    assert (finding.worst([]), finding.table([])) == (OK, "0 ok, 0 to look at, 0 wrong")
    found = [Finding("x", ERROR, "a" * 200 + " b", "c " * 100), Finding("longer", WARNING, "d")]
    assert finding.worst(found) == ERROR
    text = finding.table(found)
    assert "a" * 200 in text and text.endswith("0 ok, 1 to look at, 1 wrong")
    assert "\nwarning  longer  d\n" in text
    assert max(len(line) for line in text.splitlines() if "aa" not in line) <= 100
