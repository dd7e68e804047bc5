"""What is logged, when, and that a log handler can do no harm."""

from __future__ import annotations

import contextlib
import logging
import re

import pytest

import stalepool
from pools import (
    await_arrival,
    break_while_idle,
    counters,
    get,
    pooled_connection,
    serving,
    shim,
    verdicts,
)
from stalepool import fallback, runtime
from stalepool_testing import TLS, CloseAfter, ResetAfter, Respond, Surplus


class Records(logging.Handler):
    """Keeps what is logged, and does something at each record."""

    def __init__(self, act=lambda record: None):
        super().__init__(logging.DEBUG)
        self.records = []
        self.act = act

    def emit(self, record):
        self.records.append(record)
        self.act(record)

    @property
    def lines(self):
        return [record.getMessage() for record in self.records]


@pytest.fixture
def listen():
    """``listen(act)``: a handler on ``stalepool``, its records, and what it does at each."""
    logger = logging.getLogger("stalepool")
    added = []

    def listen(act=lambda record: None, level=logging.DEBUG):
        handler = Records(act)
        logger.addHandler(handler)
        logger.setLevel(level)
        added.append(handler)
        return handler

    yield listen
    for handler in added:
        logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_the_library_adds_no_handlers():
    names = [name for name in logging.root.manager.loggerDict if name.startswith("stalepool")]
    assert names
    assert [name for name in names if logging.getLogger(name).handlers] == []


# -- DEBUG: each discard ---------------------------------------------------------------------------

DISCARDS = {
    "closed": (CloseAfter(0), None),
    "reset": (ResetAfter(0), None),
    "unread": (Surplus(408), None),
    "closed over TLS": (CloseAfter(0), "TLSv1.3"),
}


@pytest.mark.parametrize("name", DISCARDS)
def test_a_discard_says_whose_why_and_how_old(listen, name):
    step, version = DISCARDS[name]
    tls = None if version is None else TLS(version)
    with shim(), serving([Respond(200), step], tls=tls) as (server, pool):
        heard = listen()
        break_while_idle(server, pool)
        assert get(pool) == 200

    (line,) = heard.lines
    origin = "%s://127.0.0.1:%d" % ("https" if tls else "http", server.port)
    found = re.match(r"(\S+): discards, (\w+), idle (\d+\.\d{3}) s$", line)
    assert found, line
    assert found.group(1, 2) == (origin, name.split()[0])
    assert 0 <= float(found.group(3)) < 30
    (record,) = heard.records
    assert record.levelno == logging.DEBUG
    assert record.name == "stalepool.checkout"
    assert record.args  # put together by who wants to read it


def test_an_idle_time_that_nobody_knows(listen, monkeypatch):
    """A connection of another process is not even asked."""
    with shim(), serving() as (server, pool):
        assert get(pool) == 200
        heard = listen()
        monkeypatch.setattr(runtime, "fork_generation", runtime.fork_generation + 1)
        assert get(pool) == 200
    origin = "http://127.0.0.1:%d" % server.port
    assert heard.lines == ["%s: discards, foreign_process, idle ? s" % origin]


def test_nothing_on_the_healthy_path(listen):
    """Not at the full check, not at those after it, nor where keepalive was armed."""
    with shim(), serving() as (server, pool):
        heard = listen()
        for _ in range(5):
            assert get(pool) == 200
        assert verdicts(server) == {"alive": 4}
    assert heard.lines == []


def test_nothing_for_a_connection_that_was_closed_by_urllib3(listen):
    with shim(), serving() as (server, pool):
        heard = listen()
        assert get(pool) == 200
        pooled_connection(pool).close()
        assert get(pool) == 200
        assert counters(server)["discards"] == 0
    assert heard.lines == []


def test_at_info_a_discard_is_silent(listen):
    with shim(), serving([Respond(200), CloseAfter(0)]) as (server, pool):
        heard = listen(level=logging.INFO)
        break_while_idle(server, pool)
        assert get(pool) == 200
    assert heard.lines == []


# -- WARNING: once a process and reason ------------------------------------------------------------


