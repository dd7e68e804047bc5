"""The wait on silence: no byte of an answer has come, so the kernel is asked about the peer.

A peer is *suspect* by what TCP_INFO says after the first wait. What it takes to call it dead:
docs/replay.rst.
"""

from __future__ import annotations

from typing import Any, Optional

from stalepool import fallback
from stalepool.clock import monotonic, shorter
from stalepool.connection.replay import REPLAY_S, Replay
from stalepool.connection.request_rules import REPLAY_RULES, SAFE, first_refusal, has_a_key
from stalepool.connection.state import NOTHING_LEFT_S, Request
from stalepool.settings import DEAD_PROBES
from stalepool.sockets import keepalive, tcp_info
from stalepool.sockets.layers import layers_of
from stalepool.sockets.tcp_info import TcpInfo

CONFIRM_S = 2.2  #: time for two probes, a second apart, and a margin
LOOK_EVERY_S = 0.5
LOOK_AGAIN_S = 0.15  #: or two round trips: in that time the answer to a probe comes
SUSPECT_RETRANSMISSIONS, SUSPECT_PROBES = 4, 1  #: what makes a silent peer suspect
SHORTEST_WAIT_S = 0.5  #: a request whose first wait would be shorter than this is not watched
OFF_ROUND_S = 0.3  #: off the first wait, or it looks like a caller's deadline of ``silence_s``
#: what is left before T/2 after the first wait, in which the old socket's next probe has to go out
RESERVE_S = 3.5
PROBE_EVERY_S = 1  #: on the fresh socket


def first_wait_s(request: Request, first_byte_at: float) -> Optional[float]:
    """Return the seconds of the first wait; None for a request that is not watched.

    ``min(silence_s, T/2 - 3.5)``, with the caller's own timeout T, less :data:`OFF_ROUND_S`. Only
    requests that are safe or have an idempotency key are watched: the peer of another may be alive,
    and act on it after the caller's next request.
    """
    if not request.is_reused or request.is_replayed or not request.is_recorded:
        return None
    settings = request.settings
    wait_s, is_off = settings.silence_s, settings.is_audit or settings.replay == "off"
    if wait_s is None or is_off or not (request.method in SAFE or has_a_key(request)):
        return None
    if request.timeout_s is not None:
        wait_s = min(wait_s, request.timeout_s / 2 - RESERVE_S)
    stands_still = request.sent_at == first_byte_at  # as libfaketime has it: no wait would be over
    return wait_s - OFF_ROUND_S if wait_s >= SHORTEST_WAIT_S and not stands_still else None


