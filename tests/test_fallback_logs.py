"""What is logged, when, and that a log handler can do no harm."""

import functools
import logging
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from breaks import breaks
from pools import end_while_idle, get, pooled_connection, serving, shim, verdicts
from replay_routes import outage
from replay_tools import reused
from service_process import output_of
from stalepool import fallback, status
from stalepool_testing import Close, Respond


@pytest.mark.parametrize("tls", [None, "TLSv1.3"])
def test_a_line_says_whose_why_and_where(listen, tls):
    """Of a discard also how old; DEBUG is for that, WARNING for each fallback.

    The healthy path has no line: not at the full check, not at those after it, nor for what urllib3
    has closed by itself.
    """
    with shim(falls_back=True), serving(tls=tls) as (server, pool):
        heard = listen()
        assert [get(pool) for _ in range(3)] == [200] * 3
        pooled_connection(pool).close()
        assert get(pool) == 200
        end_while_idle(server, pool)
        assert get(pool) == 200
        assert verdicts(server) == {"alive": 2, "closed": 1}
        end_while_idle(server, pool)
        with breaks("full check"):
            assert get(pool) == 200
        fallback.fall_back("patch_missing", "by hand")
    origin = "%s://127.0.0.1:%d" % ("https" if tls else "http", server.port)
    age = r"\d{1,2}\.\d{3} s after its last answer$"
    assert re.match(origin + ": discards, closed, " + age, heard.lines[0])
    discard = heard.records[0]
    assert (discard.levelno, discard.name) == (logging.DEBUG, "stalepool.checkout")
    assert discard.args  # put together by who wants to read it
    places = [(record.filename, record.funcName) for record in heard.records]
    assert places[:2] == [("full_check.py", "_report"), ("full_check.py", "is_dropped")]
    assert [name for name, _ in places[2:]] == ["test_fallback_logs.py"]


def test_nothing_is_logged_while_the_interpreter_ends(listen, monkeypatch):
    """``sys.modules`` is empty by then, so that the commonest socket is of an unknown kind."""
    heard = listen()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "is_finalizing", lambda: True)
        fallback.fall_back("unknown_connection", "in a __del__")
    assert (fallback.counts(), heard.lines) == ({"unknown_connection": 1}, [])


def test_a_reconnect_that_was_made_is_said(listen):
    """One that was made in vain is the caller's error."""
    heard = listen(level=logging.INFO)
    with outage(window_s=0.2) as way:
        way.is_refused()
    with outage(window_s=5, back_in_s=0.1) as way:
        assert get(way.pool) == 200
    (record,) = heard.records
    said = r"http://127\.0\.0\.1:\d+: a refused connect was tried again for \d\.\d\d s: ok$"
    assert re.match(said, record.getMessage())
    assert (record.name, record.levelno) == ("stalepool.connect", logging.INFO)
    assert (record.filename, record.funcName) == ("connect.py", "_try_again")


def test_many_lines_of_one_message(listen):
    now = [1000.0]
    heard = listen()

    def say(level, *numbers):
        for number in numbers:
            fallback.log("replay", level, "sent %d", number)

    with breaks("clock of the log", by=lambda: now[0]):
        say("INFO", *range(25))
        now[0] += 61
        say("INFO", 25, 26)
        say("DEBUG", *range(100, 125))  # who asks for DEBUG gets it
    last = ["sent 25 (15 such lines were left out before)", "sent 26"]
    every = ["sent %d" % number for number in (*range(10), *range(100, 125))]
    assert heard.lines == every[:10] + last + every[10:]


def test_a_handler_that_posts_through_urllib3(listen):
    """Its own request meets a dead connection, too, and that is not logged again."""
    with shim(), reused() as (server, pool), reused() as (collector, to_collector):

        def post(record):
            assert to_collector.request("POST", "/log", body=record.getMessage()).status == 200

        end_while_idle(collector, to_collector)
        end_while_idle(server, pool)
        heard = listen(post)
        assert get(pool) == 200
        (posted,) = collector.journal.select(method="POST")
        assert [posted.body.decode()] == heard.lines
        assert verdicts(collector) == {"closed": 1}


