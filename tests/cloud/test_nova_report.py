"""The report on audit about the real nova-api, held against what active saves of the same.

nova-api has one instance in its database. For ``GET /servers/detail`` it asks neutron, which is a
fault server here, for the instance's ports, over a pooled connection. ``tox -e nova`` has nova 31
under eventlet, on the versions of OpenStack 2025.1.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

import pytest

from conftest import REPOSITORY, child, child_that_stays
from stalepool.cli.inject import INJECT_DIR
from stalepool_testing import AnswerStep, Close, Exchange, FaultServer, Reset, Respond

STATUS = ["-m", "stalepool", "status"]
HERE, BIN = Path(__file__).resolve().parent, Path(sys.executable).parent

pytestmark = [
    pytest.mark.skipif(not (BIN / "nova-api").exists(), reason="needs nova: tox -e nova"),
    pytest.mark.timeout(600),
]

CONFIG = """
[DEFAULT]
enabled_apis = osapi_compute
osapi_compute_listen = 127.0.0.1
osapi_compute_listen_port = {api}
osapi_compute_workers = 1
state_path = {home}
transport_url = fake:///
[api]
auth_strategy = noauth2
[wsgi]
api_paste_config = {prefix}/etc/nova/api-paste.ini
[api_database]
connection = sqlite:///{home}/api.db
[database]
connection = sqlite:///{home}/cell.db
[neutron]
auth_type = none
endpoint_override = http://127.0.0.1:{neutron}
http_retries = 0
[oslo_policy]
enforce_new_defaults = false
enforce_scope = false
[oslo_concurrency]
lock_path = {home}/lock
"""


@dataclass(frozen=True)
class FailOnIt(AnswerStep):
    """Has the request for longer than ``replay_within_s``, and closes: neutron failed on it."""

    keeps_connection = False

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        exchange.channel.pause(2.5)
        exchange.channel.close()


FAULTS = {"closed as it arrives": Close(), "reset as it arrives": Reset(), "failed on": FailOnIt()}


class Neutron:
    """The script of a fault server: empty lists, and a fault for who asks for ports next."""

    def __init__(self) -> None:
        self.faults: List[AnswerStep] = []

    def __call__(self, request: Any) -> AnswerStep:
        name = request.path.partition("?")[0].rpartition("/")[2].partition(".")[0]
        if name == "ports" and self.faults:
            return self.faults.pop()
        body = json.dumps({name.replace("-", "_"): []}).encode()
        return Respond(200, body, {"Content-Type": "application/json"})


class NovaApi:
    """nova-api as an operator starts it, with the shim by PYTHONPATH."""

    def __init__(self, home: Path, neutron: int, **variables: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        path = "%s%s%s" % (INJECT_DIR, os.pathsep, REPOSITORY)
        log = home / ("%s.log" % variables["STALEPOOL_MODE"])
        with log.open("wb") as out:
            words = [BIN / "nova-api", "--config-file", configured(home, self.port, neutron)]
            environ = {"PYTHONPATH": path, **variables}
            self.process = child_that_stays(*words, env=environ, stdout=out, stderr=out)
        self.log = log

    def __enter__(self) -> NovaApi:
        give_up = time.monotonic() + 120
        while not self.listens():
            assert self.process.poll() is None and time.monotonic() < give_up, self.log.read_text()
            time.sleep(0.1)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    def listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def worker(self) -> str:
        """The process id of its one worker, which is forked from what was started."""
        (pid,) = Path("/proc/%d/task/%d/children" % ((self.process.pid,) * 2)).read_text().split()
        return pid

    def servers(self) -> int:
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        conn.request("GET", "/v2.1/servers/detail", headers={"X-Auth-Token": "admin:project"})
        response = conn.getresponse()
        response.read()
        conn.close()
        return response.status


def configured(home: Path, api: int, neutron: int) -> Path:
    file = home / "nova.conf"
    words = {"home": home, "prefix": sys.prefix, "api": api, "neutron": neutron}
    file.write_text(CONFIG.format(**words))
    return file


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nova's databases, and one instance in them."""
    home = tmp_path_factory.mktemp("nova")
    config = configured(home, 0, 0)

    def run(*command: object) -> None:
        off = {"STALEPOOL_ENABLED": "0"}
        done = child(*command, env=off, stderr=subprocess.STDOUT, timeout=300)
        assert done.returncode == 0, done.stdout

    manage = (BIN / "nova-manage", "--config-file", config)
    cell0, cell = ("sqlite:///%s/%s.db" % (home, name) for name in ("cell0", "cell"))
    run(*manage, "api_db", "sync")
    run(*manage, "cell_v2", "map_cell0", "--database_connection", cell0)
    run(*manage, "db", "sync")
    create = ("create_cell", "--transport-url", "fake:///", "--database_connection", cell)
    run(*manage, "cell_v2", *create)
    run(sys.executable, HERE / "instance.py", config)
    return home


def shown(api: NovaApi) -> Dict[str, Any]:
    """What the status says once it has all faults in it: the next answers write it."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        assert api.servers() == 200
        (service,) = json.loads(child(*STATUS, "--json", api.worker).stdout)["services"]
        if service["totals"]["gone"].get("failed_in_request") == len(FAULTS):
            return dict(service)
        time.sleep(1)
    raise AssertionError(service)


@pytest.mark.parametrize("mode", ["audit", "active"])
def test_how_many_requests_are_saved(home: Path, tmp_path: Path, mode: str) -> None:
    neutron, statuses = Neutron(), {}
    variables = {"STALEPOOL_MODE": mode, "STALEPOOL_STATUS_DIR": str(tmp_path)}
    with FaultServer(neutron) as server, NovaApi(home, server.port, **variables) as api:
        for name, fault in FAULTS.items():
            assert api.servers() == 200  # leaves a connection in the pool
            neutron.faults.append(fault)
            statuses[name] = api.servers()
            assert neutron.faults == []
        service = shown(api)
        report = child(*STATUS, "--report", api.worker).stdout.splitlines()
    saved = [name for name in FAULTS if name != "failed on"]
    assert service["command"] == "nova-api" and not service["fallbacks"]
    if mode == "audit":
        assert statuses == dict.fromkeys(FAULTS, 500)
        assert report[1] == (
            "How many requests would active have saved? 2 of the 3 requests that failed on a "
            "connection that ended."
        )
        assert any("1 not: the peer had the whole request" in line for line in report)
        assert not any(service["totals"]["saved"].values())
    else:
        assert statuses == {**dict.fromkeys(saved, 200), "failed on": 500}
        assert service["totals"]["saved"] == {"replayed": 2, "kept_off": 0, "reconnected": 0}
