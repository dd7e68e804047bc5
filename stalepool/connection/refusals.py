"""Answers that may refuse one of two connections, and not the request that was sent on both."""

from __future__ import annotations

from stalepool.connection.request import Request
from stalepool.connection.request_rules import has_a_key

#: statuses that may say: one connection too many (RFC 6585, section 4)
TOO_MANY = frozenset((429, 503))
#: by which a server may refuse a second connection: the client's certificate is missing there, say
OF_A_SECOND = TOO_MANY | {401, 403, 413}
#: and one beside another: the request has come in pieces, too late, or to the wrong server
OF_ONE_BESIDE = OF_A_SECOND | {400, 408, 421}
CONFLICT = 409  # a request with the same idempotency key is in work


def may_refuse_the_old(request: Request, first: bytes) -> bool:
    """Tell whether an answer on the old connection may be due to the second sending.

    :param first: the answer's first bytes.
    """
    status = _status_of(first)
    return status in TOO_MANY or _is_in_work(request, status)


def may_refuse_the_fresh(request: Request, first: bytes) -> bool:
    """Tell whether an answer on the fresh one may be due to the second connection, or to its way.

    So may a gateway's 502. What is less than a status line may become any answer.
    """
    status = _status_of(first)
    is_of_the_request = 200 <= status < 500 and status not in OF_ONE_BESIDE
    return not is_of_the_request or _is_in_work(request, status)


def _is_in_work(request: Request, status: int) -> bool:
    return status == CONFLICT and has_a_key(request)


def _status_of(first: bytes) -> int:
    """Return the status of an answer by its first bytes, such as ``HTTP/1.1 503``; 0 without."""
    digits = first[9:12]
    return int(digits) if digits.isdigit() else 0
