"""The conformance suite, against clients whose faults are known."""

import contextlib
import sys
from types import SimpleNamespace

import pytest

import comparison
import lanes
from conftest import REPOSITORY
from stalepool_testing import TLS, FaultServer, Respond
from stalepool_testing.conformance import plugin
from stalepool_testing.conformance.cases import CASES
from stalepool_testing.conformance.clients import CLIENTS, factory_of
from suite import run_with_plugin

pytest_plugins = ["pytester"]

SENDS_TWICE = """
import urllib3

class Client:
    def __init__(self, ca_path):
        twice = urllib3.Retry(1, allowed_methods=None)
        self.pool = urllib3.PoolManager(ca_certs=ca_path, retries=twice)
        self.close = self.pool.clear

    def request(self, method, url, body):
        return self.pool.request(method, url, body=body).status
"""


def run_suite(pytester, client, *options, others=False):
    words = "--pyargs", "stalepool_testing.conformance", "--client", client, *options
    return run_with_plugin(pytester, *words, others=others)


def row(outcome, case):
    (found,) = [line for line in outcome.outlines if line.startswith(case + "  ")]
    return " ".join(found[len(case) :].split())


@pytest.mark.parametrize("options", lanes.first(1, [[], ["-n", "2"]]), ids=str)
def test_urllib3(options, pytester):
    """What it retries by itself, it survives."""
    outcome = run_suite(pytester, "urllib3", "-k", "not hole", *options, others=bool(options))
    outcome.assert_outcomes(passed=22)
    assert row(outcome, "FIN while idle") == "ok ok"
    assert row(outcome, "surplus 408 over TLS") == "ok ok"
    assert row(outcome, "RST after it was processed") == "ok ProtocolError"


def test_a_client_of_ones_own_that_sends_twice(pytester):
    pytester.makepyfile(mine=SENDS_TWICE)
    outcome = run_suite(pytester, "mine:Client", "-k", "processed")
    outcome.assert_outcomes(failed=2, passed=2)
    assert row(outcome, "FIN after it was processed") == "ok sent 2 times"


@pytest.mark.parametrize(
    "client, words",
    [
        ("curl", "it takes urllib3, requests, niquests, httpx, aiohttp or module:factory"),
        ("sys:Nothing", "module 'sys' has no attribute 'Nothing'"),
        (
            "no_such:Client",
            "No module named 'no_such' here: use python -m pytest, or set PYTHONPATH",
        ),
        ("urllib3:__version__", "it takes a function of the path of a CA file: '.+' is not a .*"),
        ("os:getpid", "it takes a function of the path of a CA file: too many .*"),
    ],
)
def test_no_such_client_is_a_wrong_usage(client, words):
    with pytest.raises(pytest.UsageError, match=f"^--client {client}: {words}$"):
        plugin.pytest_configure(SimpleNamespace(getoption={"--client": client}.__getitem__))


@pytest.mark.parametrize(
    "client, words",
    [
        ("None", "it has to return an object with request() and close(), got None"),
        ("Mine", "request() has to return the status as an int, got 'a response'"),
    ],
)
def test_a_client_that_is_none_is_told_in_a_sentence(client, words, pytester):
    methods = "request = lambda *_: 'a response'; close = lambda: None"
    pytester.makepyfile(mine=f"class Mine: {methods}\ndef make(ca): return {client}")
    outcome = run_suite(pytester, "mine:make", "-k", "GET and RST and idle")
    outcome.assert_outcomes(failed=1)
    assert f"\n--client mine:make: {words}\n" in outcome.stdout.str()


def test_a_client_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(CLIENTS, "no_such", CLIENTS["urllib3"])
    with pytest.raises(ValueError, match=r"^--client no_such: it is not installed here$"):
        factory_of("no_such")


@pytest.mark.full
def test_the_comparison_page_is_made_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    column = comparison.Column("requests")
    cells = comparison.run_suite(sys.executable, column, tmp_path)
    assert {method for _, method in cells} == {"GET", "POST"}
    lines = comparison.table("GET", {column: cells}).splitlines()
    assert [line.split("  ")[0] for line in lines[4:-1]] == list(CASES)
    assert lines[4].split("  ")[-1] == "ok" and lines[-2].split("  ")[-1] == "error"
    with pytest.raises(RuntimeError, match="it takes urllib3, "):
        comparison.run_suite(sys.executable, comparison.Column("curl"), tmp_path)


def test_the_comparison_page_has_every_case():
    page = comparison.PAGE.read_text(encoding="utf-8")
    assert {case for case in CASES if page.count(f"\n{case}  ") != 2} == set()
    with pytest.raises(ValueError, match="the page has no place for the tables"):
        comparison.marks.insert("nothing", comparison.BEGIN, comparison.END, "tables")


@pytest.mark.parametrize("name", CLIENTS)
def test_each_known_client_sends_requests(name):
    pytest.importorskip(name)
    tls = TLS()
    with FaultServer(default=Respond(202), tls=tls) as server:
        with contextlib.closing(factory_of(name)(tls.ca_path)) as client:
            assert client.request("POST", server.url, b"body") == 202
        assert server.journal[0].body == b"body"
