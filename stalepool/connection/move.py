"""A move: a request takes a fresh socket before a byte of it goes out; and what is learnt by it."""

from __future__ import annotations

from typing import Any, Optional

from stalepool import fallback, stats
from stalepool.clock import monotonic, number_of, shorter
from stalepool.connection.connect import pause
from stalepool.connection.fresh_socket import address_of, copies_of, open_like, take
from stalepool.connection.request_rules import IDEMPOTENT, has_a_key, is_a_success
from stalepool.connection.state import UPGRADED, Request, State
from stalepool.settings import AUTO
from stalepool.sockets import keepalive, tcp_info
from stalepool.sockets.layers import layers_of, timeout_of

#: the old connection is of no more use: it has ended, its peer is silent
ENDED, SILENT = "presend_check", "probe_unanswered"
#: it is likely to end now, by the setting, by what the server announced, by what was observed
SETTING, ANNOUNCED, OBSERVED = "idle_setting", "announced_limit", "observed_limit"
NEAR_A_LIMIT = (SETTING, ANNOUNCED, OBSERVED)
MOVE_REASONS = (ENDED, SILENT, *NEAR_A_LIMIT)

#: an idle limit is near in its last quarter, and at most for so many seconds: a client whose pauses
#: end in that time moves each POST, so it is no longer than the race needs
LONGEST_NEAR_S = 0.5
LONG_MOVE_S = 5.0  #: for each step (connect, tunnel, handshake): a SYN, two retransmissions
#: and where the old connection lives, in seconds and in round trips; the longer one counts
MOVE_S, MOVE_ROUND_TRIPS = 0.25, 8
PROBE_S = 0.03  #: for the answer to a probe, or two round trips: the kernel sends it at a tick
LATE_S = 1.0  #: a moved request that is answered later may have waited for a slot of the server


def reason_to_move(request: Request) -> Optional[str]:
    """Return why the connection is likely to end now; None: the request goes out on it.

    An idle limit counts only for requests that may not be repeated: the others may be replayed.
    """
    state, longest_s = request.state, request.settings.nonidempotent_max_idle_s
    if state.is_bound:
        return None
    if state.is_silent:
        return SILENT if monotonic() >= state.origin.knowledge.move_again_at else None
    if request.method in IDEMPOTENT:
        return None
    if longest_s == AUTO:
        reason = _limit_that_is_near(state)
    else:
        is_past_it = isinstance(longest_s, (int, float)) and _idle_s(state) >= longest_s
        reason = SETTING if is_past_it else None
    return None if reason is None or has_a_key(request) else reason


def _idle_s(state: State) -> float:
    return state.idle_s(tcp_info.ask(layers_of(state.sock())))


def _limit_that_is_near(state: State) -> Optional[str]:
    """Return which idle limit is near, or has not been over for long; None if none is."""
    knowledge = state.origin.knowledge
    announced_s, observed_s = state.idle_limit_s, knowledge.observed_idle_limit_s
    if announced_s is not None and announced_s <= knowledge.untrue_limit_s:
        announced_s = None
    if (announced_s is None and observed_s is None) or knowledge.moves_stopped_for_s:
        return None
    idle_s = _idle_s(state)
    if announced_s is not None and idle_s > announced_s:
        knowledge.note_outlived(announced_s)
    for reason, limit_s in ((ANNOUNCED, announced_s), (OBSERVED, observed_s)):
        if limit_s is not None:
            near_s = min(LONGEST_NEAR_S, limit_s / 4)
            if limit_s - near_s <= idle_s <= 1.25 * limit_s + near_s:
                return reason
    return None


def move(request: Request, reason: str) -> None:
    """Give a request a fresh socket before a byte of it goes out; on failure it keeps the old one.

    :param reason: its name in the counters; if the connection has ended, the host is looked up.
    """
    state, knowledge = request.state, request.state.origin.knowledge
    conn: Any = request.conn()
    own_limit_s, limit_s, began = timeout_of(conn.sock), _limit_s(conn, reason), monotonic()
    is_near_a_limit = reason in NEAR_A_LIMIT
    if is_near_a_limit:
        if reason != SETTING and knowledge.moves_stopped_for_s:
            return  # another request has begun to move meanwhile
        knowledge.stop_moves()  # until the answer shows that it did no harm
    elif reason == SILENT and _answers_a_probe(conn, limit_s, knowledge):
        return
    layers = layers_of(conn.sock) if reason == SILENT else None
    keepalive.switch(layers, False)
    fresh = open_like(conn, request, limit_s, None if reason == ENDED else address_of(conn))
    keepalive.switch(layers, True)  # after a deadline urllib3 closes it
    spent_s = monotonic() - began
    if fresh is None:
        # at most a tenth of the time is spent with moves that fail
        knowledge.move_again_at = monotonic() + 9 * spent_s
        state.origin.count("moved", "failed")
        return
    fresh.settimeout(own_limit_s)
    if not take(request, fresh):
        fresh.close()
        return
    state.replaced_silent = reason == SILENT
    request.moved_for, request.is_reused = reason, False
    request.may_resume_moves = is_near_a_limit and spent_s <= limit_s
    state.origin.count("moved", reason)
    if is_near_a_limit:
        knowledge.note_move()
    else:
        state.origin.kept_off.tick()
    fallback.log("move", "DEBUG", "%s: moved for: %s", state.origin.name, reason)


def note_answer(response: Any, request: Request) -> None:
    """Resume moves after a success; after a refusal, have urllib3 close the fresh connection.

    Its server may be bad, or not know the client.
    """
    state, waited_s = request.state, monotonic() - request.sent_at
    if is_a_success(response.status):
        if request.may_resume_moves and waited_s <= LATE_S:
            state.origin.knowledge.resume_moves()
    elif request.moved_for != ENDED and not state.is_bound and state.phase is not UPGRADED:
        response.will_close = True


@fallback.guarded("keepalive_failed", default=False)
def _answers_a_probe(conn: Any, limit_s: float, knowledge: stats.Knowledge) -> bool:
    """Probe a silent peer once more: the path may have been away, and be back. Yields.

    The kernel's own next probe may be some seconds away, and after an outage all connections of a
    pool would be left at once.
    """
    layers = layers_of(conn.sock)
    info = tcp_info.ask(layers)
    if layers is None or info is None:
        return False
    keepalive.probe_now(layers, info.probes)
    pause(copies_of(type(conn))[0], min(limit_s, max(PROBE_S, 2 * info.rtt_us / 1e6)))
    info = tcp_info.ask(layers)
    if info is None or info.probes or not info.has_answered_a_probe(keepalive_idle_s=1):
        return False  # data, such as a 408, answer no probe
    knowledge.note_probe_answered()
    return True


def _limit_s(conn: Any, reason: str) -> Any:
    """Return the seconds for each step; a move that fails uses up some of the request's time.

    So they are a share of the caller's connect timeout, unless the connection has ended.
    """
    limits = {ENDED: (LONG_MOVE_S, 1.0), SILENT: (LONG_MOVE_S, 0.25)}
    longest_s, share = limits.get(reason, (MOVE_S, 0.1))
    own_s, info = number_of(conn.timeout), tcp_info.ask(layers_of(conn.sock))
    limit_s = longest_s if own_s is None else min(longest_s, own_s * share)
    return shorter(own_s, max(limit_s, 0 if info is None else MOVE_ROUND_TRIPS * info.rtt_us / 1e6))
