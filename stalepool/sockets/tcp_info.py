"""The kernel's data on a TCP connection: ``TCP_INFO``. To ask takes 1 us and never blocks.

The fields are those of ``struct tcp_info`` in linux/tcp.h, by their offsets, which never change. An
older kernel returns a shorter structure, and other systems have another one or none.
"""

from __future__ import annotations

import _socket
import struct
from typing import NamedTuple, Optional

from stalepool.foreign import is_a_handlers
from stalepool.sockets.layers import Layers, RawSocket

_TCP_INFO = getattr(_socket, "TCP_INFO", None)

#: the fields of TcpInfo, at 0, 2, 3, 24, 44, 52, 56, 68, 120, 144, 200, 208 and 228
_FORMAT = struct.Struct("=BxBB20xI16xI4xII8xI48xQ16xI52xQQ12xI")
_IDLE_FIELDS_END = 60  # Linux 2.6 has these
ESTABLISHED = 1  # linux/tcp_states.h
_CLOSED_BY_US = frozenset((4, 5, 6, 9, 11))  # FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING


class TcpInfo(NamedTuple):
    """The state of a connection. Times are in ms since the event; ``rtt_us`` is smoothed, in us."""

    state: int
    retransmits: int  # of the oldest unacknowledged segment
    probes: int  # keepalive or window probes without an answer
    unacked: int  # segments
    last_data_sent_ms: int
    last_data_recv_ms: int
    last_ack_recv_ms: int  # since the last segment came in, a FIN among them
    rtt_us: int
    bytes_acked: int  # our SYN, and our FIN, count as one each
    notsent: int
    bytes_sent: int
    bytes_retrans: int
    snd_wnd: int
    is_whole: bool  # False: a kernel before 5.4, where only times, probes and state are usable

    @property
    def silent_ms(self) -> int:
        """Return the ms since the last sign of life: a segment with or without data."""
        return min(self.last_ack_recv_ms, self.last_data_recv_ms)

    def has_answered_a_probe(self, keepalive_idle_s: int) -> bool:
        """Tell whether the last ACK came so long after all data that it answered a probe."""
        last_data_ms = min(self.last_data_recv_ms, self.last_data_sent_ms)
        return last_data_ms - self.last_ack_recv_ms > 1000 * keepalive_idle_s - 200

    @property
    def missing(self) -> int:
        """Return the bytes sent and not acknowledged; -1: our FIN is acknowledged, too.

        With the bytes of TLS; 0 if not known. ``unacked`` is no help: a RST empties the queue.
        """
        return self.bytes_sent - self.bytes_retrans - (self.bytes_acked - 1) if self.is_whole else 0

    @property
    def was_closed_by_us(self) -> bool:
        """Tell whether our side sent a FIN, for example by ``shutdown()`` in another thread.

        The state is CLOSE once the peer has answered; then the count shows that our FIN was
        acknowledged (measured: right in nine cases of nine).
        """
        return self.missing < 0 or self.state in _CLOSED_BY_US


def ask(layers: Optional[Layers]) -> Optional[TcpInfo]:
    """Return the kernel's data; None for a socket that is not TCP, is closed, or is not known."""
    if layers is None or _TCP_INFO is None or not layers.is_tcp:
        return None
    try:
        answer = RawSocket.getsockopt(layers.raw, _socket.IPPROTO_TCP, _TCP_INFO, _FORMAT.size)
    except OSError as error:
        if is_a_handlers(error):
            raise
        return None
    if len(answer) < _IDLE_FIELDS_END:
        return None
    is_whole = len(answer) == _FORMAT.size
    return TcpInfo._make((*_FORMAT.unpack(answer.ljust(_FORMAT.size, b"\0")), is_whole))
