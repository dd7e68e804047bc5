"""A urllib3 or a Python that has changed what the patches rely on: requests go as without the shim.

Each future is the real thing with one part renamed, gone, or taking something else: each patch is
missing in one, and in one nothing is that matters. A process with the shim does the same in it as
one without, and one warning says what was not found. ``test_patches`` has what else may be found.
"""

from __future__ import annotations

import importlib
import shutil
import textwrap
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Sequence, Set, Tuple

import pytest

from worlds import WITH_TESTS


class Future(NamedTuple):
    """What is changed, and what is said of it."""

    module: str
    said: str
    changes: Sequence[Tuple[str, str]] = ()  # what stands there, and what does then
    added: str = ""  # at the module's end
    reason: str = "patch_missing"  # of :data:`stalepool.fallback.REASONS`


FUTURES: Dict[str, Future] = {
    "the connection has another name": Future(
        "urllib3.connectionpool",
        "HTTPConnection.send: not there",
        added="Connection = HTTPConnection; del HTTPConnection",
    ),
    "the response has another name": Future(
        "urllib3.connectionpool",
        "stalepool_replayed: not there",
        added="for name in 'HTTPResponse', 'BaseHTTPResponse': globals().pop(name, None)",
    ),
    "the check is handed more": Future(
        "urllib3.connectionpool",
        "is_connection_dropped: takes (conn, is_idle)",
        [("is_connection_dropped(conn)", "is_connection_dropped(conn, True)")],
        """
        _check = is_connection_dropped
        def is_connection_dropped(conn, is_idle):
            return _check(conn)
        """,
    ),
    "a new connection is handed more": Future(
        "urllib3.connection",
        "HTTPConnection._new_conn: takes (self, more)",
        [
            ("def _new_conn(self)", "def _new_conn(self, more=None)"),
            ("self._new_conn()", "self._new_conn(None)"),
        ],
    ),
    "send is handed more": Future(
        "http.client",
        "HTTPConnection.send: takes (self, data, is_last)",
        [
            ("def send(self, data)", "def send(self, data, is_last=False)"),
            ("self.send(msg)", "self.send(msg, True)"),
        ],
    ),
    "an answer is made of something else": Future(
        "urllib3.connection",
        "HTTPConnection.response_class: ",
        added="""
        from http.client import HTTPResponse as _Response
        def _make(raw, debuglevel=0, method=None, url=None):
            return _Response(raw, debuglevel, method, url)
        HTTPConnection.response_class = staticmethod(_make)
        """,
    ),
    "the socket is computed": Future(
        "urllib3.connection",
        "HTTPConnection",
        added="""
        HTTPConnection.sock = property(
            lambda self: vars(self).get("socket"), lambda self, sock: vars(self).update(socket=sock)
        )
        """,
        reason="unknown_connection",
    ),
    "begin is handed more": Future(
        "http.client",
        "",
        [
            ("def begin(self)", "def begin(self, *, most_headers=None)"),
            ("response.begin()", "response.begin(most_headers=9)"),
        ],
        reason="",
    ),
    "the answer's file has another name": Future(
        "http.client", "fp", [(".fp", ".file")], reason="answer_failed"
    ),
}


SCRIPT = """
    import json, sys
    from in_client import wait_for_fin, warnings_logged

    directory, module = sys.argv[1:]
    sys.path.insert(0, directory)
    records = warnings_logged()
    import stalepool, urllib3
    assert sys.modules[module].__file__.startswith(directory)
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
        package, _, module = future.module.partition(".")
        original = Path(str(importlib.import_module(package).__file__)).parent
        path = Path(shutil.copytree(original, tmp_path / package)) / (module + ".py")
        source = path.read_text(encoding="utf-8")
        for old, new in future.changes:
            assert old in source, old
            source = source.replace(old, new)
        path.write_text(source + "\n" + textwrap.dedent(future.added), encoding="utf-8")
        environ = {**WITH_TESTS, "STALEPOOL_ENABLED": enabled}
        return run_python(SCRIPT, tmp_path, future.module, env=environ)

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
