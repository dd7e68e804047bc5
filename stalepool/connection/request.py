"""The request in flight: the bytes that went out, and what has been done about it."""

from __future__ import annotations

import re
import weakref
from typing import Any, Optional

from stalepool import runtime
from stalepool.clock import monotonic
from stalepool.connection.state import CHECKED, SENDING, State
from stalepool.settings import Settings

#: bytes of a request, head included, that are recorded for a replay
RECORD_LIMIT = 1 << 20

NOTHING_LEFT_S = 0.001  #: what is left of a limit that has run out

_content_length = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*(\d+)[ \t]*\r\n", re.I).search


class Request:
    """A request from its first bytes on. To make one is a transition of its state."""

    #: the timeout on the socket as the wait began, or a send failed, in seconds
    limit_s: Optional[float] = None
    #: the first wait, after which the kernel is asked about a silent peer; None: it is not
    wait_s: Optional[float] = None
    is_replayed = False
    moved_for: Optional[str] = None
    first_error: Optional[BaseException] = None

    def __init__(self, state: State, conn: Any, data: Any, settings: Settings) -> None:
        """Begin with the first bytes that go out: http.client sends the head as one."""
        self.state = state
        #: those in force as the request began
        self.settings = settings
        self.conn = weakref.ref(conn)
        #: a pool has checked the connection out, and an answer has come on this socket
        self.is_reused = state.phase is CHECKED and state.answers > 0
        #: kept, since urllib3 2.x overwrites it with the read timeout while it waits
        self.connect_timeout = conn.timeout
        #: monotonic time of the first byte, and of the last once that is out
        self.sent_at = monotonic()
        #: every byte that went out is in the record
        self.is_recorded = type(data) is bytes and len(data) <= RECORD_LIMIT
        first: bytes = data if self.is_recorded else b""
        #: the bytes, as they went out; after more than RECORD_LIMIT only the head
        self.sent = [first]
        self.size = len(first)
        #: from the bytes: while a tunnel is opened, the connection has the last request's
        self.method = first.partition(b" ")[0]
        state.phase, state.request = SENDING, self  # once nothing can fail any more

    def record(self, data: Any) -> None:
        """Note more bytes that go out; a file or an iterable is consumed as it goes."""
        is_bytes = isinstance(data, (bytes, bytearray, memoryview))
        self.size += memoryview(data).nbytes if is_bytes else RECORD_LIMIT + 1
        if self.size <= RECORD_LIMIT:
            self.sent.append(bytes(data))
        else:
            self.stop_recording()

    def stop_recording(self) -> None:
        """Record no more, and keep only the head: it is too large, or will not be sent again."""
        self.is_recorded = False
        del self.sent[1:]

    def give_up(self) -> None:
        """It has failed for good, or cannot be followed: urllib3 reads any answer alone.

        The caller's exception may hold the request for long, so its record is dropped.
        """
        self.state.request = None
        self.sent, self.first_error = [b""], None

    @property
    def is_followed(self) -> bool:
        """Tell whether its settings are in force still, and nobody has closed its connection."""
        sock = self.state.sock()
        is_open = sock is not None and getattr(self.conn(), "sock", None) is sock
        return is_open and self.state.request is self and self.settings is runtime.current

    @property
    def left_s(self) -> Optional[float]:
        """Seconds that are left of the caller's limit, None without one; never below 1 ms.

        As a timeout of a socket, 0 would be non-blocking.
        """
        if self.limit_s is None:
            return None
        return max(NOTHING_LEFT_S, self.sent_at + self.limit_s - monotonic())

    @property
    def is_whole(self) -> bool:
        """Tell whether the recorded body is as long as its Content-Length says.

        urllib3 ignores EPIPE and ECONNRESET while it sends, even if the body raised them.
        """
        stated = _content_length(self.head + b"\r\n")
        body_size = self.size - len(self.head) - len(b"\r\n\r\n")
        return body_size == (int(stated[1]) if stated else 0)

    @property
    def head(self) -> bytes:
        """Request line and headers as they went out; empty where they were not seen."""
        return self.sent[0].partition(b"\r\n\r\n")[0]
