"""The collector for prometheus_client, against the real one; the alerts, against promtool."""

import json
import shutil

import pytest

from conftest import REPOSITORY, child
from stalepool import stats

prometheus_client = pytest.importorskip("prometheus_client", reason="needs the extra prometheus")
multiprocess = pytest.importorskip("prometheus_client.multiprocess")

MONITORING = REPOSITORY / "docs" / "monitoring"
MULTIPROC = "PROMETHEUS_MULTIPROC_DIR"


def samples(text):
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


ONE_PROCESS = """
import prometheus_client, stalepool, urllib3
from stalepool.contrib import prometheus
registry = prometheus_client.CollectorRegistry()
registry.register(prometheus.Collector())
meet_a_dead_connection(urllib3.connectionpool)
prometheus.write()  # nothing, in one process
print(json.dumps(prometheus_client.generate_latest(registry).decode()))
"""


@pytest.fixture
def shown(run_order):
    return run_order(ONE_PROCESS, flags=["-Werror"])


def test_one_process(shown, port):
    origin = 'origin="http://127.0.0.1:%d"' % port
    expected = {
        'stalepool_verdicts_total{%s,verdict="closed"}' % origin: 1,
        "stalepool_discards_total{%s}" % origin: 1,
        'stalepool_gone_total{%s,reason="closed"}' % origin: 1,
        'stalepool_saved_total{how="replayed",%s}' % origin: 0,
        "stalepool_active": 1,
        "stalepool_keepalive_armed_total{%s}" % origin: 2,
    }
    assert expected.items() <= samples(shown).items()
    assert "stalepool_fallbacks_total{" not in shown
    for name in (*stats.GROUPS, "saved", "discards", "keepalive_armed", "fallbacks"):
        assert "# TYPE stalepool_%s_total counter" % name in shown


SEVERAL_PROCESSES = """
import os, threading, urllib3
from stalepool.contrib import prometheus

application = prometheus.middleware(lambda environ, start_response: [b"answered"])

def work():
    for _ in range(2):  # writes at its first call; soon after it does not write again
        meet_a_dead_connection(urllib3.connectionpool)
        assert application({}, None) == [b"answered"]

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


def test_several_processes(tmp_path, run_order):
    run_order(SEVERAL_PROCESSES, env={MULTIPROC: str(tmp_path)}, flags=["-Werror"])
    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(tmp_path))
    found = samples(prometheus_client.generate_latest(registry).decode())
    closed = [v for n, v in found.items() if n.startswith("stalepool_verdicts") and "closed" in n]
    assert sum(closed) == 5  # two in each process, of which one wrote the first alone
    assert found["stalepool_active"] == 3
    assert not [name for name in found if name.startswith("stalepool_fallbacks_total")]
    assert len(list(tmp_path.glob("counter_*.db"))) == 3


BROKEN = """
import urllib3.connectionpool, prometheus_client, os
os.rmdir(os.environ["PROMETHEUS_MULTIPROC_DIR"])
import logging, stalepool
from stalepool.contrib import prometheus
logging.disable()
application = prometheus.middleware(lambda environ, start_response: [b"answered"])
assert application({}, None) == [b"answered"]
print(stalepool.snapshot()["fallbacks"]["metrics_failed"])
"""


def test_a_directory_that_is_gone_costs_no_request(tmp_path, run_python):
    assert run_python(BROKEN, env={MULTIPROC: str(tmp_path)}, flags=["-Werror"]) >= 1


@pytest.fixture
def promtool():
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool on this machine: Debian's package prometheus has it")

    def run_tool(*words, text=""):
        done = child(tool, *words, input=text)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run_tool


def test_names_follow_the_conventions_and_the_dashboard_asks_for_them(shown, promtool, tmp_path):
    assert promtool("check", "metrics", text=shown) == ""
    text = (MONITORING / "dashboard.json").read_text().replace("$__rate_interval", "5m")
    queries = [each["expr"] for panel in json.loads(text)["panels"] for each in panel["targets"]]
    known = {line.split()[2] for line in shown.splitlines() if line.startswith("# TYPE")}
    assert [query for query in queries if not any(name in query for name in known)] == []
    rules = [{"record": "x:%d" % n, "expr": query} for n, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")
    # each of the alerts is tested below
    assert "%d rules found" % len(ALERTS) in promtool("check", "rules", MONITORING / "alerts.yml")


LOST = 'stalepool_replays_refused_total{origin="http://a:1",reason="method"}'
#: alert -> what is scraped each minute, and the minutes at which the alert is not, and is, firing
ALERTS = {
    "StalepoolInactive": ("stalepool_active", "1 1 0 0 0 0 0 0 0", 6, 8),
    "StalepoolFellBack": ('stalepool_fallbacks_total{reason="check_failed"}', "_ _ 1 1 1", 1, 2),
    "StalepoolRequestsLost": (LOST, "_ _ 5 5 6 6", 3, 4),
}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires(alert, promtool, tmp_path):
    series, values, quiet_at, firing_at = ALERTS[alert]
    expr = "count(ALERTS{alertname=%r,alertstate='firing'}) or vector(0)" % alert
    checks = [
        {"expr": expr, "eval_time": "%dm" % at, "exp_samples": [{"labels": "{}", "value": count}]}
        for at, count in ((quiet_at, 0), (firing_at, 1))
    ]
    scraped = [{"series": series, "values": values}]
    case = {"interval": "1m", "input_series": scraped, "promql_expr_test": checks}
    test = {"rule_files": [str(MONITORING / "alerts.yml")], "evaluation_interval": "1m"}
    (tmp_path / "test.yml").write_text(json.dumps({**test, "tests": [case]}))
    promtool("test", "rules", tmp_path / "test.yml")
