"""``stalepool doctor``: what cannot be examined, and what is printed."""

import sys
import tempfile

import pytest

from stalepool.cli.doctor.command import table
from stalepool.cli.doctor.questions import ERROR, WARNING, Finding


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--", sys.executable, "-BI", "-c", ""], "command: -I hides the sitecustomize"),
        (["--", "true"], "command: stalepool did not start in true"),
        (["--", "no-such", "--json"], "command: no-such: No such file"),
        (["--env", "{}/none"], "file: {}/none: No such file"),
        (["--env", "{}/binary"], "file: {}/binary: it is not text"),
    ],
)
def test_what_cannot_be_examined(words, said, tmp_path, doctor):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    found = doctor(*(word.format(tmp_path) for word in words))
    assert found.startswith("\nerror " + said.format(tmp_path)) and found.count("\n") == 1


def test_no_directory_for_the_probe(doctor, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/no-such")
        found = doctor("--", sys.executable, "-c", "")
    said = "\nerror command: %s cannot be watched: No such file or directory" % sys.executable
    assert found == said


def test_a_table_for_people(tmp_path, stalepool_here):
    (tmp_path / "file").write_text("STALEPOOL=1")
    done = stalepool_here("doctor", "--env", tmp_path / "file")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok       settings  the defaults\n")


def test_a_table_of_long_words():
    found = [Finding("x", ERROR, "a" * 200 + " b", "c " * 100), Finding("longer", WARNING, "d")]
    text = table(found)
    assert "a" * 200 in text and text.endswith("ok: 0, warning: 1, error: 1")
    assert "\nwarning  longer  d\n" in text
    assert max(len(line) for line in text.splitlines() if "aa" not in line) <= 100


def test_one_thing_at_a_time(stalepool_here):
    done = stalepool_here("doctor", "--env", "file", "--", "true")
    said = "stalepool doctor: --env FILE and CMD do not go together\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