def test_a_fallback_is_said_once_a_reason(listen):
    with shim():
        heard = listen()
        for _ in range(3):
            fallback.fall_back("check_failed", "first words")
            fallback.fall_back("keepalive_failed", "other words")
        assert fallback.counts() == {"check_failed": 3, "keepalive_failed": 3}

    assert [record.levelno for record in heard.records] == [logging.WARNING] * 2
    assert "first words" in heard.lines[0] and "check_failed" in heard.lines[0]
    assert "other words" in heard.lines[1] and "keepalive_failed" in heard.lines[1]


def test_a_fallback_in_a_request(listen, monkeypatch):
    """The check is broken: urllib3 goes on by itself, one line says so, each case is counted."""

    def broken(*args, **kwargs):
        raise RuntimeError("broken")

    with shim(), serving() as (server, pool):
        heard = listen()
        assert get(pool) == 200
        monkeypatch.setattr("stalepool.connection.full_check._find", broken)
        assert [get(pool), get(pool), get(pool)] == [200] * 3
        assert stalepool.snapshot()["fallbacks"] == {"check_failed": 3}
        assert len(server.journal.connections) == 1
    (line,) = heard.lines
    assert "RuntimeError('broken')" in line


# -- handlers --------------------------------------------------------------------------------------


@contextlib.contextmanager
def two_of_a_kind(script=()):
    """Two servers with one script, and a pool for each: the request's, and the log handler's."""
    with serving(script) as (server, pool), serving(script) as (collector, to_collector):
        yield server, pool, collector, to_collector


def test_a_handler_that_posts_through_urllib3(listen):
    """Its own request meets a dead connection, too, and that is not logged again."""
    script = [Respond(200), CloseAfter(0)]
    with shim(), two_of_a_kind(script) as (server, pool, collector, to_collector):

        def post(record):
            response = to_collector.request("POST", "/log", body=record.getMessage())
            assert response.status == 200

        break_while_idle(collector, to_collector)
        break_while_idle(server, pool)
        heard = listen(post)
        assert get(pool) == 200

        assert len(heard.records) == 1
        posts = collector.journal.select(method="POST")
        assert [post.body.decode() for post in posts] == heard.lines
        assert verdicts(collector) == {"closed": 1}


def test_a_handler_that_posts_at_a_fallback(listen, monkeypatch):
    """The handler's own request is left to urllib3 as well: no lock, no nesting, no second line."""

    def broken(*args, **kwargs):
        raise RuntimeError("broken")

    with shim(), two_of_a_kind() as (_, pool, collector, to_collector):
        heard = listen(lambda record: get(to_collector))
        assert [get(pool), get(to_collector)] == [200, 200]
        monkeypatch.setattr("stalepool.connection.full_check._find", broken)
        assert get(pool) == 200
        assert len(heard.records) == 1
        assert stalepool.snapshot()["fallbacks"] == {"check_failed": 2}
        assert len(collector.journal) == 2


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
def test_a_handler_that_raises(listen, monkeypatch, level):
    """A handler of somebody's own may let its exception out: the request must not pay for it."""

    def explode(record):
        raise RuntimeError("disk full")

    with shim(), serving([Respond(200), CloseAfter(0)]) as (server, pool):
        heard = listen(explode)
        break_while_idle(server, pool)
        if level == logging.WARNING:
            monkeypatch.setattr("stalepool.sockets.liveness.examine", explode)
        assert get(pool) == 200
        assert [record.levelno for record in heard.records] == [level]
        assert len(server.journal.connections) == 2


def test_a_filter_that_raises(listen):
    def explode(record):
        raise RuntimeError("no")

    logger = logging.getLogger("stalepool.checkout")
    logger.addFilter(explode)
    try:
        with shim(), serving([Respond(200), CloseAfter(0)]) as (server, pool):
            heard = listen()
            break_while_idle(server, pool)
            assert get(pool) == 200
            assert counters(server)["discards"] == 1
            assert heard.lines == []
    finally:
        logger.removeFilter(explode)


def test_a_mark_left_by_a_raising_handler_is_taken_away(listen):
    """After a handler has failed the next line is logged again."""

    def explode(record):
        raise RuntimeError("once")

    script = [Respond(200), CloseAfter(0), Respond(200), CloseAfter(0)]
    with shim(), serving(script) as (server, pool):
        heard = listen(explode)
        break_while_idle(server, pool)
        assert get(pool) == 200
        server.wait_idle_step(2)
        await_arrival(pool)
        assert get(pool) == 200
        assert len(heard.records) == 2
