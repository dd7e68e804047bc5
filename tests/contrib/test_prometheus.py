"""The collector for prometheus_client, against the real one; the alerts, against promtool."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from conftest import REPOSITORY, child
from fresh import run
from service_process import SERVICE, Started
from stalepool import stats
from stalepool.cli.main import main
from stalepool.cli.status import proc
from stalepool_testing import Close, FaultServer, Respond

prometheus_client = pytest.importorskip("prometheus_client", reason="needs the extra prometheus")
multiprocess = pytest.importorskip("prometheus_client.multiprocess")

MONITORING = REPOSITORY / "docs" / "monitoring"


def samples(text: str) -> Dict[str, float]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


ONE_PROCESS = """
import prometheus_client, stalepool
from stalepool.contrib import prometheus
from traffic import meet_a_dead_connection
registry = prometheus_client.CollectorRegistry()
registry.register(prometheus.Collector())
print("#", meet_a_dead_connection())
prometheus.write()  # nothing, in one process
print(prometheus_client.generate_latest(registry).decode())
"""


@pytest.fixture(scope="module")
def one_process() -> str:
    return run(ONE_PROCESS)


def test_one_process(one_process: str) -> None:
    origin = one_process.split()[1]
    found = samples(one_process)
    assert found['stalepool_verdicts_total{origin="%s",verdict="closed"}' % origin] == 1
    assert found['stalepool_discards_total{origin="%s"}' % origin] == 1
    assert found['stalepool_gone_total{origin="%s",reason="closed"}' % origin] == 1
    assert found['stalepool_saved_total{how="replayed",origin="%s"}' % origin] == 0
    assert found["stalepool_active"] == 1
    assert found['stalepool_keepalive_armed_total{origin="%s"}' % origin] == 2
    for name in (*stats.GROUPS, "gone", "saved", "discards", "keepalive_armed", "fallbacks"):
        assert "# TYPE stalepool_%s_total counter" % name in one_process


SEVERAL_PROCESSES = """
import os, threading
from stalepool.contrib import prometheus
from traffic import meet_a_dead_connection

application = prometheus.middleware(lambda environ, start_response: [b"answered"])

def work():
    meet_a_dead_connection()
    assert application({}, None) == [b"answered"]  # writes at its first call
    meet_a_dead_connection()
    assert application({}, None) == [b"answered"]  # too soon to write again

assert list(prometheus.Collector().collect()) == []  # a scrape has the files
work()  # what is left is written at the end
for writers in 0, 8:
    child = os.fork()
    if not child:
        work()
        threads = [threading.Thread(target=prometheus.write) for _ in range(writers)]
        for each in threads: each.start()
        for each in threads: each.join()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_several_processes(tmp_path: Path) -> None:
    run(SEVERAL_PROCESSES, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(tmp_path))
    found = samples(prometheus_client.generate_latest(registry).decode())
    closed = [v for n, v in found.items() if n.startswith("stalepool_verdicts") and "closed" in n]
    assert sum(closed) == 5  # two in each process, of which one wrote the first alone
    assert found["stalepool_active"] == 3
    assert len(list(tmp_path.glob("counter_*.db"))) == 3


BROKEN = """
import os, json, stalepool
from stalepool.contrib import prometheus
application = prometheus.middleware(lambda environ, start_response: [b"answered"])
import logging; logging.disable()
assert application({}, None) == [b"answered"]
print(json.dumps(stalepool.snapshot()["fallbacks"]))
"""


