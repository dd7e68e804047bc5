"""The full check at checkout: liveness, TCP_INFO, idle limits; keeps, discards, or defers.

Due at a connection's first checkout; when the fast check finds something; after every change of
the settings, and every fork; and after an idle time in which a keepalive probe may have gone
unanswered.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from stalepool import fallback, runtime, stats
from stalepool.clock import shorter
from stalepool.connection import state as states
from stalepool.connection.connect import arm
from stalepool.connection.origins import is_http1
from stalepool.connection.state import State
from stalepool.settings import Settings
from stalepool.sockets import keepalive, liveness, tcp_info
from stalepool.sockets.layers import Layers, layers_of
from stalepool.sockets.tcp_info import TcpInfo
from stalepool.sockets.verdict import DEATHS, Action, Verdict


def is_dropped(conn: Any, original: Callable[[Any], bool]) -> bool:
    """Decide as ``is_connection_dropped`` does: True discards the connection.

    Never yields or blocks, unless urllib3's own check is called, as always in audit mode. Then
    nothing is set on the socket, and no byte is read from it.
    """
    settings = runtime.current
    action = Action.DEFER if settings is None else _check(conn, settings)
    return bool(original(conn)) if action is Action.DEFER else action is Action.DISCARD


@fallback.guarded("check_failed", Action.DEFER)
def _check(conn: Any, settings: Settings) -> Action:
    if not is_http1(conn):
        fallback.fall_back("unknown_connection", type(conn))
        return Action.DEFER
    if conn.sock is None:
        return Action.DISCARD
    state = states.find(conn.sock) or State(conn, states.IDLE)  # pooled before the install
    if state.phase is states.UPGRADED:
        return Action.DEFER
    if state.phase is states.CHECKED:
        info = tcp_info.ask(layers_of(conn.sock))
        # data went out after the check, but not by send(); 50 ms: the kernel's clock is coarse
        if info is not None and info.last_data_sent_ms / 1000 < state.idle_s() - 0.05:
            fallback.fall_back("requests_unseen", type(conn))
    verdict = _examine(conn, state, settings)
    _report(conn, state, verdict, settings)
    action = Action.DEFER if settings.is_audit else verdict.action
    if action is Action.DISCARD:
        states.note_opened(conn.sock)  # it is closed now: who gets its number is this process's
    else:
        state.checked()
    return action


def _examine(conn: Any, state: State, settings: Settings) -> Verdict:
    """Return the verdict, and learn from what was found."""
    layers = layers_of(conn.sock)
    if layers is None:
        return Verdict.UNKNOWN
    if layers.raw.fileno() < 0:
        return Verdict.NO_SOCKET
    if states.is_of_another_process(layers.raw):
        # before anything is read: a read through TLS here would steal the parent's records
        return Verdict.FOREIGN_PROCESS
    poll = state.poll or liveness.poller(layers.raw)
    if poll is None:
        return Verdict.UNKNOWN
    verdict = liveness.examine(layers, poll, may_consume=not settings.is_audit)
    info = tcp_info.ask(layers)
    if verdict is Verdict.ALIVE:
        armed = keepalive.read(layers)
        verdict = _verdict_on_idleness(state, info, armed, settings)
        if verdict is Verdict.ALIVE and not settings.is_audit:
            if state.poll is None:  # the first one since the install
                arm(conn.sock, state.origin, settings)
                armed = keepalive.read(layers)
            # until a probe can be unanswered, or max_idle_s is reached
            probed_after_s = None if armed is None else armed.idle_s
            trusted_s = shorter(float("inf"), probed_after_s, settings.max_idle_s)
            state.trust(trusted_s, poll, layers.pending is not None)
    elif verdict in DEATHS:
        _note_death(state, verdict, layers, info)
    return verdict


def _verdict_on_idleness(
    state: State, info: Optional[TcpInfo], armed: Optional[keepalive.Keepalive], settings: Settings
) -> Verdict:
    """Judge a connection on which nothing has arrived, and learn from its probes."""
    idle_s, limit_s = state.idle_s(info), settings.max_idle_s
    knowledge = state.origin.knowledge
    if state.is_bound:
        return Verdict.ALIVE  # it carries an identity: kept while it is alive
    if limit_s is not None and idle_s >= limit_s:
        return Verdict.IDLE_TOO_LONG
    if info is None:
        return Verdict.ALIVE
    if armed is not None and info.has_answered_a_probe(armed.idle_s):
        knowledge.note_probe_answered()
        state.replaced_silent = False
    state.is_silent = False
    if armed is None or not _is_silent(info, armed.idle_s) or knowledge.swallows_probes:
        knowledge.note_alive(idle_s)
    elif state.replaced_silent and not knowledge.answers_probes and not settings.is_audit:
        state.note_probes_swallowed(settings)  # two in a row, and none was ever answered
    else:  # the peer is gone, or the path is away for a while, or probes are swallowed
        state.is_silent = True
        if state.replaced_silent:  # two in a row: are probes answered any more?
            knowledge.answers_probes = False
    return Verdict.ALIVE


def _is_silent(info: TcpInfo, keepalive_idle_s: int) -> bool:
    """Tell whether probes are unanswered; the answer to a single one may be on its way.

    It was in 0.6 % of checks at a round trip of 30 ms, and in 2.8 % at 150 ms; all were healthy.
    """
    is_overdue = info.silent_ms > 1000 * keepalive_idle_s + max(500, 2 * info.rtt_us / 1000)
    return info.probes > 1 or (info.probes == 1 and is_overdue)


@fallback.guarded("check_failed")
def _note_death(state: State, verdict: Verdict, layers: Layers, info: Optional[TcpInfo]) -> None:
    """Note how long a connection had been idle when it ended; of a FIN the kernel has the time."""
    idle_s = state.idle_s(info)
    if verdict is Verdict.CLOSED and info is not None:
        # the FIN is the last segment that came in, unless a probe has been answered since, which
        # nothing in TCP_INFO tells
        age_ms = info.last_data_recv_ms - info.last_ack_recv_ms
        if layers.version is not None:
            # the last data was the close_notify, unless the server left that out
            age_ms = max(age_ms, int(state.idle_s() * 1000) - info.last_data_recv_ms)
        idle_s = age_ms / 1000
    state.origin.count_death(idle_s)
    if verdict is Verdict.CLOSED and layers.is_tcp:  # all Unix sockets have one origin
        state.origin.knowledge.note_fin(idle_s)


@fallback.guarded("check_failed")
def _report(conn: Any, state: State, verdict: Verdict, settings: Settings) -> None:
    """Count the verdict, and log a discard at DEBUG."""
    origin = state.origin
    origin.count("verdicts", verdict.value)
    if verdict is Verdict.UNKNOWN:
        if settings.is_audit and layers_of(conn.sock) is not None:
            return  # a TLS record that only a read could identify: counted, and no fallback
        fallback.fall_back("unknown_connection", "%s with %s" % (type(conn), type(conn.sock)))
    elif verdict.value not in stats.NO_DISCARDS:
        if verdict.value in stats.LOOKED_ALIVE and not settings.is_audit:
            origin.kept_off.tick()
        action = "would discard" if settings.is_audit else "discards"
        told = (origin.name, action, verdict.value, state.idle_s())
        fallback.log("checkout", "DEBUG", "%s: %s, %s, %.3f s after its last answer", *told)
