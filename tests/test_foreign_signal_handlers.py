"""Exceptions of signal handlers are known by what a call of the handler runs."""

import contextvars
import functools
import itertools
import signal
import sys
import types
from unittest.mock import Mock

import pytest
import wrapt

from breaks import breaks
from injection import injecting
from pools import shim
from replay_tools import outcome, reused, side_by_side
from stalepool import fallback
from stalepool.connection.fresh_socket import address_of
from stalepool.foreign import is_a_handlers
from stalepool.sockets import failure, liveness, tcp_info
from stalepool.sockets.layers import layers_of
from stalepool_testing import Reset, unread


@pytest.fixture
def handled():
    """Sets the exception that the handler of :func:`raise_signal` raises."""

    def set_to(error, made=lambda handler: handler):
        def handler(*_):
            raise error

        signal.signal(signal.SIGUSR1, made(handler))

    before = signal.getsignal(signal.SIGUSR1)
    yield set_to
    signal.signal(signal.SIGUSR1, before)


raise_signal = functools.partial(signal.raise_signal, signal.SIGUSR1)


def cythons(handler):
    """Its frame has the name that it has, and a code of its own."""
    call = staticmethod(functools.partial(contextvars.Context().run, handler))
    made = type("cython_function_or_method", (), {"__call__": call})()
    made.__module__, made.__name__ = __name__, "handler"
    return made


MADE = {
    "function": lambda handler: handler,
    "partial of a method": lambda h: functools.partial(types.MethodType(h, object())),
    # of a class of its own it is not merged into the one around it
    "partial of a partial": lambda h: functools.partial(type("P", (functools.partial,), {})(h)),
    "wrapt's": lambda h: functools.partial(wrapt.decorator(lambda f, _, a, k: f(*a))(h)),
    "static": lambda handler: type("Handler", (), {"__call__": staticmethod(handler)})(),
    "C code": functools.lru_cache(),
    "Cython's": cythons,
    "method of Cython's": lambda handler: types.MethodType(cythons(handler), object()),
    "object": lambda handler: type("Handler", (), {"__call__": handler})(),
    "one that refuses": lambda h: type("H", (), {"__call__": h, "__getattr__": lambda *_: 1 / 0})(),
}


@pytest.mark.parametrize("kind", [ValueError, ConnectionResetError])
@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_a_builtin_of_a_signal_handler_passes(kind, made, handled):
    """One that we have caused would be caught."""
    handled(kind("the handler's"), made)
    with pytest.raises(kind, match="the handler's"):
        fallback.guarded("check_failed", "caught")(raise_signal)()


def test_a_handler_is_asked_nothing(handled):
    """It may be a proxy of what is gone, or make a lazy object of the application's."""
    asked = []

    class Lazy:
        def __call__(self, *_):
            pass

        def __getattribute__(self, name):
            asked.append(name)
            return object.__getattribute__(self, name)

    handled(None, lambda _: Lazy())
    asked.clear()
    assert not is_a_handlers(ValueError())
    assert asked == []


def test_what_a_handler_belongs_to_is_none(handled):
    """A failure of its own is not taken for a deadline."""

    class Dialer:
        def __call__(self, *_):
            raise OSError("of its own")

        def reload(self, *_):
            pass

    dial = Dialer()
    handled(None, lambda _: dial.reload)
    with pytest.raises(OSError) as raised:
        dial()
    assert not is_a_handlers(raised.value)


def test_where_no_handler_runs_none_is_looked_at(handled):
    """In another interpreter that crashed the process: handlers are the main one's objects."""
    handled(ValueError("the handler's"))
    with pytest.raises(ValueError) as raised:
        raise_signal()
    found = side_by_side([lambda: is_a_handlers(raised.value)])
    assert [is_a_handlers(raised.value), *found] == [True, False]


def post_where_code_may_not_be_looked_at():
    is_on = False

    def forbid(event, args):
        if is_on and (event.startswith("gc.") or args[1:] in (("f_code",), ("__code__",))):
            raise RuntimeError(event)

    sys.addaudithook(forbid)
    with shim(), reused(Reset()) as (_, pool):
        is_on = True
        ended = outcome(pool, "POST")
        is_on = False
    return ended


def test_where_no_handler_is_set_no_code_is_looked_at(call_python):
    """An audit hook may forbid that: what it raised would reach the caller in place of an error."""
    ended = call_python(post_where_code_may_not_be_looked_at)
    assert ended == ["ProtocolError", "ConnectionResetError"]


def test_an_error_that_comes_while_that_is_asked_passes():
    """Until Python 3.10 a pending handler runs as a signal's handler is set."""
    refuse = Mock(side_effect=ValueError("the handler's"))
    with breaks("signals", by=types.SimpleNamespace(SIGTERM=15, signal=refuse)):
        with pytest.raises(ValueError, match="the handler's"):
            is_a_handlers(OSError())


@pytest.mark.parametrize(
    "ask",
    [
        lambda sock: liveness.examine(layers_of(sock), liveness.poller(sock)),
        failure.answer_has_begun,
        lambda sock: tcp_info.ask(layers_of(sock)),
        lambda sock: address_of(types.SimpleNamespace(sock=sock, port=0)),
    ],
    ids=["examine", "answer_has_begun", "ask", "address_of"],
)
def test_an_error_of_a_signal_handler_is_not_taken_for_the_sockets_word(ask, handled):
    """It is an OSError, too."""
    handled(ConnectionResetError("the handler's"))
    with unread(b"an answer") as (sock, _):
        for line in itertools.count():
            with injecting(line, raise_signal) as places:
                try:
                    ask(sock)
                except ConnectionResetError:
                    continue
            assert places == []
            break
    assert line > 3