class Watch:
    """A request's wait for the first byte of its answer, after the first wait.

    ==========  ===========================  ===================================================
    phase       told by                      what ends it
    ==========  ===========================  ===================================================
    waiting     ``replay.sock`` is None      the peer is suspect: a socket is opened beside it
    probing     it is open                   ``_dead_at`` probes of the old one are unanswered
    confirming  ``_is_confirming``           they still are, and that of the fresh one is answered
    sent        ``replay.is_under_way``      an answer on either socket
    ==========  ===========================  ===================================================

    A request that was not acknowledged is sent as soon as there is a socket beside. Where the peer
    is suspect no more, that is closed, and the request is waiting again. After T/2 no connection is
    given up, so that a replay has as much time as the first sending had.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.replay = Replay(request)
        self.sock: Any = request.state.sock()  # another thread may close the connection meanwhile
        self.knowledge = request.state.origin.knowledge
        self.wait_s = request.wait_s or 0.0
        half_s = float("inf") if request.timeout_s is None else request.timeout_s / 2
        self.give_up_before = request.sent_at + half_s
        #: seconds until the kernel is asked again; None: it is not
        self.pause_s: Optional[float] = None
        #: of the socket beside: when its probes began, and by how many of the old one that is dead
        self._probed_since, self._dead_at, self._is_confirming = 0.0, DEAD_PROBES, False

    def look(self) -> Any:
        """Look about after a pause in which nothing came. Yields while a socket is opened.

        :returns: the file object of the socket beside, once that is answered; None: keep waiting on
            the old one, for :attr:`pause_s`.
        :raises: the caller's deadline.
        """
        if not self.replay.is_under_way and self.finds_the_peer_dead():
            self.replay.send()
        if not self.replay.is_under_way:
            return None
        self.pause_s = NOTHING_LEFT_S  # the fresh one is the likelier to be answered
        return self.replay.answer_beside(shorter(LOOK_EVERY_S, self.request.left_s))

    @fallback.guarded("answer_failed", default=False)
    def finds_the_peer_dead(self) -> bool:
        """Ask the kernel for the next phase; True once the peer is dead, and the path lives."""
        info = self._suspicion()
        if info is not None and self.replay.sock is None:
            info = self._open()
            if info is not None and not info.unacked:
                # the path may have been away until now: one more probe of the old one has to go out
                self._dead_at, self._is_confirming = max(DEAD_PROBES, info.probes + 1), False
                self._probed_since, self.pause_s = monotonic(), CONFIRM_S
                keepalive.probe_every(layers_of(self.replay.sock), PROBE_EVERY_S)
        if info is None:
            self.replay.close()
            return False
        if info.unacked:
            return True
        if info.probes < self._dead_at:
            return False
        if not self._is_confirming:  # the answer to the last probe may be on its way
            self._is_confirming, self.pause_s = True, max(LOOK_AGAIN_S, 2 * info.rtt_us / 1e6)
            return False
        return self._fresh_one_is_answered()

    def _suspicion(self) -> Optional[TcpInfo]:
        """Return the kernel's data if they make the peer suspect; set the pause before the next."""
        request, self.pause_s = self.request, None
        is_late = monotonic() + 0.2 >= self.give_up_before  # no time to connect is left
        if is_late or not request.is_followed or first_refusal(REPLAY_RULES, request):
            return None
        layers = layers_of(self.sock)
        info = tcp_info.ask(layers)
        if layers is None or layers.has_receive_timeout or info is None:
            return None
        # not whole: a kernel before 5.4, which does not tell if data is unsent or the window closed
        if not info.is_whole or (not info.unacked and self.knowledge.swallows_probes):
            return None
        # since the latest of these: the send, the last ACK, the last data
        silent_s = min(monotonic() - request.sent_at, info.silent_ms / 1000)
        if silent_s < self.wait_s:
            self.pause_s = self.wait_s - silent_s + 0.02
            return None
        if info.unacked:
            is_suspect = info.retransmits >= SUSPECT_RETRANSMISSIONS
        else:
            is_suspect = info.probes >= SUSPECT_PROBES
        if is_suspect and info.snd_wnd and not info.notsent:
            self.pause_s = LOOK_EVERY_S
            return info
        # longer and longer where nothing can be learnt, as without probes
        self.pause_s = max(LOOK_EVERY_S, silent_s / 20)
        return None

    def _open(self) -> Optional[TcpInfo]:
        """Open a socket beside the old one. Returns the suspicion, None if that is over."""
        limit_s = max(0.1, min(REPLAY_S, self.give_up_before - monotonic()))
        # meanwhile the path may have healed, and the old one's answer to a probe have come
        return self._suspicion() if self.replay.open_beside(limit_s) else None

    def _fresh_one_is_answered(self) -> bool:
        """Tell whether the fresh socket's probe was answered; then another socket takes its place.

        After a probe, under TCP_DEFER_ACCEPT, its peer's kernel would accept the first data 29 s
        late (measured).
        """
        probed_for_s = monotonic() - self._probed_since
        fresh = tcp_info.ask(layers_of(self.replay.sock))
        self.replay.close()
        if fresh is None:
            return False
        # the first probe goes out after 1 s: an earlier ACK is the handshake's
        if fresh.last_ack_recv_ms < 1000 * probed_for_s - 800 * PROBE_EVERY_S:
            self.knowledge.note_probe_answered()
            if fresh.probes < 2 and self._open() is not None:
                return True
            self.replay.close()  # the path is away again, or has healed
            return False
        if not self.knowledge.answers_probes:  # else the path may be away again
            self.request.state.note_probes_swallowed(self.request.settings)
        self.pause_s = None
        return False
