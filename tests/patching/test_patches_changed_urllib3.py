"""A urllib3 or a Python that has changed what the patches rely on: requests go as without the shim.

Each future is the real thing with one part renamed, gone, or taking something else: each patch is
missing in one, and in one nothing is that matters. A process with the shim does the same in it as
one without, and one warning says what was not found. ``test_patches`` has what else may be found.
"""

import importlib
import shutil
from pathlib import Path
from typing import NamedTuple, Sequence, Tuple

import pytest

from replay_tools import NO_ANSWER
from worlds import WITH_TESTS


class Future(NamedTuple):
    """What is changed, and what is said of it."""

    module: str
    said: str
    changes: Sequence[Tuple[str, str]] = ()  # what stands there, and what does then
    added: str = ""  # at the module's end
    reason: str = "patch_missing"  # of :data:`stalepool.fallback.REASONS`


NO_RESPONSE = "for name in 'HTTPResponse', 'BaseHTTPResponse': globals().pop(name, None)"
CHECK = """
_check = is_connection_dropped
def is_connection_dropped(conn, is_idle): return _check(conn)
"""
MAKE = """
from http.client import HTTPResponse as _Response
def _make(raw, debuglevel=0, method=None, url=None): return _Response(raw, debuglevel, method, url)
HTTPConnection.response_class = staticmethod(_make)
"""
SOCK = """
HTTPConnection.sock = property(
    lambda self: vars(self).get("socket"), lambda self, sock: vars(self).update(socket=sock)
)
"""

POOL, CONNECTION, HTTP = "urllib3.connectionpool", "urllib3.connection", "http.client"
FUTURES = {
    "the connection has another name": Future(
        POOL, "HTTPConnection.send: not there", [], "Other = HTTPConnection; del HTTPConnection"
    ),
    "the response has another name": Future(POOL, "stalepool_replayed: not there", [], NO_RESPONSE),
    "the check is handed more": Future(
        *(POOL, "is_connection_dropped: takes (conn, is_idle)"),
        *([("is_connection_dropped(conn)", "is_connection_dropped(conn, True)")], CHECK),
    ),
    "a new connection is handed more": Future(
        *(CONNECTION, "HTTPConnection._new_conn: takes (self, more)"),
        [("_new_conn(self)", "_new_conn(self, more=None)"), ("_new_conn()", "_new_conn(None)")],
    ),
    "send is handed more": Future(
        *(HTTP, "HTTPConnection.send: takes (self, data, is_last)"),
        [("send(self, data)", "send(self, data, is_last=False)"), ("send(msg)", "send(msg, True)")],
    ),
    "an answer is made of something else": Future(
        CONNECTION, "HTTPConnection.response_class: ", [], MAKE
    ),
    "the socket is computed": Future(CONNECTION, "HTTPConnection", [], SOCK, "unknown_connection"),
    "begin is handed more": Future(
        *(HTTP, ""),
        [("begin(self)", "begin(self, *, most=9)"), ("response.begin()", "response.begin(most=9)")],
        reason="",
    ),
    "the answer's file has another name": Future(
        HTTP, "fp", [(".fp", ".file")], reason="answer_failed"
    ),
}

SCRIPT = """
    import json, sys
    directory, module = sys.argv[1:]
    sys.path.insert(0, directory)
    from in_client import warnings_logged
    records = warnings_logged()
    import stalepool
    from pools import end_while_idle, serving
    from replay_tools import outcome
    from stalepool_testing import ProcessThenClose, Respond

    assert sys.modules[module].__file__.startswith(directory)
    with serving([Respond()] * 4 + [ProcessThenClose()], timeout=20.0) as (server, pool):
        answers = [outcome(pool, method) for method in ("GET", "POST", "GET")]
        end_while_idle(server, pool)
        answers += [outcome(pool, "GET") for _ in range(3)]  # the second one is not answered
        assert not server.errors
    seen = stalepool.snapshot()
    assert stalepool.uninstall() == []
    print(json.dumps([answers, [record.getMessage() for record in records], seen]))
"""


def road(name):
    return {(FUTURES[name].reason or "patch_missing", "not there" in FUTURES[name].said)}


@pytest.mark.each_value(by=road)
@pytest.mark.parametrize("name", FUTURES)
def test_requests_go_as_without_the_shim(name, tmp_path, run_python):
    future = FUTURES[name]
    package, _, module = future.module.partition(".")
    original = Path(importlib.import_module(package).__file__).parent
    path = Path(shutil.copytree(original, tmp_path / package)) / (module + ".py")
    source = path.read_text(encoding="utf-8")
    for old, new in future.changes:
        assert old in source, old
        source = source.replace(old, new)
    path.write_text(source + "\n" + future.added, encoding="utf-8")

    answers, said, seen = run_python(SCRIPT, tmp_path, future.module, env=WITH_TESTS)
    # stock loses the one whose connection ended, which may be saved
    lost = [*[200] * 4, NO_ANSWER, 200]
    assert answers == [200] * 6 or (future.reason and answers == lost)
    assert seen["installed"]
    if not future.reason:  # nothing that matters has changed
        assert (said, seen["fallbacks"]) == ([], {})
        return
    assert "(%s)" % future.reason in said[0] and future.said in said[0]
    for line in said[1:]:
        # once more at the first answer, for a service that logs only by then; and what follows
        assert ("is active" in line and future.said in line) or "(requests_unseen)" in line, said
    if future.reason == "patch_missing":
        assert seen["fallbacks"]["patch_missing"] == 1
        assert any(future.said in line for line in seen["unpatched"])
        # what is left of the patches works
        is_checked = "is_connection_dropped" not in future.said
        assert seen["totals"]["verdicts"].get("closed", 0) == is_checked
