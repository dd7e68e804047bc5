"""The alerting page: every counter that it tells to watch is one that there is."""

from __future__ import annotations

import re

from conftest import REPOSITORY
from stalepool import stats
from stalepool.cli.status.explain import EVENTS, VERDICTS

PAGE = (REPOSITORY / "docs" / "alerting.rst").read_text(encoding="utf-8")


def test_each_counter_on_the_page_exists() -> None:
    counters = stats.Origin("").as_dict()
    named = re.findall(r"``(?:([a-z_]+))?\.([a-z_]+)``", PAGE)
    group, found = "", []
    for given, name in named:
        group = given or group  # ``a.b``, ``.c``
        found.append((group, name))
        if group == "knowledge":
            assert name in stats.Knowledge().as_dict()
        elif group != "stalepool":
            assert group in counters, group
            assert name in counters[group] or name in {**EVENTS, **VERDICTS}, (group, name)
    assert {("replays_refused", "method"), ("saved", "replayed"), ("gone", "reset")} <= set(found)
