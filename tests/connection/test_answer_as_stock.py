"""Where no request was saved, what the caller sees is what it sees without the shim.

Every fault that ``stalepool_testing`` can make, and some more: what was raised, with its arguments
and what it was made from, the state of the connection and of the pool, how often the server was
asked, and what came of the next request. See :mod:`support.oracle`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import pytest

import oracle
from worlds import WITH_TESTS

SCRIPT = "import sys; from support import oracle; oracle.main(*sys.argv[1:])"

#: faults that stock reports as an error, and the shim answers: the comparison compares something
ANSWERED = (
    "FIN on arrival, GET, reused",
    "RST on arrival, GET, reused",
    "FIN, acted on, PUT, reused",
    "RST, acted on, PUT, reused",
)


@pytest.mark.full
@pytest.mark.parametrize(
    ("world", "layer"),
    [
        ("threads", "plain"),
        ("threads", "TLSv1.2"),
        ("threads", "TLSv1.3"),
        ("threads", "tunnel"),
        ("eventlet", "plain"),
        ("eventlet", "TLSv1.3"),
    ],
)
def test_what_the_caller_sees_of_a_fault_is_what_stock_shows(
    run_python: Callable[..., Any], world: str, layer: str
) -> None:
    def run(enabled: str) -> Any:
        environ = {**WITH_TESTS, "STALEPOOL_ENABLED": enabled}
        # before Python 3.12 a tunnel whose handshake was reset is the collector's, in stock too
        flags = ["-Wignore::ResourceWarning"] if layer == "tunnel" else []
        return run_python(SCRIPT, world, layer, env=environ, flags=flags)

    with ThreadPoolExecutor() as executor:
        stock, shim = executor.map(run, ("0", "1"))

    assert oracle.deviations(stock, shim) == []
    assert not any(seen["saved"] for seen in stock.values())
    for cell in ANSWERED:
        assert "error" in stock[cell]["outcome"], (cell, stock[cell])
        assert shim[cell]["outcome"].get("status") == 200, (cell, shim[cell])
