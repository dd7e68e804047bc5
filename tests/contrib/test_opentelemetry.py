"""The instruments on OpenTelemetry's API, read by its SDK."""

import pytest

from stalepool import stats

pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk, as the extra test has it")

SCRIPT = """
import urllib3
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from stalepool import fallback, stats
from stalepool.contrib import opentelemetry

reader = InMemoryMetricReader()
opentelemetry.instrument(MeterProvider([reader], shutdown_on_exit=False))
meet_a_dead_connection(urllib3.connectionpool)
stats.origin(stats.OTHERS).count("verdicts", "alive")
fallback.fall_back("check_failed", "by hand")
found = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        assert scope.scope.name == "stalepool"
        for metric in scope.metrics:
            assert metric.data.is_monotonic
            found[metric.name] = [[dict(p.attributes), p.value] for p in metric.data.data_points]
print(json.dumps(found))
"""


def test_the_instruments(run_order, port):
    found = run_order(SCRIPT, flags=["-Werror"])
    origin = {"url.scheme": "http", "server.address": "127.0.0.1", "server.port": port}
    verdicts = {each["stalepool.reason"]: (each, n) for each, n in found["stalepool.verdicts"]}
    assert verdicts["closed"] == ({**origin, "stalepool.reason": "closed"}, 1)
    assert verdicts["alive"] == ({"server.address": stats.OTHERS, "stalepool.reason": "alive"}, 1)
    assert [origin, 1] in found["stalepool.discards"]
    assert [origin, 2] in found["stalepool.keepalive_armed"]
    assert found["stalepool.fallbacks"] == [[{"stalepool.reason": "check_failed"}, 1]]
    names = (*stats.GROUPS, "saved", "discards", "keepalive_armed", "fallbacks")
    assert set(found) <= {"stalepool." + name for name in names}
