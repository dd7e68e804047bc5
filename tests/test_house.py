"""The rules of the house, held against the syntax trees: who imports whom, who writes what.

The package is a house of rooms. A module imports its own room and those below; a room may be
skipped. What a rule is for stands at its table. What start-up imports is seen in a process of its
own: ``test_stalepool_import_cost``.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import urllib3

from conftest import REPOSITORY
from stalepool.connection.state import Request, State

#: from the bottom; the rooms of one floor do not import each other
FLOORS = (
    {"shared": "clock fallback foreign runtime settings stats status status_file summary"},
    {"sockets": "sockets"},
    {"connection": "connection", "contrib": "contrib"},
    {"patching": "patching"},
    {"entrance": "bootstrap control stalepool"},
    {"metrics": "contrib.counters contrib.opentelemetry contrib.oslo contrib.prometheus"},
    {"cli": "cli"},
    {"outside": "__main__ inject"},
)

#: not of the core: the house stands without them
AROUND = ("metrics", "cli", "outside")

#: lines, of all kinds, in the modules of the core: it is to shrink from here
MOST_LINES = 4856

#: packages that are not Python's own, by whom they may be imported; whoever else needs one looks
#: in sys.modules. urllib3, eventlet, requests and keystoneauth1 are what we ride in
GUESTS = {
    "contrib.keystone": {"wrapt"},
    "patching.patches": {"wrapt"},
    "contrib.opentelemetry": {"opentelemetry"},
    "contrib.oslo": {"oslo_config", "oslo_reports"},
    "contrib.prometheus": {"prometheus_client"},
    "cli.doctor": {"urllib3"},
    "cli.demo": {"eventlet", "urllib3", "requests", "keystoneauth1", "stalepool_testing"},
    "inject": {"imp"},  # Python 2.7's
}

#: besides fallback, which is for it: module -> why it catches every exception by itself
CATCH_ALL = {
    "bootstrap": "runs at start-up, before anything may be imported that could say it",
    "patching.import_hook": "runs while urllib3 is imported, perhaps before there is a fallback",
    "inject.sitecustomize": "runs in Pythons in which there is no stalepool",
}

#: attributes of a State or a Request that are written elsewhere than in their own module
WRITERS = {
    # every request: a call costs as much as all of them
    "connection.answer": {"phase", "sent_at", "timeout_s", "wait_s"},
    "connection.recover": {"first_error", "wait_s"},
    "connection.checkout": {"phase"},  # a call would cost the fast check a fifth
    "connection.full_check": {"is_silent", "replaced_silent"},
    "connection.move": {"is_reused", "may_resume_moves", "moved_for", "replaced_silent"},
    "connection.replay": {"first_error", "is_replayed", "timeout_s"},
}

# -- the trees -------------------------------------------------------------------------------------


def modules():
    """Name without the leading "stalepool." -> source; the package itself is "stalepool"."""
    root = REPOSITORY / "stalepool"
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(p for p in parts if p != "__init__") or "stalepool"] = path
    return names


MODULES = modules()


@functools.lru_cache(maxsize=None)
def nodes_of(path):
    """All of a tree. Parsed when it is asked for: each worker of the suite imports this file."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@functools.lru_cache(maxsize=None)
def imports():
    """Who imports what, in functions too, but for what is for a type checker."""
    found = set()
    for by, path in MODULES.items():
        ifs = [node for node in nodes_of(path) if isinstance(node, ast.If)]
        of_types = [node.body for node in ifs if "TYPE_CHECKING" in ast.dump(node.test)]
        nodes = set(nodes_of(path)).difference(*of_types)
        found.update((by, name) for node in nodes for name in _names(node))
    return found


def imports_of_ours():
    """The same, but for what is not ours; both names as in :func:`modules`."""
    found = ((by, name.partition(".")) for by, name in imports())
    return [(by, rest or package) for by, (package, _, rest) in found if package == "stalepool"]


