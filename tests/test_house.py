"""The rules of the house, held against the syntax trees: who imports whom, who writes what.

The package is a house of rooms. A module imports its own room and those below; a room may be
skipped. What a rule is for stands at its table.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Set, Tuple

import pytest

from conftest import REPOSITORY

#: from the bottom; the rooms of one floor do not import each other
FLOORS: Tuple[Dict[str, str], ...] = (
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
MOST_LINES = 4851

#: what runs in every Python process of a machine may import this much
AT_START_UP = (
    "stalepool",
    "bootstrap",
    "patching",
    "patching.copies",
    "patching.import_hook",
    "patching.loaders",
    "settings",
)
CHEAP = {"os", "sys", "stalepool", "__future__"}

#: packages that are not Python's own, by whom they may be imported; whoever else needs one looks
#: in sys.modules. urllib3, eventlet, requests and keystoneauth1 are what we ride in
GUESTS = {
    "contrib.keystone": {"wrapt"},
    "contrib.opentelemetry": {"opentelemetry"},
    "contrib.oslo": {"oslo_config", "oslo_reports"},
    "contrib.prometheus": {"prometheus_client"},
    "cli.doctor": {"urllib3", "stalepool_testing"},
    "cli.demo": {"eventlet", "urllib3", "requests", "keystoneauth1", "stalepool_testing"},
    "inject": {"imp"},  # Python 2.7's
}

#: besides fallback, which is for it: module -> why it catches every exception by itself
CATCH_ALL = {
    "bootstrap": "runs at start-up, before anything may be imported that could say it",
    "patching.import_hook": "runs while urllib3 is imported, perhaps before there is a fallback",
    "inject.sitecustomize": "runs in Pythons in which there is no stalepool",
}

#: attributes of a State or its Request that are written elsewhere than in connection/state
WRITERS: Dict[str, Set[str]] = {
    # every request: a call costs as much as all of them
    "connection.answer": {"limit_s", "phase", "sent_at", "wait_s"},
    "connection.checkout": {"phase"},  # a call would cost the fast check a fifth
    "connection.full_check": {"full_check_from_s", "move_for"},
    "connection.send": {"is_past_replay"},
    "connection.fresh_socket": {"is_reused", "moved_for", "replaced_silent"},
    "connection.replay": {"first_error", "is_replayed", "is_silent", "limit_s"},
}


# -- the trees -------------------------------------------------------------------------------------


def modules() -> Dict[str, Path]:
    """Name without the leading "stalepool." -> source; the package itself is "stalepool"."""
    root = REPOSITORY / "stalepool"
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(p for p in parts if p != "__init__") or "stalepool"] = path
    return names


MODULES = modules()


@functools.lru_cache(maxsize=None)
def tree_of(name: str) -> ast.Module:
    """Parsed when it is asked for: each worker of the suite imports this file."""
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


class Import(NamedTuple):
    by: str  # a module, without the leading "stalepool."
    of: str  # a full name
    line: int
    is_at_module_level: bool

    @property
    def package(self) -> str:
        return self.of.partition(".")[0]

    @property
    def of_ours(self) -> str:
        """The name as in :func:`modules`; empty for what is not ours."""
        rest = self.of.partition(".")[2] or "stalepool"
        return rest if self.package == "stalepool" else ""


@functools.lru_cache(maxsize=None)
def imports() -> List[Import]:
    return [
        Import(by, name, node.lineno, is_at_module_level)
        for by in MODULES
        for node, is_at_module_level in _statements(tree_of(by), True)
        for name in _names(node)
    ]


def _statements(node: ast.AST, is_at_module_level: bool) -> Iterator[Tuple[ast.stmt, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, is_at_module_level
        is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _statements(child, is_at_module_level and not is_function)


def _names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import: write it out"
        assert node.module is not None
        for alias in node.names:
            full = "%s.%s" % (node.module, alias.name)
            yield full if full.partition(".")[2] in MODULES else node.module


def room_of(name: str) -> Tuple[int, str]:
    """The floor and the room of a module: its own, or else its package's."""
    top = name.partition(".")[0]
    for wanted in (name, top):
        for floor, rooms in enumerate(FLOORS):
            for room, names in rooms.items():
                if wanted in names.split():
                    return floor, room
    raise AssertionError("give stalepool.%s a room in the table FLOORS of this test" % top)


CORE = [name for name in MODULES if room_of(name)[1] not in AROUND]


def place(name: str, node: ast.AST) -> str:
    return "%s:%d" % (MODULES[name].relative_to(REPOSITORY), getattr(node, "lineno", 1))


def assert_none(found: Iterable[object]) -> None:
    wrong = [str(each) for each in found]
    assert not wrong, "\n".join(wrong)


# -- who imports whom ------------------------------------------------------------------------------