def test_a_directory_that_is_gone_costs_no_request(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    os.mkdir(gone)
    script = "import urllib3.connectionpool, prometheus_client, os; os.rmdir(%r)" % gone
    text = run(script + BROKEN, PROMETHEUS_MULTIPROC_DIR=gone)
    assert json.loads(text)["metrics_failed"] >= 1


@pytest.mark.full
@pytest.mark.skipif(not proc.has_proc(), reason="there is no /proc here")
def test_processes_are_asked_from_outside(tmp_path: Path) -> None:
    """One without prometheus_client in it, and one in which the shim is off."""
    at = {"STALEPOOL_STATUS_DIR": str(tmp_path)}
    due = "ask(); ask(); from stalepool import status; status._make_due(); ask()"
    with FaultServer([Respond(200), Close()]) as server:
        with Started(SERVICE + due, server.port, **at) as service, Started(
            SERVICE, 0, STALEPOOL_MODE="activ", **at
        ) as off:
            words = ["-m", "stalepool", "status", "--prometheus"]
            done = child(*words, service.pid, off.pid)
    assert (done.returncode, done.stderr) == (0, "")
    found, common = samples(done.stdout), 'pid="%d",' % service.pid
    origin = 'origin="http://127.0.0.1:%d",' % server.port
    name = "stalepool_saved_total{how=%s,%s%sservice=%s}"
    assert found[name % ('"replayed"', origin, common, '"python -c"')] == 1
    active = 'stalepool_active{pid="%d",service="python -c"}'
    assert (found[active % service.pid], found[active % off.pid]) == (1, 0)


def test_nobody_to_be_asked(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("STALEPOOL_STATUS_DIR", str(tmp_path))
    assert main(["status", "--prometheus", str(2**22 + 1)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert set(samples(said.out).values()) == {0}


def test_without_prometheus_client_it_says_so(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert main(["status", "--prometheus"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("stalepool status: --prometheus needs prometheus_client in ")
    assert said.count("\n") == 1


@pytest.fixture
def promtool() -> Callable[..., str]:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool on this machine: Debian's package prometheus has it")

    def run_tool(*words: object, text: str = "") -> str:
        done = child(tool, *words, input=text)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run_tool


def test_names_follow_the_conventions(one_process: str, promtool: Callable[..., str]) -> None:
    text = "".join(line + "\n" for line in one_process.splitlines()[1:] if line)
    assert promtool("check", "metrics", text=text) == ""


def test_the_rules(promtool: Callable[..., str]) -> None:
    assert "3 rules found" in promtool("check", "rules", MONITORING / "alerts.yml")


#: alert -> what is scraped each minute, and the minutes at which the alert is not, and is, firing
ALERTS: Dict[str, Any] = {
    "StalepoolInactive": ("stalepool_active", "1 1 0 0 0 0 0 0 0", 6, 8),
    "StalepoolFellBack": ('stalepool_fallbacks_total{reason="check_failed"}', "_ _ 1 1 1", 1, 2),
    "StalepoolRequestsLost": (
        'stalepool_replays_refused_total{origin="http://a:1",reason="method"}',
        "_ _ 5 5 6 6",
        3,
        4,
    ),
}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires(alert: str, promtool: Callable[..., str], tmp_path: Path) -> None:
    series, values, quiet_at, firing_at = ALERTS[alert]
    checks = [
        {
            "expr": "count(ALERTS{alertname=%r,alertstate='firing'}) or vector(0)" % alert,
            "eval_time": "%dm" % minute,
            "exp_samples": [{"labels": "{}", "value": count}],
        }
        for minute, count in ((quiet_at, 0), (firing_at, 1))
    ]
    scraped = [{"series": series, "values": values}]
    case = {"interval": "1m", "input_series": scraped, "promql_expr_test": checks}
    test = {"rule_files": [str(MONITORING / "alerts.yml")], "evaluation_interval": "1m"}
    (tmp_path / "test.yml").write_text(json.dumps({**test, "tests": [case]}))
    promtool("test", "rules", tmp_path / "test.yml")


def test_the_dashboard_asks_for_what_there_is(
    one_process: str, promtool: Callable[..., str], tmp_path: Path
) -> None:
    text = (MONITORING / "dashboard.json").read_text().replace("$__rate_interval", "5m")
    queries = [each["expr"] for panel in json.loads(text)["panels"] for each in panel["targets"]]
    known = {line.split()[2] for line in one_process.splitlines() if line.startswith("# TYPE")}
    for query in queries:
        assert any(name in query for name in known), query
    rules = [{"record": "x:%d" % n, "expr": query} for n, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")
