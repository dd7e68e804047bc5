"""What comes back: whether a byte of the answer has arrived before the connection died.

A replay needs to know that as the HTTP layer saw it, and at the moment it happens: http.client
closes the socket before urllib3 sees the error. So the errors are marked where they are raised.
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Optional, Tuple

from stalepool.evidence import Evidence

_MARK = "_stalepool_unanswered"


def mark_unanswered(error: BaseException) -> None:
    """Note on an error that no byte of an answer had arrived when it was raised."""
    setattr(error, _MARK, True)


def began(errors: Tuple[BaseException, ...]) -> bool:
    """Whether an answer may have begun before a request failed; True where it is not known.

    :param errors: what urllib3 raised and what that was made from, see :func:`replay.chain`.
    """
    return not any(hasattr(error, _MARK) for error in errors)


def make_response_class(stock: Any, connectionpool: Any) -> Any:
    """The class that takes the place of ``HTTPConnection.response_class``."""

    class WatchedResponse(stock):  # type: ignore[misc]
        __wrapped__ = stock
        _stalepool_evidence = None

        def begin(self) -> None:
            is_unanswered = hasattr(self.fp, "peek")  # without, it is not known
            try:
                # the read that readline() begins with; the status line then comes from the buffer
                if is_unanswered and self.fp.peek(1):
                    is_unanswered = False
                stock.begin(self)
            except Exception as error:
                if is_unanswered:
                    mark_unanswered(error)
                    if self._stalepool_evidence is not None:
                        # now: http.client is about to close the socket
                        self._stalepool_evidence.gather()
                raise

    WatchedResponse.__name__ = stock.__name__
    WatchedResponse.__qualname__ = stock.__qualname__
    return WatchedResponse


@contextlib.contextmanager
def watched_for(evidence: Optional[Evidence], conn: Any) -> Iterator[None]:
    """Have the connection's responses tell the evidence, if there is to be any, when it ends."""
    if evidence is None:
        yield
        return
    before, present = conn.__dict__.get("response_class"), conn.response_class

    def make_response(*args: Any, **kwargs: Any) -> Any:
        response = present(*args, **kwargs)
        response._stalepool_evidence = evidence
        return response

    conn.response_class = make_response
    try:
        yield
    finally:
        if conn.__dict__.get("response_class") is make_response:  # else somebody's own is there now
            if before is None:
                del conn.response_class
            else:
                conn.response_class = before