def test_every_name_in_the_table_of_rooms_is_a_module() -> None:
    placed = [name for rooms in FLOORS for names in rooms.values() for name in names.split()]
    assert len(placed) == len(set(placed)), "a module has one room"
    gone = set(placed) - {name.partition(".")[0] for name in MODULES} - set(MODULES)
    assert not gone, "take these out of the table FLOORS: %s" % gone


def test_imports_go_down_the_house() -> None:
    assert_none(
        found
        for found in imports()
        if found.of_ours
        and room_of(found.of_ours) != room_of(found.by)
        and room_of(found.of_ours)[0] >= room_of(found.by)[0]
    )


def test_no_circle_inside_a_room() -> None:
    """Imports inside functions count, too."""
    needs: Dict[str, Set[str]] = {name: set() for name in MODULES}
    for found in imports():
        # but for what a package imports of its own
        if found.of_ours and not (found.of_ours + ".").startswith(found.by + "."):
            needs[found.by].add(found.of_ours)
    while needs:
        free = [name for name, needed in needs.items() if not needed & set(needs)]
        assert free, "a circle among %s" % sorted(needs)
        for name in free:
            del needs[name]


def test_start_up_imports_nothing_dear() -> None:
    assert_none(
        found
        for found in imports()
        if found.by in AT_START_UP and found.is_at_module_level and found.package not in CHEAP
    )


@pytest.mark.skipif(
    not hasattr(sys, "stdlib_module_names"), reason="Pythons from 3.10 on know their own library"
)
def test_guests_are_imported_only_where_the_table_says() -> None:
    library = set(sys.stdlib_module_names)  # type: ignore[attr-defined]
    for found in imports():
        hosts = [host for host in GUESTS if (found.by + ".").startswith(host + ".")]
        known = library.union({"stalepool"}, *(GUESTS[host] for host in hosts))
        assert found.package in known, found


def test_the_walk_sees_what_it_should() -> None:
    """A table that nothing is held against would agree with everything."""
    seen = {(found.by, found.of, found.is_at_module_level) for found in imports()}
    assert ("stalepool", "stalepool.bootstrap", True) in seen
    assert ("patching.import_hook", "stalepool.patching.patches", False) in seen
    assert ("contrib.keystone", "wrapt", True) in seen
    assert ("patching.import_hook", "importlib.machinery") not in {found[:2] for found in imports()}


# -- what is caught, and what is written -----------------------------------------------------------


def catch_alls(name: str) -> Iterator[str]:
    """The places at which a module catches whatever there is."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.ExceptHandler):
            caught = {n.id for n in ast.walk(node.type or node) if isinstance(n, ast.Name)}
            if node.type is None or caught & {"Exception", "BaseException"}:
                yield place(name, node)
        elif isinstance(node, ast.Call) and "suppress" in ast.dump(node.func):
            caught = {getattr(argument, "id", "") for argument in node.args}
            if caught & {"Exception", "BaseException"}:
                yield place(name, node)


def test_every_exception_is_caught_in_fallback_alone() -> None:
    """An exception that is not of our making has to pass: only the guard there tells it apart."""
    found = {name: list(catch_alls(name)) for name in MODULES if room_of(name)[1] != "cli"}
    for name in (*CATCH_ALL, "fallback"):
        assert found.pop(name), name
    assert_none(place for places in found.values() for place in places)


def attributes_of(class_name: str) -> Set[str]:
    """The attributes that a class of connection/state has, or sets on itself."""
    nodes = tree_of("connection.state").body
    (found,) = (node for node in nodes if getattr(node, "name", "") == class_name)
    of_the_class = (
        target
        for node in found.body
        for target in getattr(node, "targets", [getattr(node, "target", None)])
    )
    return {target.id for target in of_the_class if isinstance(target, ast.Name)} | {
        node.attr
        for node in ast.walk(found)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if getattr(node.value, "id", "") == "self"
    }


def writes(name: str) -> Iterator[Tuple[str, str]]:
    """Attributes of a State or a Request that a module writes, and where.

    What is written on a connection, a clone of it, or an object's own self is something else.
    """
    remembered = attributes_of("State") | attributes_of("Request")
    assert {"phase", "is_replayed"} <= remembered
    for node in ast.walk(tree_of(name)):
        is_written = isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        if is_written and node.attr in remembered:
            on = node.value.id if isinstance(node.value, ast.Name) else ast.dump(node.value)
            if on not in ("self", "conn", "clone"):
                yield node.attr, place(name, node)


def test_the_state_is_written_by_its_own_module() -> None:
    """And by those that the table names."""
    found = {name: list(writes(name)) for name in CORE if name != "connection.state"}
    assert_none(
        "%s writes %s" % (place, attribute)
        for name in found
        for attribute, place in found[name]
        if attribute not in WRITERS.get(name, ())
    )
    for name, attributes in WRITERS.items():
        gone = attributes - {attribute for attribute, _ in found[name]}
        assert not gone, "take out of the table WRITERS: %s of %s" % (gone, name)


def test_no_module_but_the_state_knows_where_states_lie() -> None:
    nodes = ((name, node) for name in CORE for node in ast.walk(tree_of(name)))
    assert_none(place(*each) for each in nodes if getattr(each[1], "attr", "") == "_states")


def test_sockets_are_handed_sockets() -> None:
    """Nothing there knows a connection."""
    names = [name for name in CORE if room_of(name)[1] == "sockets"]
    nodes = ((name, node) for name in names for node in ast.walk(tree_of(name)))
    assert_none(
        place(name, node)
        for name, node in nodes
        if "conn" in (getattr(node, "arg", ""), getattr(node, "id", ""))
    )


# -- where the tests are ---------------------------------------------------------------------------

TESTS = REPOSITORY / "tests"

#: folders of tests -> whose modules they test; the top folder is that of the package itself
TESTED = {
    ".": ["stalepool"],
    "bench": ["bench"],
    "docs": ["docs"],
    "testing": ["stalepool_testing", "pytest_stalepool.py"],
    **{
        room: ["stalepool/" + room]
        for room in ("cli", "connection", "contrib", "patching", "sockets")
    },
}

#: no module's: the house itself, and what needs something that the suite does not have
OF_NO_MODULE = {"test_house", "test_nova_report", "test_tracers"}

TEST_FILES = sorted(TESTS.rglob("test_*.py"))


def names_tested_in(folder: str) -> Set[str]:
    """The modules that a folder's tests are of, and the packages: their tests may be of it all."""
    roots = [REPOSITORY / root for root in TESTED.get(folder, ())]
    names = {root.stem for root in roots}
    for root in roots:
        names |= {path.stem for path in root.glob("*.py")}
        names |= {path.parent.name for path in root.glob("*/__init__.py")}
    return names - {"__init__"}


