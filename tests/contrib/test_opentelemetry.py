"""The instruments on OpenTelemetry's API, read by its SDK."""

import pytest

from pools import end_while_idle, get, shim
from replay_tools import reused
from stalepool import fallback, stats

pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk, as the extra test has it")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from stalepool.contrib import opentelemetry


def test_the_instruments():
    reader = InMemoryMetricReader()
    opentelemetry.instrument(MeterProvider([reader], shutdown_on_exit=False))
    with shim(falls_back=True), reused() as (server, pool):
        end_while_idle(server, pool)
        assert get(pool) == 200
        stats.origin(stats.OTHERS).count("verdicts", "alive")
        fallback.fall_back("check_failed", "by hand")
        ((scope,),) = (each.scope_metrics for each in reader.get_metrics_data().resource_metrics)
    assert scope.scope.name == "stalepool" and all(each.data.is_monotonic for each in scope.metrics)
    found = {
        metric.name: [[dict(point.attributes), point.value] for point in metric.data.data_points]
        for metric in scope.metrics
    }
    origin = {"url.scheme": "http", "server.address": "127.0.0.1", "server.port": server.port}
    verdicts = {each["stalepool.reason"]: (each, n) for each, n in found["stalepool.verdicts"]}
    assert verdicts["closed"] == ({**origin, "stalepool.reason": "closed"}, 1)
    assert verdicts["alive"] == ({"server.address": stats.OTHERS, "stalepool.reason": "alive"}, 1)
    assert [origin, 1] in found["stalepool.discards"]
    assert [origin, 2] in found["stalepool.keepalive_armed"]
    assert found["stalepool.fallbacks"] == [[{"stalepool.reason": "check_failed"}, 1]]
    names = (*stats.GROUPS, "saved", "discards", "keepalive_armed", "fallbacks")
    assert set(found) <= {"stalepool." + name for name in names}