def _names(node):
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import: write it out"
        for alias in node.names:
            full = "%s.%s" % (node.module, alias.name)
            yield full if full.partition(".")[2] in MODULES else node.module


def room_of(name):
    """The floor and the room of a module: its own, or else its package's."""
    top = name.partition(".")[0]
    for wanted in (name, top):
        for floor, rooms in enumerate(FLOORS):
            for room, names in rooms.items():
                if wanted in names.split():
                    return floor, room
    raise AssertionError("give stalepool.%s a room in the table FLOORS of this test" % top)


CORE = [name for name in MODULES if room_of(name)[1] not in AROUND]


# -- who imports whom ------------------------------------------------------------------------------


def test_every_name_in_the_table_of_rooms_is_a_module():
    placed = [name for rooms in FLOORS for names in rooms.values() for name in names.split()]
    assert len(placed) == len(set(placed)), "a module has one room"
    gone = set(placed) - {name.partition(".")[0] for name in MODULES} - set(MODULES)
    assert not gone, "take these out of the table FLOORS: %s" % gone


def test_imports_go_down_the_house():
    assert ("patching.import_hook", "patching.patches") in imports_of_ours()
    for found in imports_of_ours():
        by, of = map(room_of, found)
        assert of == by or of[0] < by[0], found


def test_no_circle_inside_a_room():
    """Imports inside functions count, too."""
    needs = {name: set() for name in MODULES}
    for by, of in imports_of_ours():
        if not (of + ".").startswith(by + "."):  # but for what a package imports of its own
            needs[by].add(of)
    while needs:
        free = [name for name, needed in needs.items() if not needed & set(needs)]
        assert free, "a circle among %s" % sorted(needs)
        for name in free:
            del needs[name]


@pytest.mark.skipif(
    not hasattr(sys, "stdlib_module_names"), reason="Pythons from 3.10 on know their own library"
)
def test_guests_are_imported_only_where_the_table_says():
    assert ("contrib.keystone", "wrapt") in imports()
    for by, of in imports():
        hosts = [host for host in GUESTS if (by + ".").startswith(host + ".")]
        known = {"stalepool", *sys.stdlib_module_names}.union(*(GUESTS[host] for host in hosts))
        assert of.partition(".")[0] in known, (by, of)


# -- what is caught, and what is written -----------------------------------------------------------


def catches_all(node):
    """Catches whatever there is."""
    trees = []
    if isinstance(node, ast.ExceptHandler):
        trees = [node.type or ast.Name("BaseException")]
    elif isinstance(node, ast.Call) and "suppress" in ast.dump(node.func):
        trees = node.args
    names = {getattr(each, "id", "") for tree in trees for each in ast.walk(tree)}
    return bool(names & {"Exception", "BaseException"})


def test_every_exception_is_caught_in_fallback_alone():
    """An exception that is not of our making has to pass: only the guard there tells it apart."""
    for name in MODULES:
        found = [node.lineno for node in nodes_of(MODULES[name]) if catches_all(node)]
        may = name in CATCH_ALL or name == "fallback"
        assert room_of(name)[1] == "cli" or may is bool(found), (name, found)


def test_states_and_requests_are_written_by_their_own_module():
    """And by those that the table names."""
    conn = urllib3.connection.HTTPConnection("a")
    request = Request(SimpleNamespace(phase="idle"), conn, b"", None)
    remembered = {*State.__slots__, *vars(Request), *vars(request)}
    for name in set(CORE) - {"connection.state"}:
        written = {
            node.attr
            for node in nodes_of(MODULES[name])
            if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
            # on a connection, a clone of it, the finder, or an object's own self it is another
            if getattr(node.value, "id", "") not in ("self", "conn", "clone", "_finder")
        }
        assert written & remembered == WRITERS.get(name, set()), name


