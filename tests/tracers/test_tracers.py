"""Tools that wrap what is around our patches: both are called, in every order of imports.

Each case is a process of its own (:mod:`tracers.case`), and skips where its tool is not installed;
``tox -e tracers`` has them all.
"""

from importlib.metadata import PackageNotFoundError, version

import pytest

from stalepool_testing import TLS, Close, FaultServer, Respond
from tracers import case
from tracers.tools import TOOLS


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("order", case.ORDERS)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_and_the_shim_do_not_disturb_each_other(tool, order, scheme, call_python):
    try:
        for distribution in TOOLS[tool].distributions:
            version(distribution)
    except PackageNotFoundError as missing:
        pytest.skip("needs %s, as in tox -e tracers" % missing.args[0])
    closed, tls = [], TLS()

    def script(request):
        """Closes as the first request for ``/ROUND/dies`` or ``/ROUND/dies-too`` arrives."""
        if "/dies" in request.path and request.path not in closed:
            closed.append(request.path)
            return Close()
        return Respond(body=b"answer")

    with FaultServer(script, tls=tls if scheme == "https" else None) as server:
        words = tool, order, "%s://127.0.0.1:%d" % (scheme, server.port), tls.ca_path
        said = call_python(case.main, *words, flags=["-Wdefault"], complains=True)
        journal = list(server.journal)

    def connections(path):
        return [entry.connection for entry in journal if entry.path == path]

    assert said["wrong"] == [[], {}, []]  # they wrap what is above and below what we patch
    stock = said["stock"]
    assert all(stock[path][0] == 200 for path in ("first", "kept", "before"))
    for name in ("shim", "stock", "again"):
        assert connections("/%s/first" % name) == connections("/%s/kept" % name), name
        assert len(connections("/%s/dies-too" % name)) == 1, name
    # without the shim the fault is the caller's
    assert len(connections("/stock/dies")) == 1
    assert any(name == "http.client.RemoteDisconnected" for name, *_ in stock["dies"][0])
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
