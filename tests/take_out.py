"""``python -m tests.take_out [MODULE ...]``: mutation testing by table rows and early returns.

Takes out one row of a table, or one early return, in a copy of the checkout; runs the test files
that are named after the module; and prints which test failed, or NONE, also where the module could
not even be imported. Takes hours for all modules; the suite does not run it. Needs
Python 3.9. Exit status: 0 each is missed by a test, 1 at least one is not, 2 usage.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "stalepool"


# -- what there is: (line, what it is, a function that takes it out of the tree) -------------------


def places(tree):
    """The rows and the early returns of a module, in their order there."""
    return sorted([*rows(tree), *early_returns(tree)], key=lambda place: place[0])


def rows(tree):
    """Tables: what a name is assigned that has several elements; in a function tuples or calls."""
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
    local = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = getattr(target, "id", "__")
            if not name.startswith("__"):
                yield from rows_of(node.value, name, id(node) in local)


def rows_of(value, name, is_local):
    """The rows of the outermost collections in a value; what is in a row is no row."""
    if isinstance(value, ast.Dict):
        for key, row in zip(value.keys, value.values):
            if key is None:
                yield from rows_of(row, name, is_local)
            elif len(value.keys) > 1 and not is_local:
                yield row.lineno, named(name, key), without((value.keys, key), (value.values, row))
        return
    elements = getattr(value, "elts", None)
    is_call = isinstance(value, ast.Call) and len(value.args) > 1
    if is_call and all(isinstance(getattr(each, "value", None), str) for each in value.args):
        elements = value.args
    if elements is None:
        if isinstance(value, (ast.Call, ast.BinOp)) and not is_local:
            for child in ast.iter_child_nodes(value):
                yield from rows_of(child, name, is_local)
        return
    plain = [each for each in elements if not isinstance(each, ast.Starred)]
    is_table = all(isinstance(each, (ast.Tuple, ast.Call)) for each in plain) or not is_local
    for each in elements:
        if isinstance(each, ast.Starred):
            yield from rows_of(each.value, name, is_local)
        elif is_table and len(plain) > 1:
            yield each.lineno, named(name, each), without((elements, each))


def without(*removed):
    return lambda: [each.remove(item) for each, item in removed]


def early_returns(tree):
    """Every ``return`` without which its function would go on, or return something else."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for body, is_at_the_end in bodies(function, True):
                for at, statement in enumerate(body):
                    if isinstance(statement, ast.Return) and statement is not function.body[-1]:
                        is_none = ast.unparse(statement) in ("return", "return None")
                        if not (is_at_the_end and is_none):
                            what = named(function.name + "()", statement)
                            passing = partial(body.__setitem__, at, ast.Pass())
                            yield statement.lineno, what, passing


def bodies(node, is_at_the_end):
    """The blocks of a function, but for those of functions in it; and whether it ends there."""
    is_last = is_at_the_end and not isinstance(node, (ast.For, ast.While))
    blocks = [getattr(node, name, []) for name in ("body", "orelse")]
    for block in blocks + [handler.body for handler in getattr(node, "handlers", ())]:
        yield block, is_last
        for statement in block:
            if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                yield from bodies(statement, is_last and statement is block[-1])


def named(name, node):
    text = ast.unparse(node)
    return "%s: %s" % (name, text if len(text) <= 50 else text[:47] + "...")


# -- one run ---------------------------------------------------------------------------------------


def source_of(module):
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def tree_of(module):
    return ast.parse(source_of(module).read_text(encoding="utf-8"))


def run(module, number):
    """Run a module's tests in a copy of the checkout, without its place of this number.

    :returns: the test that failed, or NONE.
    """
    room, _, name = module.rpartition(".")
    folder = REPOSITORY.joinpath("tests", *room.split("."))
    # the one that has no other name first; without any pytest would run all there are
    files = [*folder.glob("test_%s.py" % name), *sorted(folder.glob("test_%s_*.py" % name))]
    if not files:
        return "NONE"
    tree = tree_of(module)
    places(tree)[number][2]()
    with tempfile.TemporaryDirectory() as directory:
        left_out = shutil.ignore_patterns(".*", "__pycache__")
        copy = Path(shutil.copytree(REPOSITORY, directory + "/checkout", ignore=left_out))
        (copy / source_of(module).relative_to(REPOSITORY)).write_text(ast.unparse(tree))
        words = ["-m", "pytest", "-xq", "-rfE", *(path.relative_to(REPOSITORY) for path in files)]
        environ = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
        said = subprocess.run(
            [sys.executable, *words], cwd=copy, env=environ, stdout=subprocess.PIPE, text=True
        ).stdout
    failed = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+::.+?)(?: - .*)?$", said, re.MULTILINE)
    return "NONE" if failed is None else failed[1]


def modules():
    found = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("[!_]*.py")]
    return sorted(".".join(path.with_suffix("").parts) for path in found)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.take_out", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help='as in "connection.send"')
    options = parser.parse_args()
    missed = total = 0
    for module in options.modules or modules():
        for number, (line, what, _) in enumerate(places(tree_of(module))):
            found_by = run(module, number)
            total, missed = total + 1, missed + (found_by == "NONE")
            print("%-90s %s" % ("%s:%d %s" % (module, line, what), found_by), flush=True)
    print("%d of %d are missed by no test" % (missed, total))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
