"""The tables of the documentation are those of the code: no page is stale, and none lacks a row."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any, Set

from conftest import REPOSITORY
from docs import phases, tables
from stalepool import stats
from stalepool.cli.doctor.questions import QUESTIONS
from stalepool.cli.status.explain import EVENTS, VERDICTS
from stalepool.connection import state
from stalepool.settings import Settings, contradictions


def page(name: str) -> str:
    return (REPOSITORY / name).read_text("utf-8")


def test_every_table_that_a_page_asks_for_is_written() -> None:
    for path in [REPOSITORY / "README.rst", *(REPOSITORY / "docs").glob("*.rst")]:
        written = tables.PAGES.get(str(path.relative_to(REPOSITORY)), {})
        assert set(tables.MARKS.findall(path.read_text("utf-8"))) == set(written), path


def test_a_stale_page_is_found_and_mended(tmp_path: Path, capsys: Any) -> None:
    """None is stale now."""
    for name in (*tables.PAGES, tables.PICTURE):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(page(name), "utf-8")
    status = tables.main(["--check"], tmp_path)
    assert (status, capsys.readouterr().err) == (0, "")
    for name, row in (("README.rst", "the kill switch"), (tables.PICTURE, "IDLE")):
        file = tmp_path / name
        file.write_text(page(name).replace(row, "x"), "utf-8")
        assert tables.main(["--check"], tmp_path) == 1
        assert capsys.readouterr().err == "%s is stale: run python -m docs.tables\n" % name
        assert tables.main([], tmp_path) == 0
        assert file.read_text("utf-8") == page(name)


def test_every_contradiction_has_an_example() -> None:
    said = [contradictions(Settings(**chosen)) for chosen in tables.CONTRADICTIONS]
    (rules,) = (
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(contradictions)))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "rules"
    )
    assert [len(sentences) for sentences in said] == [1] * len(rules.elts)


def phases_written() -> Set[str]:
    """The names that the modules of a connection write to ``phase``, or begin a state with."""
    paths = (REPOSITORY / "stalepool/connection").glob("*.py")
    text = "\n".join(path.read_text("utf-8") for path in paths)
    return set(re.findall(r"(?:phase(?:, [\w.]+)? = |\bState\(conn, )(?:\w+\.)?([A-Z]+)\b", text))


def test_the_table_has_the_phases_that_the_code_writes() -> None:
    rows = phases.transitions()
    assert len(rows) == 9
    before = {phase for row in rows for phase in row.phases}
    after = {row.next for row in rows}
    assert before - {"any"} | after - {"(same)", "none"} == phases_written() == set(phases.PLACES)
    assert {getattr(state, name) for name in phases.PLACES} == {
        name.lower() for name in phases.PLACES
    }
    assert before - {"any"} == set(phases.PLACES) - {"UPGRADED"}, "nothing leads out of it"


def test_the_page_has_every_question_of_the_doctor() -> None:
    section = page("docs/operating.rst").partition("the doctor\n---")[2].partition("\n---")[0]
    assert set(re.findall(r"^``(\w+)`` ", section, re.MULTILINE)) == set(QUESTIONS)


def test_the_house_has_every_module() -> None:
    """The tree of docs/design.rst, by its names; of the command line it has the package alone."""
    tree = page("docs/design.rst").partition("   stalepool/\n")[2].partition("\n     cli/")[0]
    shown, room = set(), ""
    for margin, name in re.findall(r"^(     (?:  )?)(\w+/?)  ", tree, re.MULTILINE):
        room = room if len(margin) == 7 else name if name.endswith("/") else ""
        if not name.endswith("/"):
            shown.add(room + name)
    root = REPOSITORY / "stalepool"
    paths = [*root.glob("*.py"), root / "contrib/keystone.py"]
    for directory in ("patching", "connection", "sockets"):
        paths += [path for path in (root / directory).glob("*.py") if path.stem != "__init__"]
    names = {str(path.relative_to(root).with_suffix("")) for path in paths}
    assert shown == names - {"__main__"}


def test_the_page_has_every_logger() -> None:
    section = page("docs/status.rst").partition("\nIn the log\n")[2].partition("\n---\n")[0]
    shown = set(re.findall(r"``(stalepool\.\w+)``$", section, re.MULTILINE))
    used = {
        name.strip('"')
        for path in (REPOSITORY / "stalepool").rglob("*.py")
        for name in re.findall(r"getLogger\((.*?)\)", path.read_text("utf-8"))
    }
    assert shown == used - {"stalepool"}


def test_each_counter_that_the_alerting_page_tells_to_watch_exists() -> None:
    counters = stats.Origin("").as_dict()
    named = re.findall(r"``(?:([a-z_]+))?\.([a-z_]+)``", page("docs/alerting.rst"))
    group, found = "", []
    for given, name in named:
        group = given or group  # ``a.b``, ``.c``
        found.append((group, name))
        if group == "knowledge":
            assert name in stats.Knowledge().as_dict()
        elif group != "stalepool":
            assert group in counters, group
            assert name in counters[group] or name in {**EVENTS, **VERDICTS}, (group, name)
    assert {("replays_refused", "method"), ("saved", "replayed"), ("gone", "reset")} <= set(found)
