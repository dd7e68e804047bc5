"""Tools that wrap what is around our patches: both are called, in every order of imports.

Each case is a process of its own (:mod:`tracers.case`), and skips where its tool is not installed;
``tox -e tracers`` has them all.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Callable, Iterator, List

import pytest

from stalepool_testing import TLS, AnswerStep, Close, FaultServer, Request, Respond
from tracers.case import ORDERS, ROUNDS
from tracers.tools import TOOLS
from worlds import WITH_TESTS

SCRIPT = "import sys; from tracers import case; case.main(*sys.argv[1:])"


def _tools() -> Iterator[Any]:
    for name, tool in TOOLS.items():
        missing = [each for each in tool.distributions if not _is_installed(each)]
        reason = "needs %s, as in tox -e tracers" % ", ".join(missing)
        yield pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=reason))


def _is_installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


class Script:
    """Closes as the first request for ``/ROUND/dies`` or ``/ROUND/dies-too`` arrives."""

    def __init__(self) -> None:
        self._closed: List[str] = []

    def __call__(self, request: Request) -> AnswerStep:
        if "/dies" in request.path and request.path not in self._closed:
            self._closed.append(request.path)
            return Close()
        return Respond(body=b"answer")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("tool", list(_tools()))
def test_a_tool_and_the_shim_do_not_disturb_each_other(
    tool: str, order: str, scheme: str, run_python: Callable[..., Any]
) -> None:
    tls = TLS()
    with FaultServer(Script(), tls=tls if scheme == "https" else None) as server:
        url = "%s://127.0.0.1:%d" % (scheme, server.port)
        said = run_python(
            SCRIPT, tool, order, url, tls.ca_path, env=WITH_TESTS, flags=("-Wdefault",)
        )
        journal = list(server.journal)

    def connections(path: str) -> List[int]:
        return [entry.connection for entry in journal if entry.path == path]

    assert said["elsewhere"] == [], "the tool has talked to somebody"
    assert (said["unpatched"], said["fallbacks"]) == ([], {})
    assert said["left"] == []  # they wrap what is above and below what we patch
    stock = said["stock"]
    assert all(stock[path][0] == 200 for path in ("first", "kept", "before"))
    for name in ROUNDS:
        assert connections("/%s/first" % name) == connections("/%s/kept" % name), name
        assert len(connections("/%s/dies-too" % name)) == 1, name
    # without the shim the fault is the caller's
    assert len(connections("/stock/dies")) == 1
    assert any(link.startswith("RemoteDisconnected") for link in stock["dies"][0])
    assert said["replays"] == {"ok": 1}
    for name in ("shim", "again"):
        found = said[name]
        # what was not saved is as without the shim, and so is what the tool saw of it
        for path in ("first", "kept", "before", "dies-too"):
            assert found[path] == stock[path], (name, path)
        # what was saved is to the tool one request that was answered
        assert found["dies"] == stock["kept"], name
        assert connections("/%s/dies" % name)[0] == connections("/%s/kept" % name)[0]
        assert len(connections("/%s/dies" % name)) == 2
    assert stock["kept"][1], "the tool has seen nothing"
