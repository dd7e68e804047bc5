"""The page that ``stalepool status`` prints."""

import json
import time

from pools import get, serving, shim
from service_process import service_after_two_requests, this_process
from stalepool.cli.status import page, report
from stalepool.cli.status.find import Process
from stalepool.cli.status.services import Service
from stalepool.stats import Knowledge


def test_an_old_status_and_origins_of_which_there_is_nothing_to_tell():
    with shim(), serving() as (_, pool), serving() as (_, another), serving() as (_, third):
        assert [get(each) for each in (pool, another, third, third)] == [200] * 4
        service = this_process()
    ports = tuple(":%d" % each.port for each in (pool, another, third))
    (seen,) = service.seen
    seen["origins"] = {name: o for name, o in seen["origins"].items() if name.endswith(ports)}
    seen["written_at"] -= 3 * 86400
    text = page.page([service])
    assert "\n  as of 3 d ago: " in text
    assert [port in text for port in ports] == [False, False, True]
    assert text.endswith("  no connection was reused yet to 2 origins")


def test_what_came_after_the_last_write_is_not_counted():
    """A process writes at the first answer of a burst, and not at its last one."""
    service = service_after_two_requests(mode="audit")
    (seen,) = service.seen
    seen["written_at"] = time.time() - 15
    seen["since"] = seen["written_at"] - 30
    for write in (page.page, report.report):
        assert "as of 15 s ago: a process writes its status after an answer" in write([service])
    assert "audit for 30 s" in page.page([service])


def test_the_age_is_that_of_the_processes_that_send_requests():
    """A gunicorn master that has preloaded its application writes once."""
    (worker,) = service_after_two_requests().processes
    master = worker._replace(seen=json.loads(json.dumps(worker.seen)))
    master.seen["totals"]["checkouts"] = 0
    master.seen["written_at"] -= 600
    assert "as of" not in page.page([Service([master, worker])])


def test_counts_of_ended_workers_are_said_to_be_missing():
    """Of a service one of whose workers began long after the others, in the report as well."""
    (young,) = service_after_two_requests(mode="audit").processes
    young.seen["since"] = time.time()
    old = young._replace(seen={**young.seen, "since": time.time() - 7200})
    words = "the youngest process began 0 s ago: counts of workers that have ended are not included"
    for write in (page.page, report.report):
        assert words in write([Service([old, young])])
        assert words not in write([Service([young, young])])


def test_what_was_learnt_is_said_in_words():
    now, nothing = time.time(), Knowledge().as_dict()
    known = (
        {**nothing, "observed_idle_limit_s": 5.01},
        {**nothing, "keepalive_probes": "swallowed", "moves_stopped_for_s": 300.0},
    )
    workers = [{"written_at": now, "origins": {"http://a:1": {"knowledge": k}}} for k in known]
    service = Service([Process(n, "u", "x", b"", worker) for n, worker in enumerate(workers)])
    assert page.learnt(service, "http://a:1", {"died_idle_s": {"5.01": 3}}) == [
        "closes idle connections at about 5.01 s (3 deaths)",
        "swallows keepalive probes",
        "no moves near an idle limit until %s" % time.strftime("%H:%M", time.localtime(now + 300)),
    ]


def test_where_the_shim_is_off_there_is_one_line():
    off = this_process(installed=False, off_because="x")
    unseen = Service([Process(1, "u", "x", b"", note="why")])
    assert page.page([off, unseen]) == "x (pid 1, user u): off: x\n\nx (pid 1, user u): why"
