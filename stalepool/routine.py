"""The short way for requests that need no decision: everything here is for speed.

Most requests are like the one before them on their connection: the same idempotent method, the
same timeouts, no body. Such a request costs one comparison, and is passed on by position: to go
through ``*args, **kwargs`` would cost four times as much as all the rest (measured, CPython 3.11).
So there is one function for each signature that ``HTTPConnectionPool._make_request`` has had; with
a urllib3 of another one, every request goes the long way, through :mod:`stalepool.request`.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, Optional

from stalepool import request, runtime
from stalepool.errors import being_handled
from stalepool.learn import SWITCHING_PROTOCOLS, hear
from stalepool.pooled import LOOK_DUE, QUIET, SENDING, Pooled
from stalepool.replay import is_plain
from stalepool.rescue import rescue_routine

MakeRequest = Callable[..., Any]


def make_make_request(stock: MakeRequest, connectionpool: Any) -> MakeRequest:
    """The function that takes the place of urllib3's; a plain one, since every request pays for it.

    :param stock: urllib3's own.
    :param connectionpool: the module it is from.
    """
    careful = request.make_make_request(stock, connectionpool)
    parameters = inspect.signature(stock).parameters
    make = _BY_PARAMETERS.get(tuple(parameters))
    if make is None:
        return careful
    return functools.wraps(stock)(make(stock, careful, parameters["timeout"].default))


def _as_before(conn: Any, method: str, timeout: Any, body: Any, headers: Any) -> Optional[Pooled]:
    """What is remembered of the connection, if the request is like the one before it there."""
    try:
        pooled: Pooled = conn._stalepool
        installation = runtime.current
        if (
            pooled.routine == (method, timeout._read, timeout.total)
            and body is None
            and pooled.sock is conn.sock
            and installation is not None
            and pooled.installation is installation
            # one that is lower than usual is for what may be replayed
            and (pooled.user_timeout_ms == installation.user_timeout_ms or is_plain(headers))
        ):
            pooled.outgoing = LOOK_DUE if installation.looks_twice else SENDING
            return pooled
    except AttributeError:  # a connection not known, or a timeout that is a bare number
        pass
    return None


def _as_1_26(stock: MakeRequest, careful: MakeRequest, default_timeout: Any) -> MakeRequest:
    def _make_request(
        self: Any,
        conn: Any,
        method: str,
        url: str,
        timeout: Any = default_timeout,
        chunked: bool = False,
        body: Any = None,
        headers: Any = None,
        **rest: Any,
    ) -> Any:
        pooled = None if rest else _as_before(conn, method, timeout, body, headers)
        if pooled is None:
            rest.update(timeout=timeout, chunked=chunked, body=body, headers=headers)
            return careful(self, conn, method, url, **rest)
        handled = being_handled()
        try:
            # spelt out: two stars here would cost what this function is there to save
            response = stock(self, conn, method, url, timeout, chunked, body=body, headers=headers)
        except Exception as error:
            rest.update(timeout=timeout, chunked=chunked, body=body, headers=headers)
            given = (self, conn, method, url, rest)
            response = rescue_routine(stock, given, pooled, handled, error)
            if response is None:
                raise
        pooled.outgoing = QUIET
        try:
            # of http.client: "in" would take twice as long as get() here
            is_told = response.headers.get("keep-alive") is not None
            if is_told or response.status == SWITCHING_PROTOCOLS:
                hear(conn, response)
        except AttributeError:  # a response of somebody else's class
            pass
        return response

    return _make_request


def _as_2(stock: MakeRequest, careful: MakeRequest, default_timeout: Any) -> MakeRequest:
    def _make_request(
        self: Any,
        conn: Any,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        retries: Any = None,
        timeout: Any = default_timeout,
        chunked: bool = False,
        response_conn: Any = None,
        preload_content: bool = True,
        decode_content: bool = True,
        enforce_content_length: bool = True,
    ) -> Any:
        pooled = _as_before(conn, method, timeout, body, headers)
        if pooled is None:
            return careful(
                *(self, conn, method, url, body, headers, retries, timeout, chunked),
                *(response_conn, preload_content, decode_content, enforce_content_length),
            )
        handled = being_handled()
        try:
            # spelt out: a star here would cost what this function is there to save
            response = stock(
                self,
                conn,
                method,
                url,
                body,
                headers,
                retries,
                timeout,
                chunked,
                response_conn,
                preload_content,
                decode_content,
                enforce_content_length,
            )
        except Exception as error:
            rest = (
                *(body, headers, retries, timeout, chunked, response_conn),
                *(preload_content, decode_content, enforce_content_length),
            )
            given = (self, conn, method, url, dict(zip(_NAMES_2, rest)))
            response = rescue_routine(stock, given, pooled, handled, error)
            if response is None:
                raise
        pooled.outgoing = QUIET
        try:
            # what its headers are kept in: to ask themselves would cost as much as all the rest
            is_told = "keep-alive" in response.headers._container
            if is_told or response.status == SWITCHING_PROTOCOLS:
                hear(conn, response)
        except AttributeError:  # a response of somebody else's class
            hear(conn, response)
        return response

    return _make_request


_COMMON = ("self", "conn", "method", "url")
_NAMES_1_26 = ("timeout", "chunked", "httplib_request_kw")
_NAMES_2 = (
    *("body", "headers", "retries", "timeout", "chunked", "response_conn"),
    *("preload_content", "decode_content", "enforce_content_length"),
)

#: the signatures there have been -> what makes a function of that signature
_BY_PARAMETERS = {(*_COMMON, *_NAMES_1_26): _as_1_26, (*_COMMON, *_NAMES_2): _as_2}
