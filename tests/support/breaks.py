"""The parts of the core that tests replace, by name: the one place that knows where they are."""

import contextlib
import sys
from time import monotonic

import pytest

#: what a test calls it -> where it is
PARTS = {
    "answer's note": "stalepool.stats.Knowledge.note_answered",
    "clock of the fast check": "stalepool.connection.checkout.monotonic",
    "clock of the log": "stalepool.fallback.monotonic",
    "clock of the states": "stalepool.connection.state.monotonic",
    "clock of what was learnt": "stalepool.stats.monotonic",
    "count of a death": "stalepool.stats.Origin.count_death",
    "count of an event": "stalepool.stats.Origin.count",
    "counters": "stalepool.stats.origin",
    "full check": "stalepool.connection.full_check._examine",
    "HTTP version": "stalepool.connection.full_check.is_http1",
    "keepalive": "stalepool.sockets.keepalive.apply_policy",
    "setting of keepalive": "stalepool.sockets.keepalive._set",
    "keepalive's options": "stalepool.sockets.keepalive._OPTIONS",
    "layers": "stalepool.connection.full_check.layers_of",
    "limit of a move": "stalepool.connection.move.MOVE_S",
    "limit of a move's connect": "stalepool.connection.move.LONG_MOVE_S",
    "limit of a replay's connect": "stalepool.connection.replay.REPLAY_S",
    "limit of a replay's send": "stalepool.connection.replay.SEND_S",
    "liveness": "stalepool.sockets.liveness.examine",
    "network namespace": "stalepool.connection.fresh_socket.is_in_this_namespace",
    "number of forks": "stalepool.runtime.fork_generation",
    "places of the status file": "stalepool.status_file.directories",
    "poll": "stalepool.sockets.unpatched.poll",
    "poller": "stalepool.sockets.liveness.poller",
    "reason to move": "stalepool.connection.send.reason_to_move",
    "register": "stalepool.patching.import_hook.register",
    "record of a request": "stalepool.connection.state.Request.record",
    "report of the check": "stalepool.connection.full_check._report",
    "signals": "stalepool.foreign._signal",
    "snapshot": "stalepool.status.snapshot",
    "sockets that were opened": "stalepool.connection.state._opened",
    "status file": "stalepool.status.write_due",
    "TCP_INFO": "stalepool.sockets.tcp_info.ask",
    "TCP_INFO's layout": "stalepool.sockets.tcp_info._TCP_INFO",
    "TCP_INFO's system call": "stalepool.sockets.tcp_info.RawSocket",
    "time limit": "stalepool.connection.answer.timeout_of",
    "unregister": "stalepool.patching.import_hook.unregister",
    "word that it is active": "stalepool.status._has_said",
}


def learnt_before(seconds):
    """What is learnt meanwhile was learnt so long ago."""
    return breaks("clock of what was learnt", by=lambda: monotonic() - seconds)


@contextlib.contextmanager
def stopped_clocks():
    """Every clock of the core stands still, as where libfaketime stops the system's."""
    ticks = sys.modules["stalepool.clock"].monotonic
    stopped_at = ticks()
    with pytest.MonkeyPatch.context() as patched:
        for name, module in list(sys.modules.items()):
            if name.startswith("stalepool.") and getattr(module, "monotonic", None) is ticks:
                patched.setattr(module, "monotonic", lambda: stopped_at)
        yield


def raises(*args, **kwargs):
    """What a broken part does."""
    raise RuntimeError("broken")


@contextlib.contextmanager
def breaks(part, by=raises):
    """Put something else in a part's place, by default what raises a ``RuntimeError``."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PARTS[part], by)
        yield
