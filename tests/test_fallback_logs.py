"""What is logged, when, and that a log handler can do no harm."""

from __future__ import annotations

import logging
import re
import sys

import pytest
import urllib3

import stalepool
from breaks import breaks
from logs import Records, listening, output_of
from outages import outage
from pools import (
    await_arrival,
    break_while_idle,
    counters,
    end_while_idle,
    get,
    pooled_connection,
    serving,
    shim,
    verdicts,
)
from replay_tools import reused
from stalepool import fallback
from stalepool_testing import TLS, Close, CloseAfter, Respond


@pytest.fixture
def listen():
    with listening() as listen:
        yield listen


def test_the_library_adds_no_handlers():
    names = [name for name in logging.root.manager.loggerDict if name.startswith("stalepool")]
    assert names
    assert [name for name in names if logging.getLogger(name).handlers] == []


# -- DEBUG: each discard ---------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [None, TLS("TLSv1.3")], ids=["plain", "TLS"])
def test_a_discard_says_whose_why_and_how_old(listen, tls):
    with shim(), serving([Respond(200), CloseAfter(0)], tls=tls) as (server, pool):
        heard = listen()
        break_while_idle(server, pool)
        assert get(pool) == 200

    (record,) = heard.records
    origin = "%s://127.0.0.1:%d" % ("https" if tls else "http", server.port)
    assert re.match(origin + r": discards, closed, idle \d{1,2}\.\d{3} s$", record.getMessage())
    assert (record.levelno, record.name) == (logging.DEBUG, "stalepool.checkout")
    assert record.args  # put together by who wants to read it


def test_an_idle_time_that_nobody_knows(listen, pretend_fork):
    """A connection of another process is not even asked."""
    with shim(), reused() as (server, pool):
        heard = listen()
        pretend_fork()
        assert get(pool) == 200
    origin = "http://127.0.0.1:%d" % server.port
    assert heard.lines == ["%s: discards, foreign_process, idle ? s" % origin]


def test_nothing_on_the_healthy_path(listen):
    """Not at the full check, not at those after it, nor for what urllib3 has closed by itself."""
    with shim(), serving() as (server, pool):
        heard = listen()
        for _ in range(5):
            assert get(pool) == 200
        pooled_connection(pool).close()
        assert get(pool) == 200
        assert verdicts(server) == {"alive": 4}
        assert counters(server)["discards"] == 0
    assert heard.lines == []


# -- WARNING: each fallback, as in test_fallback ---------------------------------------------------


def test_nothing_is_logged_while_the_interpreter_ends(listen, monkeypatch):
    """``sys.modules`` is empty by then, so that the commonest socket is of an unknown kind."""
    with shim():
        heard = listen()
        monkeypatch.setattr(sys, "is_finalizing", lambda: True)
        fallback.fall_back("unknown_connection", "in a __del__")
        assert fallback.counts() == {"unknown_connection": 1}
    assert heard.lines == []


# -- handlers --------------------------------------------------------------------------------------


def test_a_handler_that_posts_through_urllib3(listen):
    """Its own request meets a dead connection, too, and that is not logged again."""
    script = [Respond(200), CloseAfter(0)]
    with shim(), serving(script) as (server, pool), serving(script) as (collector, to_collector):

        def post(record):
            assert to_collector.request("POST", "/log", body=record.getMessage()).status == 200

        break_while_idle(collector, to_collector)
        break_while_idle(server, pool)
        heard = listen(post)
        assert get(pool) == 200

        posts = collector.journal.select(method="POST")
        assert [post.body.decode() for post in posts] == heard.lines
        assert len(heard.lines) == 1
        assert verdicts(collector) == {"closed": 1}


def test_a_handler_that_posts_is_not_called_again(monkeypatch):
    """It may hold a lock of its own. Its request is left to urllib3, and counted."""

    def post(record):
        assert get(pool) == 200

    handler = Records(post)
    monkeypatch.setattr(logging.root, "handlers", [handler])
    with shim(), reused() as (_, pool), breaks("full check"):
        logging.getLogger("service").warning("something")
        assert handler.lines == ["something"]
        assert stalepool.snapshot()["fallbacks"] == {"check_failed": 1}


def test_a_handler_that_raises(listen):
    """The request does not pay for it, and the next line is logged again."""

    def explode(record):
        raise RuntimeError("disk full")

    script = [Respond(200), CloseAfter(0), Respond(200), CloseAfter(0)]
    with shim(), serving(script) as (server, pool):
        heard = listen(explode)
        break_while_idle(server, pool)
        assert get(pool) == 200
        server.wait_idle_step(2)
        await_arrival(pool)
        with breaks("liveness"):
            assert get(pool) == 200
        assert [record.levelno for record in heard.records] == [logging.DEBUG, logging.WARNING]
        assert len(server.journal.connections) == 3


