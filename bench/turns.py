"""Stock urllib3 and stalepool measured in turns, each in a process of its own.

Two processes differ for good by how their memory happens to lie (which names share a place in
CPython's cache of attributes alone is worth 1 to 2 %), so a pair is one sample: its turns' medians.
"""

from __future__ import annotations

import contextlib
import gc
import select
import statistics
import sys
import time
from itertools import cycle
from timeit import Timer
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import greenlet

from bench import EVENTLET, THREADS, kernel_poll, processes
from bench.processes import At, Child, manager, server

Samples = Dict[str, List[float]]


class Work(NamedTuple):
    """``function(argument)`` is timed, does so many pieces of work; ``prepare()`` comes before."""

    function: Callable[[Any], Any]
    argument: Any
    sock: Any
    prepare: Callable[[], object] = lambda: None
    pieces: int = 1


def kept_poll(sock: Any) -> Work:
    """The floor: a bare ``poll(0)`` of a poll object that watches this socket."""
    kept = kernel_poll()
    kept.register(sock.fileno(), select.POLLIN)
    return Work(kept.poll, 0, sock)


def check(at: At, plan: Plan, settings: Any) -> Work:
    """The check at checkout of a healthy connection that has answered a request."""
    connectionpool, connection = _with(settings), _used_connection(at)

    def all_were_healthy() -> None:
        """And went our way: nothing was left to urllib3."""
        seen = sys.modules["stalepool"].snapshot()
        assert set(seen["totals"]["verdicts"]) <= {"alive"}, seen
        assert set(seen["fallbacks"]) <= {"requests_unseen"}, seen  # nothing was sent

    prepare = (lambda: None) if settings is None else all_were_healthy
    return Work(connectionpool.is_connection_dropped, connection, connection.sock, prepare)


def presend(at: At, plan: Plan, settings: Any) -> Work:
    """A checkout and a send that sends nothing: urllib3's own is hollowed out after the first."""
    import urllib3.connection

    stock_send, is_hollow = urllib3.connection.HTTPConnection.send, False

    def send(self: Any, data: Any) -> None:
        if not is_hollow:
            stock_send(self, data)

    urllib3.connection.HTTPConnection.send = send  # type: ignore  # before it is patched
    check_ = _with(settings).is_connection_dropped
    connection = _used_connection(at)
    is_hollow = True

    def request(head: bytes) -> None:
        check_(connection)
        connection.send(head)

    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\r\n"
    return Work(request, head, connection.sock)


def request(at: At, plan: Plan, settings: Any) -> Work:
    """Whole requests: one, or those of all clients of a turn, each in a green thread."""
    _with(settings)
    body, idle_since, pipe = b"x" * plan.body_size or None, 0.0, processes.pipe
    managers = cycle([manager(at, plan.clients) for _ in range(plan.times if plan.idle_s else 1)])
    url = at[0] + "v2.0/ports"

    def send(times: int) -> None:
        for _ in range(times):
            reply = next(managers).request(plan.method, url, body=body, retries=False)
            assert reply.status == 200

    def all_at_once(times: int) -> None:
        spawn = sys.modules["eventlet"].spawn
        for client in [spawn(send, times) for _ in range(plan.clients)]:
            client.wait()

    def be_idle() -> None:
        nonlocal idle_since
        time.sleep(max(0.0, idle_since + plan.idle_s - time.monotonic()))
        idle_since = time.monotonic()

    if plan.clients == 1:
        return Work(send, 1, pipe, be_idle)
    return Work(all_at_once, plan.times, pipe, pieces=plan.times * plan.clients)


def _with(settings: Any) -> Any:
    """Import urllib3's pool, with stalepool in it unless the settings are None."""
    if settings is not None:
        import stalepool

        stalepool.install(**settings)
    import urllib3.connectionpool

    return urllib3.connectionpool


def _used_connection(at: At) -> Any:
    """A connection that has answered a request, as it lies in a pool: TLS's tickets are read."""
    used = manager(at).connection_from_url(at[0])
    assert used.request("GET", "/").status == 200
    return used.pool.get()


@contextlib.contextmanager
def crowd(size: int, work_s: float) -> Iterator[None]:
    """Green threads that work for ``work_s`` each in their turn, and want more."""
    is_over = False

    def live() -> None:
        while not is_over:
            end = time.perf_counter() + work_s
            while time.perf_counter() < end:
                pass
            lap()

    for _ in range(size):
        sys.modules["eventlet"].spawn(live)
    lap()
    yield
    is_over = True  # not by kill(), which takes a lap for each of them
    lap()


