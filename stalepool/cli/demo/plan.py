"""Durations and counts of the demo; seconds unless the name says otherwise."""

from __future__ import annotations

#: a request that takes longer is cut off, and counts as hung
HUNG_AFTER_S = 6.0

#: how long the path is away, and from its return to the answer
AWAY_S, ANSWERED_AFTER_S = 4.0, 1.0

#: the busy worker: its clients, and green threads that work so long whenever it is their turn
SECONDS = 7.0
CLIENTS, BUSY = 300, 100
WORK_S = 0.001
#: for how long a client pauses, and its server keeps an idle connection
PAUSE_S = (0.5, 1.5)

#: nova-api's settings with stalepool, where they are not the defaults: an idle connection would
#: have to be silent for five times as long, and a request for seven times
SHORTENED = {
    "STALEPOOL_KEEPALIVE_IDLE_S": "1",
    "STALEPOOL_KEEPALIVE_INTERVAL_S": "1",  # a longer one would be the pace of all probes
    "STALEPOOL_SILENCE_S": "2",
}
