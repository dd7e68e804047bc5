"""Each fault with each method, and on each layer: is the request saved? If not, is it as in stock?

With ``--full`` every combination is held against what stock does.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

import oracle

#: in a green world a second time, with ``--full``
NOT_GREEN = ("TLSv1.2", "proxy", "TLS to haproxy")


def marked(world, layer):
    marks = [pytest.mark.haproxy] * (layer in oracle.FRONTED)
    marks += [pytest.mark.full] * (world == "eventlet" and layer in NOT_GREEN)
    return pytest.param(world, layer, marks=marks)


@pytest.mark.timeout(600)  # with --full it takes minutes
@pytest.mark.parametrize(
    ("world", "layer"),
    [marked(world, layer) for world in ("threads", "eventlet") for layer in oracle.LAYERS],
)
def test_what_becomes_of_a_request_that_meets_a_fault(call_python, request, world, layer):
    is_full = request.config.getoption("--full")
    haproxy = request.getfixturevalue("haproxy_binary") if layer in oracle.FRONTED else ""

    def run(enabled):
        environ = {"STALEPOOL_ENABLED": enabled}
        # before Python 3.12 a tunnel whose handshake was reset is the collector's, in stock too
        flags = ["-Wignore::ResourceWarning"] if layer == "tunnel" else []
        words = layer, is_full, haproxy
        return call_python(oracle.run, *words, world=world, env=environ, flags=flags)

    with ThreadPoolExecutor() as executor:
        (shim, fallbacks), *stock = executor.map(run, ("1", "0") if is_full else ("1",))
    assert (oracle.wrong(shim, layer, is_full), fallbacks) == ({}, {})
    if is_full:
        assert oracle.deviations(stock[0][0], shim, layer) == []
