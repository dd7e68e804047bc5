"""Which exceptions are foreign: they are the caller's, wherever in ours they are raised."""

import contextlib
import contextvars
import functools
import itertools
import json
import select
import signal
import socket
import sys
import types

import pytest
import wrapt

import lanes
import stalepool
from breaks import breaks
from injection import Foreign, injecting
from pools import end_while_idle, let_pass, pooled_connection, serving
from replay_tools import after_checkout, have, side_by_side
from stalepool import fallback, foreign
from stalepool.connection.fresh_socket import address_of
from stalepool.sockets import failure, liveness, tcp_info
from stalepool.sockets.layers import layers_of
from stalepool_testing import CloseAfter, ProcessThenClose, Respond
from worlds import beside

#: packages whose code runs because we call it
CALLED = [
    *("stalepool", "urllib3", "http", "email", "socket", "ssl", "select", "struct"),
    *("weakref", "functools", "logging", "eventlet", "gevent", "OpenSSL", "wrapt"),
    *("inspect", "importlib", "socks", "greenlet", "pytest_socket", "beartype"),
    "pip._vendor.urllib3.connection",
]

#: the module that raises, what it raises -> whether that passes through our guard
RAISED = [
    *((name, "Theirs", False) for name in CALLED),
    # the interpreter called it: a signal handler, a timer, a tracer
    ("of_the_application", "Theirs", True),
    ("of_the_application", "TimeoutError", True),  # nothing that is guarded waits
    ("of_the_application", "ValueError", False),  # it cannot be told from one that we caused
]


@pytest.mark.parametrize(("name", "raised", "passes"), RAISED)
def test_whose_exception_it_is(name, raised, passes):
    module = types.ModuleType(name)
    exec("class Theirs(Exception): pass\ndef fail(): raise %s('x')" % raised, vars(module))
    call = fallback.guarded("check_failed", "caught")(module.fail)
    if passes:
        with pytest.raises(Exception, match="x"):
            call()
    else:
        assert call() == "caught"


def test_an_exception_that_was_not_raised_is_nobodys():
    assert not foreign.is_foreign(type("Theirs", (Exception,), {})())


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


def raise_signal():
    signal.raise_signal(signal.SIGUSR1)


def cythons(handler):
    """Its frame has the name that it has, and a code of its own."""
    call = staticmethod(functools.partial(contextvars.Context().run, handler))
    made = type("cython_function_or_method", (), {"__call__": call})()
    made.__module__, made.__name__ = __name__, "handler"
    return made


class Partial(functools.partial):
    """Is not merged into the one around it."""


