"""The tables of the documentation are those of the code: no page is stale, and none lacks a row."""

import inspect
import re

from conftest import REPOSITORY
from docs import phases, tables
from stalepool import fallback, stats
from stalepool.cli.doctor.questions import QUESTIONS
from stalepool.cli.status.explain import EVENTS, VERDICTS
from stalepool.connection import state
from stalepool.settings import Settings, contradictions
from stalepool.stats import Knowledge

SOURCES = REPOSITORY / "stalepool"


def page(name):
    return (REPOSITORY / name).read_text("utf-8")


def section(name, begin, end):
    return page(name).partition(begin)[2].partition(end)[0]


def test_every_table_that_a_page_asks_for_is_written():
    for path in [REPOSITORY / "README.rst", *(REPOSITORY / "docs").glob("*.rst")]:
        written = tables.PAGES.get(str(path.relative_to(REPOSITORY)), {})
        assert set(tables.MARKS.findall(path.read_text("utf-8"))) == set(written), path


def test_a_stale_page_is_found_and_mended(tmp_path, capsys):
    """None is stale now."""
    for name in (*tables.PAGES, tables.PICTURE):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(page(name), "utf-8")
    assert (tables.main(["--check"], tmp_path), capsys.readouterr().err) == (0, "")
    for name, row in (("README.rst", "the kill switch"), (tables.PICTURE, "IDLE")):
        file = tmp_path / name
        file.write_text(page(name).replace(row, "x"), "utf-8")
        assert tables.main(["--check"], tmp_path) == 1
        assert capsys.readouterr().err == "%s is stale: run python -m docs.tables\n" % name
        assert tables.main([], tmp_path) == 0
        assert file.read_text("utf-8") == page(name)


def test_every_contradiction_has_an_example():
    said = [contradictions(Settings(**chosen)) for chosen in tables.CONTRADICTIONS]
    number = inspect.getsource(contradictions).count("found.append(")
    assert [len(sentences) for sentences in said] == [1] * number


def test_the_table_has_the_phases_that_the_code_writes():
    """Those that the modules of a connection write to ``phase``, or begin a state with."""
    text = "\n".join(path.read_text("utf-8") for path in (SOURCES / "connection").glob("*.py"))
    pattern = r"(?:phase(?:, [\w.]+)? = |\bState\(conn, )(?:\w+\.)?([A-Z]+)\b"
    rows, names = phases.transitions(), set(phases.PLACES)
    assert len(rows) == 9
    before = {phase for row in rows for phase in row.phases} - {"any"}
    after = {row.next for row in rows} - {"(same)", "none"}
    assert before | after == set(re.findall(pattern, text)) == names
    assert {getattr(state, name) for name in names} == {name.lower() for name in names}
    assert before == names - {"UPGRADED"}, "nothing leads out of it"


def test_the_house_has_every_module():
    """The tree of docs/design.rst, by its names; of the command line it has the package alone."""
    tree = section("docs/design.rst", "   stalepool/\n", "\n     cli/")
    shown, room = set(), ""
    for margin, name in re.findall(r"^(     (?:  )?)(\w+/?)  ", tree, re.MULTILINE):
        room = room if len(margin) == 7 else name if name.endswith("/") else ""
        if not name.endswith("/"):
            shown.add(room + name)
    paths = [*SOURCES.glob("*.py"), SOURCES / "contrib/keystone.py"]
    for directory in ("patching", "connection", "sockets"):
        paths += [path for path in (SOURCES / directory).glob("*.py") if path.stem != "__init__"]
    names = {str(path.relative_to(SOURCES).with_suffix("")) for path in paths}
    assert shown == names - {"__main__"}


def test_the_pages_have_every_question_of_the_doctor_and_every_logger():
    text = section("docs/operating.rst", "the doctor\n---", "\n---")
    assert set(re.findall(r"^``(\w+)`` ", text, re.MULTILINE)) == set(QUESTIONS)
    text = section("docs/status.rst", "\nIn the log\n", "\n---\n")
    shown = re.findall(r"``(stalepool\.\w+)``$", text, re.MULTILINE)
    assert set(shown) == {"stalepool." + about for about in fallback._loggers}
    sources = "\n".join(path.read_text("utf-8") for path in SOURCES.rglob("*.py"))
    assert re.findall(r"getLogger\((.*?)\)", sources) == ['"stalepool"', '"stalepool." + about']


def test_each_counter_that_the_alerting_page_tells_to_watch_exists():
    known = {**stats.Origin("").as_dict(), "knowledge": Knowledge().as_dict()}
    group, found = "", []
    for given, name in re.findall(r"``(?:([a-z_]+))?\.([a-z_]+)``", page("docs/alerting.rst")):
        group = given or group  # ``a.b``, ``.c``
        found.append((group, name))
        events = {} if group == "knowledge" else {**EVENTS, **VERDICTS}
        assert group == "stalepool" or name in {**known[group], **events}, (group, name)
    assert {("replays_refused", "method"), ("saved", "replayed"), ("gone", "reset")} <= set(found)
