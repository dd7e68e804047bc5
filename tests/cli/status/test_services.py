"""Services: workers that were forked from one process."""

import json

from service_process import SERVICE, Started
from stalepool.cli.status import find, services

WORKERS = """
said = []
for number in range(3):
    reader, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        if number < 2:
            ask(), ask()
            from stalepool import status; status._make_due(); ask()
        os.write(mouth, b"x")
        signal.pause()
    os.read(reader, 1)
    said.append(child)
import atexit
atexit.register(lambda: [os.kill(child, signal.SIGKILL) for child in said])
"""


def test_a_service_is_named_by_its_oldest_process():
    """Whose id may be higher than that of a worker, once the ids have begun anew."""
    master = find.Process(30935, "u", "gunicorn", b"image", started=1)
    worker = find.Process(7649, "u", "gunicorn", b"image", started=2)
    assert services.services_of([worker, master], each=False)[0].processes == [master, worker]


def test_workers_are_summed_and_shown_each_on_request(at, flaky, status):
    """One worker has had no answer yet."""
    with Started(SERVICE + WORKERS, flaky.port, **at) as service:
        workers = list(map(int, service.said[1:]))
        shown, together, each = status().stdout, status("--json"), status("--json", "--each")
    together, each = (json.loads(done.stdout)["services"] for done in (together, each))
    notes = [{each["pid"]: each["note"] for each in s["processes"]} for s in together]
    (mine,) = [number for number, pids in enumerate(notes) if service.pid in pids]
    assert notes[mine] == {**dict.fromkeys((service.pid, *workers)), workers[2]: find.FORKED}
    assert together[mine]["totals"]["checkouts"] == 4
    (summed,) = together[mine]["origins"].values()
    assert summed["checkouts"] == 4 and "knowledge" not in summed  # idle limits make no sum
    assert "%s (pid %d)" % (find.FORKED, workers[2]) in shown
    by_pid = {s["processes"][0]["pid"]: s for s in each}
    assert set(by_pid) >= {service.pid, *workers}
    assert [by_pid[worker]["totals"]["checkouts"] for worker in workers[:2]] == [2, 2]
