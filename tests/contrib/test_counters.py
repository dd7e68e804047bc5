"""The counters of a snapshot, as metrics."""

import stalepool
from stalepool.contrib import counters


def test_the_labels():
    seen = {metric.name: metric.labels for metric in counters.counters(stalepool.snapshot())}
    told = {"discards": (), "keepalive_armed": (), "verdicts": ("verdict",), "saved": ("how",)}
    told.update(dict.fromkeys(("moved", "replays_refused", "gone"), ("reason",)))
    told.update(dict.fromkeys(("replays", "reconnects"), ("outcome",)))
    assert seen.pop("fallbacks") == ("reason",)
    assert seen == {name: ("origin", *labels) for name, labels in told.items()}