SHIPPER = """
import logging.handlers

class Handler(logging.Handler):
    def __init__(self, _):
        logging.Handler.__init__(self)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.name)

    def post(self, request):
        assert request("GET", "/").status == 200

class Queue(Handler, logging.handlers.QueueHandler):
    pass

def run(target):
    target()
"""


def in_a_thread(target):
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()


SAID = ["stalepool.replay", "stalepool.status"]
#: who asks -> how, the handler's class, and what is logged of it
WHO_ASKS = {
    "its thread": (lambda it: in_a_thread(it.post), "Handler", []),
    "its executor": (lambda it: ThreadPoolExecutor(1).submit(it.post).result(), "Handler", []),
    "it asks in the main thread": (lambda it: it.post(), "Handler", SAID),
    # as OpenTelemetry and Sentry wrap what a thread runs
    "another thread": (lambda it: in_a_thread(functools.partial(it.run, it.ask)), "Handler", SAID),
    "its thread, and it only queues": (lambda it: in_a_thread(it.post), "Queue", SAID),
}


@pytest.mark.parametrize("begin, cls, logged", WHO_ASKS.values(), ids=WHO_ASKS)
def test_a_log_shipper(begin, cls, logged, caplog, monkeypatch):
    """Its own thread may post with a lock held for which ``emit()`` would wait.

    After the next request it is said that it is active.
    """
    names = {"__name__": "shipper.handler"}
    exec(SHIPPER, names)
    handler, logger = names[cls](None), logging.getLogger("stalepool")
    caplog.set_level(logging.INFO, logger.name)  # not by hand: loggers keep what is enabled
    fallback.forget()  # the lines of other tests in this minute, of which ten are written
    no_word = breaks("word that it is active", by=False)
    with shim(replay="idempotent"), reused(Close()) as (_, pool), no_word:
        monkeypatch.setattr(logger, "handlers", [handler])  # it has been said by now
        post = functools.partial(handler.post, pool.request)
        it = SimpleNamespace(post=post, run=names["run"], ask=functools.partial(get, pool))
        status._make_due()
        begin(it)
        assert handler.lines == logged
        status._make_due()
        assert (get(pool), handler.lines[-1:]) == (200, ["stalepool.status"])


def test_a_first_fallback_that_a_log_handler_meets_is_said_at_the_next(listen):
    heard, inside = listen(), {"__name__": "logging.handlers", "fall_back": fallback.fall_back}
    exec("fall_back('unknown_connection', 'first')", inside)
    assert heard.lines == []
    for detail in "second", "third":
        fallback.fall_back("unknown_connection", detail)
    (line,) = heard.lines
    assert line.endswith("(unknown_connection): second")
    assert fallback.counts() == {"unknown_connection": 3}


def test_a_handler_that_raises(listen):
    """The request does not pay for it, and the next line is logged again."""
    with shim(falls_back=True), reused() as (server, pool):
        heard = listen(lambda record: 1 / 0)
        end_while_idle(server, pool)
        assert get(pool) == 200
        end_while_idle(server, pool)
        with breaks("liveness"):
            assert get(pool) == 200
        assert [record.levelno for record in heard.records] == [logging.DEBUG, logging.WARNING]
        assert len(server.journal.connections) == 3


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
    assert len({re.match(said, line)[1] for line in out}) == len(out) == 2


DICT_CONFIG = """
import logging.config
handlers = {"out": {"class": "logging.StreamHandler", "stream": sys.stdout}}
root = {"level": "INFO", "handlers": ["out"]}
logging.config.dictConfig({"version": 1, "handlers": handlers, "root": root})
"""
PIP = """
import logging.config
from pip._internal.utils.logging import setup_logging
setup_logging(verbosity=0, no_color=True, user_log_file=None)
"""


@pytest.mark.filterwarnings("ignore")  # pip's own
@pytest.mark.parametrize(("setup", "said"), [(DICT_CONFIG, ["0.1.0 is ", "GET was s"]), (PIP, [])])
def test_a_logging_configuration(setup, said):
    """dictConfig disables what it does not name; pip prints INFO on stdout, among its JSON."""
    if setup is PIP:
        pytest.importorskip("pip")
    with serving([Respond(200), Close()]) as (server, _):
        out, _ = output_of(setup + 'for _ in range(2): pool.request("GET", "/")', server)
        assert len(server.journal) == 3  # one was sent once more
    assert [line.partition(" ")[2][:9] for line in out] == said