def lap() -> None:
    """Let each green thread have its turn."""
    sys.modules["eventlet"].sleep(0)


class Plan(NamedTuple):
    """What is done, and how often: turns are short, so that what is slow slows both."""

    work: Callable[..., Work] = request  # a function of those above
    method: str = "GET"
    body_size: int = 0
    tls: bool = False
    world: str = THREADS
    clients: int = 1  # they send over one urllib3 pool
    crowd: int = 0  # green threads that run beside it
    work_s: float = 0.001  # how long each of them works in its turn
    times: int = 50  # of each client in a turn; 0: as many as take a millisecond
    slices: int = 1  # of a turn; its cost is their median
    idle_s: float = 0.0  # each request on a connection of its own that has been idle for so long
    #: what it costs: the process's CPU time, or the time that passes
    clock: Callable[[], float] = time.process_time
    pairs: int = 20  # of processes
    turns: int = 20  # of each half
    #: what ours is compared to: stalepool with these settings; None: stock
    other: Optional[Dict[str, Any]] = None


def compare(plan: Plan, quick: bool) -> Samples:
    """Seconds of both halves and of a floor, and their ratios; a sample for each pair."""
    if quick:
        plan = plan._replace(pairs=plan.pairs // 10 or 1, turns=max(2, plan.turns // 6))
    return by_name([_compare_pair(plan, pair) for pair in range(plan.pairs)])


def _compare_pair(plan: Plan, pair: int) -> Dict[str, float]:
    with server(tls=plan.tls, spins=plan.work is request) as at, contextlib.ExitStack() as stack:
        halves = [
            stack.enter_context(Child(_half, plan.world, pair, at=at, plan=plan, settings=settings))
            for settings in (plan.other, {})
        ]
        turns = []
        for number in range(plan.turns + 1):  # in another order each time; the first one warms up
            order = halves[:: 1 if (pair + number) % 2 else -1]
            said = {half: half.read(asks=True) for half in order}
            stock, turn = said[halves[0]]["ours"], said[halves[1]]
            ours, floor = turn["ours"], turn["floor"]
            turn["stock"], turn["stock / ours"] = stock, stock / ours
            turn["ours / floor"] = ours / floor
            turn["(ours - stock) / floor"] = (ours - stock) / floor
            turn["ours / ours alone"] = ours / turn["ours alone"]
            turns.append(turn)
    return {name: statistics.median(samples) for name, samples in by_name(turns[1:]).items()}


def by_name(rounds: List[Dict[str, float]]) -> Samples:
    """Turn one dict a round into one list a name."""
    return {name: [one[name] for one in rounds] for name in rounds[0]}


def _half(at: At, plan: Plan, settings: Any) -> Callable[[], Dict[str, float]]:
    """In the child: a function that does a turn's work, and says what one piece of it cost."""
    work = plan.work(at, plan, settings)
    assert (settings is not None) == ("stalepool" in sys.modules)
    slice_s = 0.0001 if plan.crowd else 0.001  # so short that what a crowd does to caches shows
    cost = _timed(work, plan.clock, 1 if plan.clients > 1 else plan.times, slice_s)
    floor = _timed(kept_poll(work.sock), time.perf_counter, 0, slice_s)

    def median(timed: Callable[[], float]) -> float:
        samples = []
        for _ in range(plan.slices):
            if plan.world == EVENTLET:
                lap()
            samples.append(timed())
        return statistics.median(samples)

    def turn() -> Dict[str, float]:
        work.prepare()
        gc.collect()
        found = {"ours alone": median(cost) if plan.crowd else 1.0}
        with crowd(plan.crowd, plan.work_s) if plan.crowd else contextlib.nullcontext():
            found.update(ours=median(cost), floor=median(floor))
        events: List[Any] = []
        if plan.work is check:
            greenlet.settrace(lambda *event: events.append(event))
            work.function(work.argument)
            greenlet.settrace(None)
        return {**found, "hub switches": len(events)}

    return turn


def _timed(work: Work, clock: Any, times: int, slice_s: float) -> Callable[[], float]:
    """Return what times a slice: so many calls, or as many as take so long where ``times`` is 0."""
    names = {"given": (work.function, work.argument), "gc": gc}
    # one each, which compiles a loop: Python from 3.11 on specialises it for what it calls
    timer = Timer("function(argument)", "function, argument = given; gc.enable()", clock, names)
    if not times:
        by_chance, took_s = timer.autorange()
        times = max(1, int(slice_s * by_chance / took_s))
    return lambda: timer.timeit(times) / times / work.pieces