#: what stands in no module but these; why
WORDS = {
    r"\b_states\b": (["connection.state"], "no other module knows where states lie"),
    r"\bconn\b": ([name for name in MODULES if room_of(name)[1] != "sockets"], "they take sockets"),
    r'"""(What|Whether|Where|Who|To) ': ([], "a docstring begins with a noun or a verb"),
    r"time\.monotonic|from time import .*monotonic": (
        ["clock", *(name for name in MODULES if name not in CORE)],
        "tools that freeze or move a test's clock know the others' names of it",
    ),
}


@pytest.mark.parametrize("pattern", WORDS)
def test_what_is_said_in_no_other_module(pattern):
    may, why = WORDS[pattern]
    said = {name for name in MODULES if re.search(pattern, MODULES[name].read_text("utf-8"))}
    assert said <= set(may), why


def test_the_core_stays_small():
    lines = {name: len(MODULES[name].read_text().splitlines()) for name in CORE}
    assert sum(lines.values()) <= MOST_LINES, lines


# -- where the tests are ---------------------------------------------------------------------------

TESTS = REPOSITORY / "tests"
TEST_FILES = sorted(TESTS.rglob("test_*.py"))

#: folders of tests that are of no room of the package -> whose modules they test
TESTED = {"bench": "bench", "docs": "docs", "testing": "stalepool_testing"}

#: no module's: the house itself, and what needs something that the suite does not have
OF_NO_MODULE = {"test_house", "test_nova_report", "test_tracers"}

#: what has no test file of its name; why
OF_NO_FILE = {
    "__main__": "what every command is started by: cli/test_main",
    "cli.complaint": "what every command says and exits with: test_main, and theirs",
    "cli.demo.green": "imported first by nova-api's process: test_nova",
    "cli.demo.outcome": "data: test_cases and test_report have each kind",
    "cli.demo.plan": "numbers alone",
}


def is_named_after(test_file, name):
    return (test_file.stem + "_").startswith("test_%s_" % name)


def test_each_module_has_a_test_file_of_its_name():
    for name in MODULES:
        folder, _, module = name.rpartition(".")
        is_empty = all(isinstance(node, ast.Expr) for node in nodes_of(MODULES[name])[0].body)
        files = (TESTS / folder.replace(".", "/")).glob("test_*.py")
        has_one = any(is_named_after(path, module) for path in files)
        assert has_one is not (is_empty or name in OF_NO_FILE), name


def test_each_test_file_begins_with_the_name_of_a_module():
    """Or of a package: its tests may be of it all."""
    for path in TEST_FILES:
        folder = path.parent.relative_to(TESTS)
        root = REPOSITORY / TESTED.get(str(folder), Path("stalepool", folder))
        names = {root.stem, "pytest_stalepool", *(each.stem for each in root.glob("*"))}
        assert path.stem in OF_NO_MODULE or any(is_named_after(path, n) for n in names), path


def test_no_test_module_imports_another():
    """What two of them need is in tests/support, and imported by its bare name."""
    for path in TESTS.rglob("*.py"):
        for node in nodes_of(path):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [getattr(node, "module", None) or "", *(each.name for each in node.names)]
                wrong = [name for name in names if re.match(r"test_|support(\.|$)", name)]
                assert not wrong, (path, node.lineno, wrong)


def test_what_is_broken_is_broken_by_one_tool():
    """A test names a part of the core; tests/support/breaks.py alone knows where it is."""
    modules = {"stalepool", *("stalepool." + name for name in CORE)}
    for path in TEST_FILES:
        imported = [node for node in nodes_of(path) if getattr(node, "module", None) in modules]
        core = {alias.asname or alias.name for each in imported for alias in each.names}
        for node in nodes_of(path):
            if getattr(getattr(node, "func", None), "attr", "") in ("setattr", "delattr", "object"):
                said = str(getattr(node.args[0], "value", ""))
                is_named = said.startswith("stalepool.") and ".cli." not in said
                is_broken = is_named or getattr(node.args[0], "id", "") in core
                assert not is_broken, (path, node.lineno)
