"""The checks of a healthy pooled connection; each function in a process of its own."""

from __future__ import annotations

import select
from typing import Any, Callable, Dict

from bench import kernel_poll
from bench import server as servers
from bench.crowds import GreenCrowd, NativeCrowd
from bench.rounds import Contest, Contestant, Samples, by_name
from bench.server import At

#: after a lap of the crowd, so short that what the crowd did to the caches shows
_CROWD_SLICE_S = 0.0001


def alone(at: At, rounds: int) -> Samples:
    """Nothing else goes on in the process."""
    samples = Contest(_the_three(at)).rounds(rounds)
    _assert_all_healthy()
    return samples


def alone_green(at: At, rounds: int) -> Dict[str, Any]:
    """The same under eventlet, and how often one check switches green threads."""
    contestants = _the_three(at)
    samples = Contest(contestants).rounds(rounds)
    _assert_all_healthy()
    return {"samples": samples, "switches": _switches(contestants)}


def in_green_crowd(at: At, rounds: int, size: int, work_s: float) -> Dict[str, Any]:
    """Among runnable green threads: alone and in the crowd by turns."""
    crowd = GreenCrowd(size, work_s)
    contestants = {
        name: contestant._replace(prepare=crowd.lap) for name, contestant in _the_three(at).items()
    }
    alone = Contest({"alone": contestants["ours"]}, _CROWD_SLICE_S)
    with crowd:
        crowded = Contest(contestants, _CROWD_SLICE_S)

    def round_() -> Dict[str, float]:
        idle = alone.round()
        with crowd:
            return {**idle, **crowded.round()}

    round_()
    samples = by_name(round_() for _ in range(rounds))
    _assert_all_healthy()
    with crowd:
        switches = _switches(contestants)
    return {"samples": samples, "switches": switches}


def in_native_crowd(at: At, rounds: int, size: int, limit_s: float) -> Samples:
    """Among native threads that compute.

    A slice is short, so that most of them keep the interpreter throughout: what is compared is the
    usual check. The others last until each thread has had it for 5 ms.
    """
    contestants = _the_three(at)
    with NativeCrowd(size):
        samples = Contest(contestants, times=10).rounds(rounds, limit_s)
    _assert_all_healthy()
    return samples


def presend(at: At, rounds: int) -> Samples:
    """A checkout and a send that sends nothing, with the pre-send check and without.

    One connection that was used; urllib3's own ``send`` is hollowed out once it is, so that what
    is left is ours.
    """
    import urllib3.connectionpool

    connectionpool: Any = urllib3.connectionpool
    stock_send, is_hollow = connectionpool.HTTPConnection.send, False

    def send(self: Any, data: Any) -> None:
        if not is_hollow:
            stock_send(self, data)

    connectionpool.HTTPConnection.send = send  # before it is patched
    import stalepool

    connection = _used_connection(at)
    is_hollow = True
    check = connectionpool.is_connection_dropped

    def request(data: bytes) -> None:
        check(connection)
        connection.send(data)

    def switched(to: bool) -> Callable[[], None]:
        def switch() -> None:
            stalepool.install(presend_check=to)
            # the first check after other settings is a full one, and the second one fast again
            assert not check(connection) and not check(connection)

        return switch

    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\r\n"
    contestants = {
        "floor": Contestant(kept_poll(connection.sock), 0),
        "on": Contestant(request, head, switched(True)),
        "off": Contestant(request, head, switched(False)),
    }
    return Contest(contestants).rounds(rounds)


def _the_three(at: At) -> Dict[str, Contestant]:
    """The floor, stock's check and ours, of the same pooled connection to the server at ``at``."""
    import urllib3.connectionpool

    import stalepool  # noqa: F401  # installs itself

    connection = _used_connection(at)
    connectionpool: Any = urllib3.connectionpool
    ours = connectionpool.is_connection_dropped
    return {
        "floor": Contestant(kept_poll(connection.sock), 0),
        "stock": Contestant(ours.__wrapped__, connection),
        "ours": Contestant(ours, connection),
    }


def _used_connection(at: At) -> Any:
    """A connection that has answered a request, as it lies in a pool: TLS's tickets are read."""
    pool = servers.pool(at)
    assert pool.request("GET", "/").status == 200
    return pool.pool.get()


def kept_poll(sock: Any) -> Callable[[int], Any]:
    """Return the floor: the bound ``poll`` of a poll object that watches this socket."""
    kept = kernel_poll()
    kept.register(sock.fileno(), select.POLLIN)
    return kept.poll


def _assert_all_healthy() -> None:
    """Every check went our way and found a healthy connection: nothing was left to urllib3."""
    import stalepool

    seen = stalepool.snapshot()
    assert set(seen["totals"]["verdicts"]) == {"alive"}, seen
    assert set(seen["fallbacks"]) <= {"requests_unseen"}, seen  # checked out, and nothing sent


def _switches(contestants: Dict[str, Contestant]) -> Dict[str, float]:
    """Switches of green threads in one check, stock's and ours."""
    return {name: _switches_in(*contestants[name][:2]) for name in ("stock", "ours")}


def _switches_in(check: Callable[[Any], Any], connection: Any, times: int = 10) -> float:
    import greenlet

    switches = 0

    def count(event: str, args: object) -> None:
        nonlocal switches
        switches += 1

    greenlet.settrace(count)
    try:
        for _ in range(times):
            check(connection)
    finally:
        greenlet.settrace(None)
    return switches / times
