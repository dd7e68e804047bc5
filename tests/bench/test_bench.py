"""The benchmark's arithmetic, its ways to end, and that it runs; not what it measures."""

from __future__ import annotations

import json

import pytest

from bench import __main__ as command
from bench import plot, processes
from bench.figures import FIGURES, Figure
from bench.processes import ChildFailed
from bench.quantity import is_met, of_samples, of_share
from bench.report import insert, load
from conftest import REPOSITORY, child

DOCS = REPOSITORY / "docs"


#: samples -> which of them, in order, bound the median with 95 %, from a table of order statistics
RANKS = {3: (1, 3), 6: (1, 6), 9: (2, 8), 10: (2, 9), 15: (4, 12), 25: (8, 18), 50: (18, 33)}


@pytest.mark.parametrize("count", RANKS)
def test_the_interval_of_a_median(count):
    found = of_samples(range(count, 0, -1))
    assert (found.low, found.high) == RANKS[count]
    assert found.median == (count + 1) / 2


def test_the_interval_of_a_share():
    assert of_share(0, 10_000, per=10_000)[:3] == pytest.approx((0, 0, 3.84), abs=0.005)
    assert of_share(5, 10)[:3] == pytest.approx((0.5, 0.2366, 0.7634), abs=0.0005)


def test_a_bound():
    assert [is_met("at most 2", value) for value in (2, 2.001)] == [True, False]
    assert [is_met("at least 0.99", value) for value in (0.99, 0.989)] == [True, False]


def made_up(name, measure, bound="at most 1"):
    return Figure(name, "a figure", {"ratio": bound}, measure)


def measured(quick):
    return {"ratio": [1.5], "floor": [1e-6], "ours": [1e-6, 1.5e-6, 9e-6]}


def fail(quick):
    raise ChildFailed("it went wrong")


def interrupt(quick):
    raise KeyboardInterrupt


def run(monkeypatch, figures, *arguments):
    monkeypatch.setattr(command, "FIGURES", figures)
    return command.main(arguments)


def test_a_bound_is_judged_only_when_asked(monkeypatch, capsys):
    figures = [made_up("one", measured)]
    assert run(monkeypatch, figures) == 0
    assert "MISSED" in capsys.readouterr().out
    assert run(monkeypatch, figures, "--check") == 1
    assert "one: ratio is 1.5, must be at most 1" in capsys.readouterr().err
    assert run(monkeypatch, [made_up("one", measured, "at most 2")], "--check") == 0


def test_a_figure_that_cannot_be_measured_leaves_the_others(monkeypatch, capsys):
    assert run(monkeypatch, [made_up("one", fail), made_up("two", measured)]) == 1
    said = capsys.readouterr()
    assert "one: could not be measured: it went wrong" in said.err
    assert "a figure" in said.out


def test_an_interruption_keeps_what_was_measured(monkeypatch, capsys, tmp_path):
    path = tmp_path / "report.json"
    figures = [made_up("one", measured), made_up("two", interrupt)]
    assert run(monkeypatch, figures, "--json", str(path)) == 130
    (row,) = load(str(path))["figures"]
    assert (row["name"], row["floor"], row["stock"], row["ours"]) == ("one", 1.0, None, 1.5)
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json", "/nowhere/report.json"], "[Errno 2]"),
        (["two"], "there is no figure two; --list names them"),
    ],
)
def test_bad_arguments_end_it_before_anything_is_measured(monkeypatch, capsys, arguments, said):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, [made_up("one", interrupt)], *arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "no json", '{"figures": []}'])
def test_what_is_no_report(content, capsys, tmp_path):
    (tmp_path / "performance.json").write_text(content)
    with pytest.raises(SystemExit, match="2"):
        command.main(["--docs", str(tmp_path)])
    assert "is not what python -m bench --json writes" in capsys.readouterr().err


def test_the_docs_show_the_report_that_lies_beside_them():
    report = load(str(DOCS / "performance.json"))
    assert [row["name"] for row in report["figures"]] == [figure.name for figure in FIGURES]
    page = (DOCS / "performance.rst").read_text("utf-8")
    assert page == insert(page, report)
    assert (DOCS / "checkout-cost.svg").read_text("utf-8") == plot.draw(report)


@pytest.mark.full
@pytest.mark.timeout(400)  # a dozen processes that compute
def test_it_runs(tmp_path):
    names = ["check-eventlet", "presend", "get-tls", "import"]
    path = tmp_path / "report.json"
    words = ["-m", "bench", "--quick", "--json", path, *names, "memory-plain"]
    ended = child(*words, cwd=REPOSITORY, timeout=390)
    assert ended.returncode == 0, ended.stderr
    rows = {row["name"]: row for row in json.loads(path.read_text())["figures"]}
    assert set(rows) == {*names, "memory-plain"}
    for row in rows.values():
        assert row["ours"] > 0 and row["floor"] > 0, row
        assert all(one["low"] <= one["median"] <= one["high"] for one in row["quantities"].values())


def test_a_child_that_fails_says_why(capfd):
    with pytest.raises(ChildFailed, match="ended with 1"):
        processes.call(processes.manager)
    assert "missing 1 required positional argument: 'at'" in capfd.readouterr().err
