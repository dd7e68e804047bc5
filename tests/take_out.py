"""``python -m tests.take_out [MODULE ...]``: mutation testing by table rows and early returns.

Takes out one row of a table, or one early return, in a copy of the checkout; runs the test files
that are named after the module; and prints which test failed, or NONE. Once for each there is. The
checkout itself is left alone.

A module that cannot be imported without its row is told apart: no test has found that out. Takes
hours for all modules of the core; the suite does not run it. Needs Python 3.9.

Exit status: 0 each is missed by a test, 1 at least one is not, 2 usage, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Tuple

REPOSITORY = Path(__file__).resolve().parent.parent
#: rooms whose modules are asked for where none is named; the top one is the package's own
ROOMS = (".", "sockets", "connection", "patching", "contrib")
#: not copied
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.pyc")

NONE = "NONE"
AT_IMPORT = "cannot be imported"


class Place(NamedTuple):
    """Something that can be taken out, and how that is done to the tree it was found in."""

    line: int
    what: str
    take_out: Callable[[], Any]


# -- what there is ---------------------------------------------------------------------------------


def places(tree: ast.AST) -> List[Place]:
    """Give the rows and the early returns of a module, in their order there."""
    return sorted([*rows(tree), *early_returns(tree)], key=lambda place: place.line)


def rows(tree: ast.AST) -> Iterator[Place]:
    """Tables: what a name is assigned that has several elements; in a function tuples or calls."""
    local = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = getattr(target, "id", "__")
            if not name.startswith("__"):
                yield from _rows_of(node.value, name, is_local=id(node) in local)


def _rows_of(value: ast.AST, name: str, is_local: bool) -> Iterator[Place]:
    """The rows of the outermost collections in a value; what is in a row is no row."""
    if isinstance(value, ast.Dict):
        for key, row in zip(value.keys, value.values):
            if key is None:
                yield from _rows_of(row, name, is_local)
            elif len(value.keys) > 1 and not is_local:
                yield Place(
                    row.lineno, _named(name, key), _without((value.keys, key), (value.values, row))
                )
        return
    elements = getattr(value, "elts", None)
    if elements is None and isinstance(value, ast.Call):
        is_list_of_words = len(value.args) > 1 and all(_is_word(each) for each in value.args)
        elements = value.args if is_list_of_words else None
    if elements is None:
        if isinstance(value, (ast.Call, ast.BinOp)) and not is_local:
            for child in ast.iter_child_nodes(value):
                yield from _rows_of(child, name, is_local)
        return
    plain = [each for each in elements if not isinstance(each, ast.Starred)]
    is_table = all(isinstance(each, (ast.Tuple, ast.Call)) for each in plain) or not is_local
    for each in elements:
        if isinstance(each, ast.Starred):
            yield from _rows_of(each.value, name, is_local)
        elif is_table and len(plain) > 1:
            yield Place(each.lineno, _named(name, each), _without((elements, each)))


def _is_word(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _without(*removed: Tuple[List[Any], Any]) -> Callable[[], Any]:
    return lambda: [each.remove(item) for each, item in removed]


def early_returns(tree: ast.AST) -> Iterator[Place]:
    """Every ``return`` without which its function would go on, or return something else."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for body, is_at_the_end in _bodies(function, True):
                for at, statement in enumerate(body):
                    if isinstance(statement, ast.Return) and statement is not function.body[-1]:
                        is_none = ast.unparse(statement) in ("return", "return None")
                        what = _named(function.name + "()", statement)
                        if not (is_at_the_end and is_none):
                            yield Place(statement.lineno, what, _passing(body, at))


def _bodies(node: Any, is_at_the_end: bool) -> Iterator[Tuple[List[ast.stmt], bool]]:
    """The blocks of a function, but for those of functions in it; and whether it ends there."""
    is_last = is_at_the_end and not isinstance(node, (ast.For, ast.While))
    blocks = [getattr(node, name, []) for name in ("body", "orelse")]
    for block in blocks + [handler.body for handler in getattr(node, "handlers", ())]:
        yield block, is_last
        for statement in block:
            if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                yield from _bodies(statement, is_last and statement is block[-1])


def _passing(body: List[ast.stmt], at: int) -> Callable[[], Any]:
    return lambda: body.__setitem__(at, ast.Pass())