def is_named_after(test_file: Path, name: str) -> bool:
    return (test_file.stem + "_").startswith("test_%s_" % name)


def test_each_module_of_the_core_has_a_test_file_of_its_name() -> None:
    for name in CORE:
        folder, _, module = name.rpartition(".")
        is_empty = all(isinstance(node, ast.Expr) for node in tree_of(name).body)
        files = (TESTS / folder).glob("test_*.py")
        assert is_empty or any(is_named_after(path, module) for path in files), name


def test_each_test_file_begins_with_the_name_of_a_module() -> None:
    for path in TEST_FILES:
        names = names_tested_in(str(path.parent.relative_to(TESTS)))
        assert path.stem in OF_NO_MODULE or any(is_named_after(path, n) for n in names), path


def trees_with(pattern: str, paths: Iterable[Path]) -> Iterator[Tuple[Path, ast.Module]]:
    """The trees of the files that have a pattern: those of all take half a second."""
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if re.search(pattern, text):
            yield path, ast.parse(text)


def test_no_test_module_imports_another() -> None:
    """What two of them need is in tests/support, and imported by its bare name."""
    assert_none(
        "%s, line %d" % (path, node.lineno)
        for path, tree in trees_with(r"(import|from) .*\b(test_|support)", TESTS.rglob("*.py"))
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        if name.startswith("test_") or name.partition(".")[0] == "support"
    )


def test_what_is_broken_is_broken_by_one_tool() -> None:
    """A test names a part of the core; tests/support/breaks.py alone knows where it is."""
    for path, tree in trees_with(r"(set|del)attr\(|\.object\(", TEST_FILES):
        core = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and _is_of_the_core(node.module or "")
            for alias in node.names
        }
        assert_none(
            "%s, line %d" % (path, node.lineno)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and getattr(node.func, "attr", "") in ("setattr", "delattr", "object")
            and _is_broken_by(node.args[0], core)
        )


def _is_of_the_core(module: str) -> bool:
    name = module.partition("stalepool.")[2]
    return module == "stalepool" or (bool(name) and room_of(name)[1] not in AROUND)


def _is_broken_by(target: ast.AST, core: Set[str]) -> bool:
    if isinstance(target, ast.Constant):
        return str(target.value).startswith("stalepool.") and ".cli." not in str(target.value)
    return isinstance(target, ast.Name) and target.id in core


# -- how much, and how it is said ------------------------------------------------------------------


def test_the_core_stays_small() -> None:
    lines = {name: len(MODULES[name].read_text().splitlines()) for name in CORE}
    assert sum(lines.values()) <= MOST_LINES, lines


@pytest.mark.parametrize("word", ["What", "Whether", "Where", "Who", "To"])
def test_a_docstring_begins_with_a_noun_or_a_verb(word: str) -> None:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    assert_none(
        "%s: %s" % (place(name, node), text.splitlines()[0])
        for name in MODULES
        for node in ast.walk(tree_of(name))
        if isinstance(node, kinds)
        for text in [ast.get_docstring(node) or ""]
        if text.partition(" ")[0] == word
    )


def test_every_public_function_has_a_docstring() -> None:
    assert_none(
        "%s, %s" % (place(name, node), node.name)
        for name in CORE
        for node in tree_of(name).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        if not ast.get_docstring(node)
    )
