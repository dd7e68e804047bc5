"""What comes back: whether a byte of the answer has arrived before the connection died.

A replay needs to know that as the HTTP layer saw it, and at the moment it happens: http.client
closes the socket before urllib3 sees the error. So the errors are marked where they are raised.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, Iterator, Optional, Tuple

from stalepool.evidence import Evidence

_MARK = "_stalepool_answer_began"


def mark(error: BaseException, answer_began: bool) -> None:
    """Note on an error whether a byte of an answer had arrived when it was raised."""
    setattr(error, _MARK, answer_began)


def began(errors: Tuple[BaseException, ...]) -> bool:
    """Whether an answer may have begun before a request failed; True where it is not known.

    :param errors: what urllib3 raised and what that was made from, see :func:`errors.chain`.
    """
    for error in errors:
        known: Optional[bool] = getattr(error, _MARK, None)
        if known is not None:
            return known
    # from a response of somebody else's class: http.client's word for an EOF before an answer
    return not any(type(error).__name__ == "RemoteDisconnected" for error in errors)


def make_response_class(stock: Any, connectionpool: Any) -> Any:
    """The class that takes the place of ``HTTPConnection.response_class``."""

    class WatchedResponse(stock):  # type: ignore[misc]
        __wrapped__ = stock
        _stalepool_evidence = None
        fp: Any

        def begin(self) -> None:
            peek = getattr(self.fp, "peek", None)
            if peek is None:  # not what http.client reads from: nobody can tell
                stock.begin(self)
                return
            answer_began = False
            try:
                # the read that readline() begins with; the status line then comes from the buffer
                if peek(1):
                    answer_began = True
                else:
                    # the EOF is not read once more: to pyOpenSSL that is another error
                    self.fp.close()
                    self.fp = io.BytesIO()
                stock.begin(self)
            except Exception as error:
                mark(error, answer_began)
                if not answer_began and self._stalepool_evidence is not None:
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