MADE = {
    "function": lambda handler: handler,
    "method": lambda handler: types.MethodType(handler, object()),
    "partial": lambda handler: functools.partial(handler, "more"),
    "partial of a method": lambda h: functools.partial(types.MethodType(h, object())),
    "partial of a partial": lambda handler: functools.partial(Partial(handler)),
    "wrapt's": lambda handler: functools.partial(
        wrapt.decorator(lambda f, _, a, k: f(*a))(handler)
    ),
    "static": lambda handler: type("Handler", (), {"__call__": staticmethod(handler)})(),
    "C code": functools.lru_cache(),
    "Cython's": cythons,
    "object": lambda handler: type("Handler", (), {"__call__": handler})(),
    "object that refuses": lambda handler: type(
        "Handler", (), {"__call__": handler, "__getattr__": lambda *_: 1 / 0}
    )(),
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
    assert not foreign.is_a_handlers(ValueError())
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
    assert not foreign.is_a_handlers(raised.value)


def test_where_no_handler_runs_none_is_looked_at(handled):
    """In another interpreter that crashed the process: handlers are the main one's objects."""
    handled(ValueError("the handler's"))
    with pytest.raises(ValueError) as raised:
        raise_signal()
    found = side_by_side([lambda: foreign.is_a_handlers(raised.value)])
    assert [foreign.is_a_handlers(raised.value), *found] == [True, False]


def test_an_error_that_comes_while_that_is_asked_passes():
    """Until Python 3.10 a pending handler runs as a signal's handler is set."""

    def refuse(*_):
        raise ValueError("the handler's")

    with breaks("signals", by=types.SimpleNamespace(SIGTERM=15, signal=refuse)):
        with pytest.raises(ValueError, match="the handler's"):
            foreign.is_a_handlers(OSError())


# -- raised in the midst of a request, as by a signal handler; in a process of its own -------------


class Script:
    """Answers, but for the first try of each request whose path says otherwise."""

    def __init__(self):
        self._seen = {}

    def __call__(self, request):
        tries = self._seen[request.path] = self._seen.get(request.path, 0) + 1
        if request.path.startswith("/dies") and tries == 1:
            return ProcessThenClose()
        hint = {"Keep-Alive": "timeout=1"} if request.path.startswith("/hint") else {}
        return Respond(headers=hint)


def close_after_checkout(server, pool):
    """The FIN arrives between the look at checkout and the first byte."""
    after_checkout(pool, have(server, CloseAfter(0)))


#: name -> (method, path, path of the answer before, what is done meanwhile, settings)
SCENES = {
    "GET, full check": ("GET", "/", "/", lambda _, pool: let_pass(pool, 10), {}),
    "GET, sent again": ("GET", "/dies/%d", "/", lambda *_: None, {}),
    "POST, its answer lost": ("POST", "/dies/%d", "/", lambda *_: None, {}),
    "POST, moved": ("POST", "/", "/hint", lambda *_: None, {"nonidempotent_max_idle_s": 0}),
    "POST": ("POST", "/", "/", lambda *_: None, {}),
    "GET": ("GET", "/", "/", lambda *_: None, {}),
    "GET, new socket": ("GET", "/", "/", lambda _, pool: pooled_connection(pool).close(), {}),
    "GET, closed while idle": ("GET", "/", "/", end_while_idle, {}),
    "POST, closed after the checkout": ("POST", "/", "/", close_after_checkout, {}),
}


def injected(name):
    """Inject an exception at each line of ours in turn, during one request of a scene.

    Prints how many were injected, and where one did not reach the caller, or broke the pool.
    """
    unraisable = []
    sys.unraisablehook = lambda args: unraisable.append(args.exc_value)
    serial = itertools.count()
    method, path, before, act, settings = SCENES[name]
    lost, broken = [], []
    stalepool.install(**settings)
    with serving(Script()) as (server, pool):
        place = None
        for line in itertools.count():
            try:  # whatever has happened to it, the pool goes on
                for _ in range(2):
                    assert pool.request("GET", before).status == 200
            except Exception as error:
                broken.append("%s: %r" % (place, error))
            act(server, pool)
            wanted = path % next(serial) if "%" in path else path
            saw = None
            with injecting(line) as places:
                try:
                    saw = pool.request(method, wanted, body=b"1" if method == "POST" else None)
                except BaseException as error:
                    saw = error
            if not places:
                break
            (place,) = places
            if not isinstance(saw, Foreign):
                ignored = any(isinstance(error, Foreign) for error in unraisable)
                lost.append("%s: %r%s" % (place, saw, ", ignored" if ignored else ""))
            vars(pool).pop("_validate_conn", None)
            unraisable.clear()
    print(json.dumps({"injected": line, "lost": lost, "broken": broken}))


@pytest.mark.parametrize("scene", lanes.first(1, SCENES))
def test_an_exception_at_any_line_of_ours_reaches_the_caller(run_python, scene):
    script = "import sys, test_foreign; test_foreign.injected(sys.argv[1])"
    seen = run_python(script, scene, env=beside(__file__), flags=["-Wignore"])
    assert seen["lost"] == [] and seen["broken"] == []
    assert seen["injected"] > 50


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
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as both:
        sock = both.enter_context(socket.create_connection(server.getsockname()))
        both.enter_context(server.accept()[0]).sendall(b"an answer")
        select.select([sock], [], [])
        for line in itertools.count():
            with injecting(line, raise_signal) as places:
                try:
                    ask(sock)
                except ConnectionResetError:
                    continue
            assert places == []
            break
    assert line > 3


class Unassignable(OSError):
    def __setattr__(self, name, value):
        raise TypeError


def fail(error, made_of):
    try:
        raise made_of
    except OSError:
        raise error


def have_traceback(*errors):
    return [error.__traceback__ is not None for error in errors]


def test_only_what_was_raised_inside_loses_its_traceback():
    """What is being handled around it is somebody else's, who may show it."""
    inner, outer, handled = OSError(), Unassignable(), KeyError()
    try:
        raise handled
    except KeyError:
        with contextlib.suppress(OSError):
            fail(outer, made_of=inner)
        foreign.drop_frames(outer)
    assert outer.__context__ is inner and inner.__context__ is handled
    assert have_traceback(inner, outer, handled) == [False, False, True]
    foreign.drop_frames(None)


def test_inside_its_except_clause_an_error_alone_loses_its_traceback():
    inner, outer = OSError(), OSError()
    try:
        fail(outer, made_of=inner)
    except OSError as error:
        foreign.drop_frames(error)
    assert have_traceback(inner, outer) == [True, False]
