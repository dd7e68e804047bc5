"""The report on audit about the real nova-api, held against what active saves of the same.

nova-api has one instance in its database. For ``GET /servers/detail`` it asks neutron, which is a
fault server here, for the instance's ports, over a pooled connection. ``tox -e nova`` has nova 31
under eventlet, on the versions of OpenStack 2025.1.
"""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY, child, child_that_stays
from replay_tools import Late
from stalepool.cli.inject import INJECT_DIR
from stalepool_testing import Close, FaultServer, ProcessThenClose, Reset, Respond
from stalepool_testing.kernel import wait_until

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


#: the last one has the request for longer than ``replay_within_s``
FAULTS = {
    **{"closed as it arrives": Close(), "reset as it arrives": Reset()},
    "failed on": Late(ProcessThenClose(), 2.5),
}


def configured(home, api, neutron):
    file = home / "nova.conf"
    file.write_text(CONFIG.format(home=home, prefix=sys.prefix, api=api, neutron=neutron))
    return file


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with nova's databases, and one instance in them."""
    home = tmp_path_factory.mktemp("nova")
    config = configured(home, 0, 0)

    def run(*command):
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


@contextlib.contextmanager
def nova_api(home, neutron, **variables):
    """Started as an operator does, with the shim by PYTHONPATH; its port, and its children."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = home / ("%s.log" % variables["STALEPOOL_MODE"])
    environ = {"PYTHONPATH": "%s%s%s" % (INJECT_DIR, os.pathsep, REPOSITORY), **variables}
    words = [BIN / "nova-api", "--config-file", configured(home, port, neutron)]

    def listens():
        assert process.poll() is None, log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    with log.open("wb") as out:
        process = child_that_stays(*words, env=environ, stdout=out, stderr=out)
    try:
        wait_until(listens, "nova-api", 120)
        yield port, Path("/proc/%d/task/%d/children" % (process.pid, process.pid))
    finally:
        process.terminate()
        process.wait(60)


def servers(port):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    conn.request("GET", "/v2.1/servers/detail", headers={"X-Auth-Token": "admin:project"})
    response = conn.getresponse()
    response.read()
    conn.close()
    return response.status


@pytest.mark.parametrize("mode", ["audit", "active"])
def test_how_many_requests_are_saved(home, tmp_path, mode):
    faults, statuses, shown = [], {}, {}

    def neutron(request):
        """Empty lists, and a fault for who asks for ports next."""
        name = request.path.partition("?")[0].rpartition("/")[2].partition(".")[0]
        if name == "ports" and faults:
            return faults.pop()
        body = json.dumps({name.replace("-", "_"): []}).encode()
        return Respond(200, body, {"Content-Type": "application/json"})

    def all_are_shown():
        """Once the next answers have written it."""
        assert servers(port) == 200
        (service,) = json.loads(child(*STATUS, "--json", worker).stdout)["services"]
        shown.update(service)
        return service["totals"]["gone"].get("failed_in_request") == len(FAULTS)

    variables = {"STALEPOOL_MODE": mode, "STALEPOOL_STATUS_DIR": str(tmp_path)}
    with FaultServer(neutron) as server:
        with nova_api(home, server.port, **variables) as (port, children):
            for name, fault in FAULTS.items():
                assert servers(port) == 200  # leaves a connection in the pool
                faults.append(fault)
                statuses[name] = servers(port)
                assert faults == []
            (worker,) = children.read_text().split()
            wait_until(all_are_shown, "all faults in the status", 60)
            report = child(*STATUS, "--report", worker).stdout
    assert shown["command"] == "nova-api" and not shown["fallbacks"]
    if mode == "audit":
        assert statuses == dict.fromkeys(FAULTS, 500)
        says = "saved? 2 of the 3 requests that failed on a connection that ended.\n"
        assert "How many requests would active have " + says in report
        assert "1 not: the peer had the whole request" in report
        assert not any(shown["totals"]["saved"].values())
    else:
        assert statuses == {**dict.fromkeys(FAULTS, 200), "failed on": 500}
        assert shown["totals"]["saved"] == {"replayed": 2, "kept_off": 0, "reconnected": 0}
