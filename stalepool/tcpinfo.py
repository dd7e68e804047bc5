"""What the kernel counts for a TCP connection: ``TCP_INFO``, a piece at a time.

The fields are those of ``struct tcp_info`` in linux/tcp.h, by their offsets, which never change; an
older kernel gives a shorter structure, and other systems none that would be like it. Every function
returns None then. One look takes about 1 us and never blocks.
"""

from __future__ import annotations

import _socket
import struct
from typing import Any, NamedTuple, Optional, Tuple

from stalepool.wire import Wire

_TCP_INFO = getattr(_socket, "TCP_INFO", None)
_TCP_CLOSE = 7  # linux/tcp_states.h

_SILENCE = struct.Struct("=3xB48xII")  # tcpi_probes at 3, the two times at 52 and 56
_BYTES = struct.Struct("=B119xQQ")  # tcpi_state, tcpi_bytes_acked at 120, _received at 128
_MIN_RTT = struct.Struct("=148xI")  # tcpi_min_rtt in microseconds
_SEND_WINDOW = struct.Struct("=228xI")  # tcpi_snd_wnd


class Silence(NamedTuple):
    """What tells about an idle connection."""

    unanswered_probes: int
    last_data_recv_ms: int  # since the last byte of data came in
    last_ack_recv_ms: int  # since the last segment came in, a FIN among them


class Carried(NamedTuple):
    """What a connection has carried."""

    is_closed: bool  # TCP_CLOSE: neither side holds it any more
    acked: int  # of ours, by the peer's kernel
    received: int  # a FIN counts as one, a RST as none


def silence(wire: Wire) -> Optional[Silence]:
    found = _ask(wire, _SILENCE)
    return None if found is None else Silence(*found)


def carried(wire: Wire) -> Optional[Carried]:
    """Linux 4.1 and later."""
    found = _ask(wire, _BYTES)
    if found is None:
        return None
    state, acked, received = found
    return Carried(state == _TCP_CLOSE, acked, received)


def min_rtt_s(wire: Wire) -> Optional[float]:
    """The shortest round trip there has been, in seconds (Linux 4.6 and later).

    Not ``tcpi_rtt``: that counts in the peer's delayed acknowledgements, and was 22 ms on loopback
    where the answers took 20.
    """
    found = _ask(wire, _MIN_RTT)
    return None if found is None else found[0] / 1e6


def send_window(wire: Wire) -> Optional[int]:
    """Bytes the peer's kernel takes before its program reads (Linux 5.4 and later)."""
    found = _ask(wire, _SEND_WINDOW)
    return None if found is None else found[0]


def _ask(wire: Wire, fields: struct.Struct) -> Optional[Tuple[Any, ...]]:
    if _TCP_INFO is None or not wire.is_tcp:
        return None
    try:
        answer = wire.raw.getsockopt(_socket.IPPROTO_TCP, _TCP_INFO, fields.size)
    except OSError:
        return None
    return None if len(answer) < fields.size else fields.unpack(answer)
