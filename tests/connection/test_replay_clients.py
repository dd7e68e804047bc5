"""Whatever client is on top, and however it counts its own retries: it sees one attempt."""

from __future__ import annotations

import contextlib
import functools

import pytest
import requests
import urllib3
from keystoneauth1.exceptions import ConnectFailure
from keystoneauth1.session import Session
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from pools import counters, shim, stock
from replay_tools import BODIES, ECHO
from stalepool_testing import Close, FaultServer

# each gives a function that sends one request to a URL, and returns the status


@contextlib.contextmanager
def with_urllib3(retries):
    with urllib3.PoolManager(retries=retries, timeout=10.0) as manager:
        yield lambda method, url: manager.request(method, url, body=BODIES.get(method)).status


@contextlib.contextmanager
def with_requests(retries):
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retries))
        send = functools.partial(session.request, timeout=10)
        yield lambda method, url: send(method, url, data=BODIES.get(method)).status_code


@contextlib.contextmanager
def with_keystoneauth1(retries):
    options = {"connect_retries": retries, "connect_retry_delay": 0.001, "raise_exc": False}
    with requests.Session() as below:
        send = functools.partial(Session(session=below).request, **options)
        yield lambda method, url: send(url, method, data=BODIES.get(method)).status_code


CLIENTS = {
    "urllib3, retries=False": lambda: with_urllib3(False),
    "urllib3, Retry(3)": lambda: with_urllib3(Retry(3, backoff_factor=0)),
    "requests": lambda: with_requests(0),
    "requests, Retry(2)": lambda: with_requests(Retry(2, backoff_factor=0)),
    "keystoneauth1, connect_retries=2": lambda: with_keystoneauth1(2),
}


def wanted(call, method, server):
    """The status, 0 for an error, on a connection that has answered; how often it arrived."""
    assert call("GET", server.url + "prime") == 200
    try:
        status = call(method, server.url + "wanted")
    except (urllib3.exceptions.HTTPError, requests.ConnectionError, ConnectFailure):
        status = 0
    return status, server.journal.count(path="/wanted")


@pytest.mark.parametrize("name", CLIENTS)
def test_one_attempt_is_seen(name):
    with shim(replay="idempotent"), FaultServer([ECHO, Close()], default=ECHO) as server:
        with CLIENTS[name]() as call:
            assert wanted(call, "PUT", server) == (200, 2)
        assert counters(server)["replays"] == {"ok": 1}  # the client has not sent it again
        assert server.journal[-1].body == BODIES["PUT"]


@pytest.mark.each_value
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", CLIENTS)
def test_the_clients_own_retries_go_on_as_they_would(name, method):
    """Every answer fails; each of their tries is on a fresh connection, and none is replayed."""
    found = []
    for who in (stock, lambda: shim(replay="idempotent")):
        with who(), FaultServer([ECHO], default=Close()) as server, CLIENTS[name]() as call:
            found.append(wanted(call, method, server))
    assert found[1] == (found[0][0], found[0][1] + (method == "GET"))
