"""A request's bytes go out: the pre-send check, which socket they ride, and their record.

Takes the place of ``HTTPConnection.send``, which carries every byte urllib3 sends.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from stalepool import fallback, runtime
from stalepool.connection import fresh_socket, replay, request_rules
from stalepool.connection import state as states
from stalepool.connection.state import CHECKED, SENDING, UPGRADED, WAITING, Request, State, find
from stalepool.sockets import liveness
from stalepool.sockets.failure import socket_errors
from stalepool.sockets.layers import layers_of
from stalepool.sockets.verdict import Action


def make_send(original: Callable[[Any], Callable[[Any], Any]], module: Any) -> Callable[..., Any]:
    """Return the function that takes urllib3's place; a plain one, every request pays for it.

    :param original: returns urllib3's own, bound to a connection.
    """

    def send(self: Any, data: Any) -> Any:
        installation = runtime.current
        if installation is None:
            return original(self)(data)
        is_open = self.sock is not None
        state = find(self.sock) if is_open else None
        if state is not None and state.phase is SENDING and state.request is not None:
            state.request.record(data)
        elif is_open:
            state = _prepare(self, state, data, installation)
        is_sent = False
        try:
            result = original(self)(data)  # connects first, where the connection is not open yet
            is_sent = True
        except socket_errors() as error:
            if state is None or not replay.after_failed_send(self, state, error, installation):
                raise
            is_sent = True
            return None
        finally:
            if not is_sent and state is not None:
                state.gives_up()
        if not is_open:
            _note_first(self, data)
        return result

    return send


@fallback.guarded("send_failed")
def _prepare(
    conn: Any, state: Optional[State], data: Any, installation: runtime.Installation
) -> Optional[State]:
    """See to it that a request rides a living socket, and record it; None: not looked after."""
    if state is None:
        if not states.is_http1(conn):
            return None
        state = State(conn, states.FRESH)
    phase, request = state.phase, state.request
    if phase is CHECKED:
        request = _begin(conn, state, data)
        # the pre-send check: move the request if its connection has ended, or may end now
        if installation.checks_before_send and state.poll is not None and state.poll.poll(0):
            reason = _reason_in_readable(conn, state, installation)
        elif state.move_for is None and (
            request.method in request_rules.IDEMPOTENT
            or (
                state.idle_limit_s is None and not installation.moves and not state.origin.has_limit
            )
        ):
            reason = None  # as reason_to_move() would find, at a tenth of the cost
        else:
            reason = request_rules.reason_to_move(installation.settings, state, request)
        if reason is not None:
            _move(conn, state, request, reason, installation)
    elif phase is WAITING and request is not None:
        request.is_half_sent = True  # a dialogue: the rest of the request after 100 Continue
    elif phase is UPGRADED:
        return None
    else:
        _begin(conn, state, data)
    return state


def _begin(conn: Any, state: State, data: Any) -> Request:
    request = state.request_begins(conn, data)
    if not request_rules.is_worth_a_record(request):
        request.keep_the_head_alone()
    return request


def _move(
    conn: Any, state: State, request: Request, reason: str, installation: runtime.Installation
) -> None:
    if installation.is_audit:
        state.origin.count("moved", reason)
    else:
        fresh_socket.move(conn, state, request, reason)


def _reason_in_readable(
    conn: Any, state: State, installation: runtime.Installation
) -> Optional[str]:
    """The connection became readable after its checkout: it has ended, or TLS talks to itself."""
    layers = layers_of(conn.sock)
    if layers is None or state.poll is None or state.is_bound:
        return None
    verdict = liveness.examine(layers, state.poll, may_consume=not installation.is_audit)
    return "presend_check" if verdict.action is Action.DISCARD else None


@fallback.guarded("send_failed")
def _note_first(conn: Any, data: Any) -> None:
    """Begin the state of a socket that was opened for these bytes, perhaps with a CONNECT."""
    if conn.sock is not None and states.is_http1(conn):
        _begin(conn, State(conn, states.FRESH), data)
