"""The benchmark's arithmetic, its ways to end, and that it runs; not what it measures."""

import json
from importlib.util import find_spec
from unittest.mock import Mock

import pytest

from conftest import REPOSITORY, child

if find_spec("eventlet") is None:
    pytest.skip("it measures green threads, too", allow_module_level=True)

from bench import __main__ as command
from bench import plot, processes
from bench.figures import FIGURES, Figure
from bench.processes import ChildFailed
from bench.quantity import is_met, of_samples, of_share
from bench.report import insert, load

DOCS = REPOSITORY / "docs"

#: samples -> which of them, in order, bound the median with 95 %, from a table of order statistics
RANKS = {3: (1, 3), 6: (1, 6), 9: (2, 8), 10: (2, 9), 15: (4, 12), 25: (8, 18), 50: (18, 33)}


@pytest.mark.parametrize("count", RANKS)
def test_the_interval_of_a_median(count):
    found = of_samples(range(count, 0, -1))
    assert (found.median, (found.low, found.high)) == ((count + 1) / 2, RANKS[count])


def test_the_interval_of_a_share_and_a_bound():
    assert of_share(0, 10_000, per=10_000)[:3] == pytest.approx((0, 0, 3.84), abs=0.005)
    assert of_share(5, 10)[:3] == pytest.approx((0.5, 0.2366, 0.7634), abs=0.0005)
    assert [is_met("at most 2", value) for value in (2, 2.001)] == [True, False]
    assert [is_met("at least 0.99", value) for value in (0.99, 0.989)] == [True, False]


fails = Mock(side_effect=ChildFailed("it went wrong"))
is_interrupted = Mock(side_effect=KeyboardInterrupt)
measured = Mock(return_value={"ratio": [1.5], "floor": [1e-6], "ours": [1e-6, 1.5e-6, 9e-6]})


@pytest.fixture
def run(monkeypatch, capsys):
    """``python -m bench WORDS`` of figures that are made up: status, stdout, stderr."""

    def run(measures, *words, bound="at most 1"):
        figures = [Figure(name, "a figure", {"ratio": bound}, measures[name]) for name in measures]
        monkeypatch.setattr(command, "FIGURES", figures)
        try:
            status = command.main(words)
        except SystemExit as ended:
            status = ended.code
        return (status, *capsys.readouterr())

    return run


def test_a_bound_is_judged_only_when_asked(run):
    """Also where a figure could not be measured."""
    status, out, _ = run({"one": measured})
    assert status == 0 and "MISSED" in out
    assert run({"one": measured}, "--check", bound="at most 2")[0] == 0
    for words in [], ["--check"]:
        status, _, err = run({"one": fails, "two": measured}, *words)
        assert status == 1 and "one: could not be measured: it went wrong" in err
        assert ("two: ratio is 1.5, must be at most 1" in err) == bool(words)


def test_an_interruption_keeps_what_was_measured(run, tmp_path):
    path = str(tmp_path / "report.json")
    status, _, err = run({"one": measured, "two": is_interrupted}, "--json", path)
    assert status == 130 and "interrupted" in err
    (row,) = load(path)["figures"]
    assert (row["name"], row["floor"], row["stock"], row["ours"]) == ("one", 1.0, None, 1.5)


@pytest.mark.parametrize("content", ["[]", "no json", '{"figures": []}'])
def test_bad_arguments_end_it_before_anything_is_measured(content, run, tmp_path):
    (tmp_path / "performance.json").write_text(content)
    for words, said in (
        (["--json", "/nowhere/report.json"], "[Errno 2]"),
        (["two"], "there is no figure two; --list names them"),
        (["--docs", str(tmp_path)], "is not what python -m bench --json writes"),
    ):
        status, _, err = run({"one": is_interrupted}, *words)
        assert status == 2 and said in err


def test_the_docs_show_the_report_that_lies_beside_them():
    report = load(str(DOCS / "performance.json"))
    assert [row["name"] for row in report["figures"]] == [figure.name for figure in FIGURES]
    page = (DOCS / "performance.rst").read_text("utf-8")
    assert page == insert(page, report)
    assert (DOCS / "checkout-cost.svg").read_text("utf-8") == plot.draw(report)


@pytest.mark.full
@pytest.mark.timeout(400)  # a dozen processes that compute
def test_it_runs(tmp_path):
    names = ["check-eventlet", "presend", "get-tls", "import", "memory-plain"]
    path = tmp_path / "report.json"
    words = ["-m", "bench", "--quick", "--json", path, *names]
    ended = child(*words, cwd=REPOSITORY, timeout=390)
    assert ended.returncode == 0, ended.stderr
    rows = {row["name"]: row for row in json.loads(path.read_text())["figures"]}
    assert set(rows) == set(names)
    for row in rows.values():
        assert row["ours"] > 0 and row["floor"] > 0, row
        assert all(one["low"] <= one["median"] <= one["high"] for one in row["quantities"].values())


def test_a_child_that_fails_says_why(capfd):
    with pytest.raises(ChildFailed, match="ended with 1"):
        processes.call(processes.manager)
    assert "missing 1 required positional argument: 'at'" in capfd.readouterr().err
