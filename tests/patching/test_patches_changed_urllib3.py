"""A urllib3 or a Python that has changed what the patches rely on: requests go as without the shim.

Each future is the real thing with one part renamed, gone, or taking something else: each patch is
missing in one, and in one nothing is that matters. A process with the shim does the same in it as
one without, and one warning says what was not found. ``test_patches`` has what else may be found.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Set, Tuple

import pytest
import urllib3

from worlds import WITH_TESTS


class Future(NamedTuple):
    """What is changed, and what is said of it."""

    module: str  # of urllib3, or http.client
    changes: Tuple[Tuple[str, str], ...]  # what stands there, and what does then
    reason: str  # of :data:`stalepool.fallback.REASONS`
    said: str
    added: str = ""  # at the module's end


def _patch_missing(module: str, added: str, said: str) -> Future:
    return Future(module, (), "patch_missing", said, added)


FUTURES: Dict[str, Future] = {
    "the connection has another name": _patch_missing(
        "connectionpool",
        "Connection = HTTPConnection; del HTTPConnection",
        "HTTPConnection.send: not there",
    ),
    "the response has another name": _patch_missing(
        "connectionpool",
        "for name in 'HTTPResponse', 'BaseHTTPResponse': globals().pop(name, None)",
        "stalepool_replayed: not there",
    ),
    "the check is handed more": Future(
        "connectionpool",
        (("is_connection_dropped(conn)", "is_connection_dropped(conn, True)"),),
        "patch_missing",
        "is_connection_dropped: takes (conn, is_idle)",
        """
        _check = is_connection_dropped
        def is_connection_dropped(conn, is_idle):
            return _check(conn)
        """,
    ),
    "a new connection is handed more": Future(
        "connection",
        (
            ("def _new_conn(self)", "def _new_conn(self, more=None)"),
            ("self._new_conn()", "self._new_conn(None)"),
        ),
        "patch_missing",
        "HTTPConnection._new_conn: takes (self, more)",
    ),
    "send is handed more": Future(
        "http.client",
        (
            ("def send(self, data)", "def send(self, data, is_last=False)"),
            ("self.send(msg)", "self.send(msg, True)"),
        ),
        "patch_missing",
        "HTTPConnection.send: takes (self, data, is_last)",
    ),
    "an answer is made of something else": _patch_missing(
        "connection",
        """
        from http.client import HTTPResponse as _Response
        def _make(raw, debuglevel=0, method=None, url=None):
            return _Response(raw, debuglevel, method, url)
        HTTPConnection.response_class = staticmethod(_make)
        """,
        "HTTPConnection.response_class: ",
    ),
    "the socket is computed": Future(
        "connection",
        (),
        "unknown_connection",
        "HTTPConnection",
        """
        HTTPConnection.sock = property(
            lambda self: vars(self).get("socket"), lambda self, sock: vars(self).update(socket=sock)
        )
        """,
    ),
    "begin is handed more": Future(
        "http.client",
        (
            ("def begin(self)", "def begin(self, *, most_headers=None)"),
            ("response.begin()", "response.begin(most_headers=9)"),
        ),
        "",
        "",
    ),
    "the answer's file has another name": Future(
        "http.client", ((".fp", ".file"),), "answer_failed", "fp"
    ),
}


SCRIPT = """
    import http, importlib.util, json, sys, types
    from in_client import wait_for_fin, warnings_logged

    directory, changes = sys.argv[1], json.loads(sys.argv[2])
    if changes is None:
        sys.path.insert(0, directory)
    else:
        spec = importlib.util.find_spec("http.client")
        source = spec.loader.get_source("http.client")
        for old, new in changes:
            assert old in source, old
            source = source.replace(old, new)
        http.client = sys.modules["http.client"] = types.ModuleType("http.client")
        vars(http.client).update(__spec__=spec, __file__=spec.origin)
        exec(compile(source, spec.origin, "exec"), vars(http.client))

    records = warnings_logged()
    import stalepool, urllib3
    assert changes is not None or urllib3.__file__.startswith(directory)
    from stalepool_testing import CloseAfter, FaultServer, ProcessThenClose, Respond

    statuses = []

    def ask(method="GET"):
        try:
            statuses.append(pool.request(method, "/", timeout=20.0).status)
        except urllib3.exceptions.ProtocolError:
            statuses.append(0)

    with FaultServer([Respond()] * 4 + [ProcessThenClose()]) as server:
        with urllib3.HTTPConnectionPool("127.0.0.1", server.port, retries=False) as pool:
            ask()
            ask("POST")
            ask()
            server.perform(CloseAfter(0))
            wait_for_fin(pool)
            ask()
            ask()  # its connection ends without an answer
            ask()
        assert not server.errors
    seen = stalepool.snapshot()
    assert stalepool.uninstall() == []
    print(json.dumps({
        "statuses": statuses,
        "said": [record.getMessage() for record in records],
        "installed": seen["installed"],
        "unpatched": seen["unpatched"],
        "fallbacks": seen["fallbacks"],
        "closed": seen["totals"]["verdicts"].get("closed", 0),
    }))
"""


def road(name: str) -> Set[Any]:
    return {(FUTURES[name].reason or "patch_missing", "not there" in FUTURES[name].said)}


@pytest.fixture
def play(tmp_path: Path, run_python: Callable[..., Any]) -> Callable[[Future, str], Any]:
    """Runs the script with a future, and with the shim or without it."""

    def run(future: Future, enabled: str) -> Any:
        is_pythons = future.module == "http.client"
        if not is_pythons:
            doctor(shutil.copytree(Path(urllib3.__file__).parent, tmp_path / "urllib3"), future)
        changes = json.dumps(future.changes if is_pythons else None)
        return run_python(
            SCRIPT, tmp_path, changes, env={**WITH_TESTS, "STALEPOOL_ENABLED": enabled}
        )

    return run


#: stock loses the one whose connection ended, which may be saved
LOST, SAVED = [200, 200, 200, 200, 0, 200], [200] * 6


@pytest.mark.parametrize("name", FUTURES)
def test_stock_loses_the_one_whose_connection_ended(name: str, play: Any) -> None:
    seen = play(FUTURES[name], "0")
    assert (seen["statuses"], seen["said"], seen["installed"]) == (LOST, [], False)


@pytest.mark.each_value(by=road)
@pytest.mark.parametrize("name", FUTURES)
def test_requests_go_as_without_the_shim(name: str, play: Any) -> None:
    future = FUTURES[name]
    seen = play(future, "1")
    assert seen["installed"]
    if not future.reason:  # nothing that matters has changed
        assert (seen["statuses"], seen["said"], seen["fallbacks"]) == (SAVED, [], {})
        return
    assert seen["statuses"] in (LOST, SAVED)
    first, *more = seen["said"]
    assert "(%s)" % future.reason in first and future.said in first
    for line in more:
        # once more at the first answer, for a service that logs only by then; and what follows
        is_again = "is active" in line and future.said in line
        assert is_again or "(requests_unseen)" in line, seen["said"]
    if future.reason == "patch_missing":
        assert seen["fallbacks"]["patch_missing"] == 1
        assert any(future.said in line for line in seen["unpatched"])
        # what is left of the patches works
        assert seen["closed"] == (0 if "is_connection_dropped" in future.said else 1)


def doctor(package: str, future: Future) -> None:
    """Change a copy of urllib3 into that of the future."""
    path = Path(package) / (future.module + ".py")
    source = path.read_text(encoding="utf-8")
    for old, new in future.changes:
        assert old in source, old
        source = source.replace(old, new)
    path.write_text(source + "\n" + textwrap.dedent(future.added), encoding="utf-8")