def _named(name: str, node: ast.AST) -> str:
    text = ast.unparse(node)
    return "%s: %s" % (name, text if len(text) <= 50 else text[:47] + "...")


# -- one run ---------------------------------------------------------------------------------------


def source_of(module: str) -> Path:
    """The path of a module of the package, below the checkout."""
    path = Path("stalepool", *module.split("."))
    return path / "__init__.py" if (REPOSITORY / path).is_dir() else path.with_suffix(".py")


def test_files_of(module: str) -> List[str]:
    """The test files that are named after a module, the one that has no other name first."""
    room, _, name = module.rpartition(".")
    folder = REPOSITORY / "tests" / room
    named = [*folder.glob("test_%s.py" % name), *sorted(folder.glob("test_%s_*.py" % name))]
    return [str(path.relative_to(REPOSITORY)) for path in named]


def run(module: str, number: Optional[int]) -> Tuple[str, float]:
    """Run a module's tests in a copy of the checkout, without its place of this number.

    :returns: the test that failed, or one of the constants above; and the seconds it took.
    """
    files = test_files_of(module)
    if not files:  # pytest would run all there are
        return NONE, 0.0
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(shutil.copytree(str(REPOSITORY), directory + "/checkout", ignore=LEFT_OUT))
        if number is not None:
            source = copy / source_of(module)
            tree = ast.parse(source.read_text(encoding="utf-8"))
            places(tree)[number].take_out()
            source.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
        began = time.monotonic()
        if _output_of(copy, "-c", "import stalepool.%s" % module)[0] != 0:
            return AT_IMPORT, time.monotonic() - began
        words = ["-m", "pytest", "-xq", "-rfE", "-p", "no:cacheprovider", *files]
        status, output = _output_of(copy, *words)
        return _verdict(status, output), time.monotonic() - began


def _output_of(copy: Path, *words: str) -> Tuple[Optional[int], str]:
    """The status and the output of a Python in the copy; None: it had to be ended."""
    environ = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(
        [sys.executable, *words], cwd=copy, env=environ, text=True, start_new_session=True, **pipes
    ) as child:
        try:
            output = child.communicate(timeout=300)[0]
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            os.killpg(child.pid, signal.SIGKILL)  # and the clients that the tests have started
            if isinstance(error, KeyboardInterrupt):
                raise
            return None, child.communicate()[0]
        return child.returncode, output


def _verdict(status: Optional[int], output: str) -> str:
    failed = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+::\S+)", output, re.MULTILINE)
    if failed is not None:
        return failed[1]
    if status == 0:
        return NONE
    return "no end" if status is None else "pytest: status %d" % status


# -- all of them -----------------------------------------------------------------------------------


def core() -> List[str]:
    """The modules of these rooms in which there is something to take out."""
    found = [path for room in ROOMS for path in (REPOSITORY / "stalepool" / room).glob("*.py")]
    names = [".".join(path.relative_to(REPOSITORY / "stalepool").parts)[:-3] for path in found]
    return sorted(name for name in names if not name.endswith("__") and _places_in(name))


def _places_in(module: str) -> List[Place]:
    return places(ast.parse((REPOSITORY / source_of(module)).read_text(encoding="utf-8")))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.take_out", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help='as in "connection.send"')
    parser.add_argument("--list", action="store_true", help="print what there is, and run nothing")
    options = parser.parse_args()
    for module in options.modules:
        if not (REPOSITORY / source_of(module)).is_file():
            parser.error("%s is no module of stalepool" % module)
    listed = {module: _places_in(module) for module in options.modules or core()}
    missed = 0
    for module, found in listed.items():
        lines = ["%s:%d %s" % (module, place.line, place.what) for place in found]
        if options.list:
            print("".join(line + "\n" for line in lines), end="")
            continue
        for number, text in [(None, module + ", whole"), *enumerate(lines)]:
            try:
                found_by, seconds = run(module, number)
            except KeyboardInterrupt:
                return 130
            missed += number is not None and found_by in (NONE, AT_IMPORT)
            print("%-90s %s (%d s)" % (text, found_by, seconds), flush=True)
    if not options.list:
        print("%d of %d are missed by no test" % (missed, sum(map(len, listed.values()))))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