def test_a_handler_whose_class_has_no_module(caplog):
    """Nothing about handlers is taken for granted."""

    class Odd(logging.NullHandler):
        __module__ = None

    caplog.set_level(logging.INFO)
    with shim(replay="idempotent"), reused(Close()) as (_, pool):
        logging.root.addHandler(Odd())
        try:
            assert get(pool) == 200
        finally:
            logging.root.handlers.pop()


# -- the process: active or not --------------------------------------------------------------------


def test_each_process_says_once_that_it_is_active():
    """With its settings; a patch that was left out makes it a warning."""
    first = "import urllib3.connectionpool as p; p.is_connection_dropped = lambda c: False\n"
    script = """
import os
for _ in range(3): pool.request("GET", "/")
if os.fork() == 0:
    pool.request("GET", "/")
else:
    os.wait()
"""
    with serving() as (server, _):
        out, err = output_of(script, server, first=first, STALEPOOL_MODE="audit")
    assert len(err) == 1 and "patch_missing" in err[0]  # said when nobody had set up a log yet
    said = (
        r"WARNING stalepool\.status status\.py stalepool \S+ is active in process (\d+), "
        r"mode audit; settings: mode=audit \(STALEPOOL_MODE\); patched: urllib3\.connectionpool; "
        r"not patched: urllib3\.connectionpool\.is_connection_dropped: takes \(c\)$"
    )
    found = [re.match(said, line) for line in out]
    assert all(found), out
    assert len({match[1] for match in found}) == len(out) == 2


# -- dictConfig, places, many lines ----------------------------------------------------------------


def test_a_logging_configuration_that_disables_what_it_does_not_name():
    script = """
import logging.config
handlers = {"out": {"class": "logging.StreamHandler", "stream": sys.stdout}}
logging.config.dictConfig({"version": 1, "handlers": handlers,
                           "root": {"level": "INFO", "handlers": ["out"]}})
for _ in range(2): pool.request("GET", "/")
"""
    with serving([Respond(200), Close()]) as (server, _):
        out, _ = output_of(script, server)
    assert [line.partition(" ")[2][:9] for line in out] == ["0.1.0 is ", "GET was s"]


@pytest.mark.filterwarnings("ignore")  # pip's own
def test_pips_output_has_no_line_of_ours():
    """pip prints its INFO lines on stdout, where a program may read its JSON."""
    pytest.importorskip("pip")
    script = """
import logging.config
from pip._internal.utils.logging import setup_logging
setup_logging(verbosity=0, no_color=True, user_log_file=None)
for _ in range(2): pool.request("GET", "/")
"""
    with serving([Respond(200), Close()]) as (server, _):
        out, _ = output_of(script, server)
        assert len(server.journal) == 3  # one was sent once more
    assert out == []


def test_a_line_carries_the_place_it_is_from(listen):
    with shim(replay="idempotent"), serving([Respond(200), CloseAfter(0)]) as (server, pool):
        heard = listen()
        break_while_idle(server, pool)
        assert get(pool) == 200
        end_while_idle(server, pool)
        with breaks("full check"):
            assert get(pool) == 200
        fallback.fall_back("patch_missing", "by hand")
    assert [(record.filename, record.funcName) for record in heard.records] == [
        ("full_check.py", "_report"),
        ("full_check.py", "is_dropped"),
        ("test_fallback_logs.py", "test_a_line_carries_the_place_it_is_from"),
    ]


def test_many_lines_of_one_message(listen):
    logger, now = logging.getLogger("stalepool.replay"), [1000.0]
    heard = listen()
    fallback.forget()
    with breaks("clock of the log", by=lambda: now[0]):
        for number in range(25):
            fallback.log(logger, logging.INFO, "sent %d", number)
            fallback.log(logger, logging.DEBUG, "looked %d", number)
        assert heard.lines.count("looked 24") == 1  # who asks for DEBUG gets it
        sent = [line for line in heard.lines if "sent" in line]
        assert sent == ["sent %d" % number for number in range(10)]
        now[0] += 61
        fallback.log(logger, logging.INFO, "sent %d", 25)
        fallback.log(logger, logging.INFO, "sent %d", 26)
    fallback.forget()
    assert heard.lines[-2:] == ["sent 25 (15 such lines were left out before)", "sent 26"]


def test_a_reconnect_that_was_made_is_said(listen):
    with outage(window_s=5, back_in_s=0.1) as way:
        heard = listen(level=logging.INFO)
        assert get(way.pool) == 200
        (record,) = heard.records
    said = r"http://127\.0\.0\.1:\d+: a refused connect was tried again for \d\.\d\d s: ok$"
    assert re.match(said, record.getMessage())
    assert (record.name, record.levelno) == ("stalepool.connect", logging.INFO)
    assert (record.filename, record.funcName) == ("connect.py", "_try_again")


def test_a_reconnect_in_vain_is_the_callers_error_and_no_line(listen):
    with outage(window_s=0.2) as way:
        heard = listen(level=logging.INFO)
        with pytest.raises(urllib3.exceptions.NewConnectionError):
            get(way.pool)
    assert heard.lines == []
