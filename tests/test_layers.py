"""Who may import whom: a layer imports only lower ones, at module level and inside functions."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Set

import pytest

from conftest import REPOSITORY

#: from the bottom; within a layer nobody imports anybody
LAYERS = (
    # what can be known without knowing anything: tables, records, one platform each
    "copies counting errors knobs loaders originals verdict wire",
    "aside peek replay settings stats tcpinfo",
    # what is installed, and what is remembered of a connection
    "evidence keepalive patience runtime",
    "answer keystone pooled",
    # what is done at each seam
    "examine reconnect sending",
    "call checkout connect",
    "learn plan",
    "rescue",
    "request",
    "routine",
    # what is wrapped where, when, and by whose leave
    "seams",
    "hook",
    "bootstrap control",
    "stalepool",
    # what stands around it
    "testing",
    "cli contrib inject",
    "__main__",
)

#: what runs in every Python process of a machine may import this much
AT_START_UP = ("stalepool", "bootstrap", "hook", "copies", "loaders", "settings", "knobs")
CHEAP = {"os", "sys", "stalepool"}

#: guests that may be imported, by whom; whoever else needs one looks in sys.modules
GUESTS = {
    "seams": {"wrapt"},
    "hook": {"wrapt"},
    "testing": {"trustme", "cryptography"},
    "cli.demo": {"eventlet", "urllib3", "requests", "keystoneauth1"},
    "contrib": {"eventlet", "urllib3", "requests", "keystoneauth1", "oslo_config", "pytest"},
    "inject": {"imp"},  # Python 2.7's
}


class Import(NamedTuple):
    by: str  # a module, without the leading "stalepool."
    of: str  # a full name
    line: int
    is_at_module_level: bool

    def __str__(self) -> str:
        return "stalepool.%s, line %d, imports %s" % (self.by, self.line, self.of)


def modules() -> Dict[str, Path]:
    """Name without the leading "stalepool." -> source; the package itself is "stalepool"."""
    root = REPOSITORY / "stalepool"
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(p for p in parts if p != "__init__") or "stalepool"] = path
    return names


MODULES = modules()


def imports() -> Iterator[Import]:
    for by, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node, is_at_module_level in _statements(tree, True):
            for name in _names(node):
                yield Import(by, name, node.lineno, is_at_module_level)


def _statements(node: ast.AST, is_at_module_level: bool) -> Iterator[tuple[ast.stmt, bool]]:
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


IMPORTS = list(imports())
OF_OURS = [found for found in IMPORTS if found.of.partition(".")[0] == "stalepool"]
OF_GUESTS = [found for found in IMPORTS if found.of.partition(".")[0] != "stalepool"]


def layer_of(name: str) -> int:
    """The layer of a module; of a package's modules, that of the package."""
    top = name.partition(".")[0]
    for number, names in enumerate(LAYERS):
        if top in names.split():
            return number
    raise AssertionError("give stalepool.%s a layer in the table LAYERS of this test" % top)


def _ours(full_name: str) -> str:
    return full_name.partition(".")[2] or "stalepool"


def test_every_module_has_a_layer_and_every_name_in_the_table_is_one() -> None:
    placed = [name for names in LAYERS for name in names.split()]
    assert len(placed) == len(set(placed)), "a module has one layer"
    for name in MODULES:
        layer_of(name)
    gone = set(placed) - {name.partition(".")[0] for name in MODULES} - {"contrib"}
    assert not gone, "take these out of the table LAYERS: %s" % gone


def test_a_layer_imports_only_lower_layers() -> None:
    upwards = [
        "%s (layer %d), from layer %d" % (found, layer_of(_ours(found.of)), layer_of(found.by))
        for found in OF_OURS
        if layer_of(_ours(found.of)) >= layer_of(found.by)
        and _ours(found.of).partition(".")[0] != found.by.partition(".")[0]
    ]
    assert not upwards, "\n".join(upwards)


def test_within_a_package_of_ours_no_two_modules_import_each_other() -> None:
    needs: Dict[str, Set[str]] = {name: set() for name in MODULES}
    for found in OF_OURS:
        if found.is_at_module_level and _ours(found.of) != found.by:
            needs[found.by].add(_ours(found.of))
    while needs:
        free = [name for name, needed in needs.items() if not needed & set(needs)]
        assert free, "a circle among %s" % sorted(needs)
        for name in free:
            del needs[name]


def test_start_up_imports_nothing_dear() -> None:
    dear = [
        str(found)
        for found in IMPORTS
        if found.by in AT_START_UP
        and found.is_at_module_level
        and found.of.partition(".")[0] not in CHEAP | {"__future__"}
    ]
    assert not dear, "\n".join(dear)


@pytest.mark.skipif(
    not hasattr(sys, "stdlib_module_names"), reason="Pythons from 3.10 on know their own library"
)
def test_guests_are_imported_only_where_the_table_says() -> None:
    library = set(sys.stdlib_module_names)  # type: ignore[attr-defined]
    strangers = [
        str(found)
        for found in OF_GUESTS
        if found.of.partition(".")[0] not in library | _guests_of(found.by)
    ]
    assert not strangers, "\n".join(strangers)


def _guests_of(name: str) -> Set[str]:
    allowed: Set[str] = set()
    for host, guests in GUESTS.items():
        if (name + ".").startswith(host + "."):
            allowed |= guests
    return allowed


def test_the_walk_sees_what_it_should() -> None:
    """A table that nothing is held against would agree with everything."""
    seen = {(found.by, found.of, found.is_at_module_level) for found in IMPORTS}
    assert ("stalepool", "stalepool.bootstrap", True) in seen
    assert ("hook", "stalepool.seams", False) in seen
    assert ("hook", "wrapt", False) in seen
    assert ("seams", "wrapt", True) in seen
    assert not [found for found in IMPORTS if found.by == "hook" and "machinery" in found.of]
