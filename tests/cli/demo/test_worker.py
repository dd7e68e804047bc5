"""The busy worker, in a green process."""

from stalepool_testing import FaultServer


def run_for_a_moment(url):
    from stalepool.cli.demo import worker

    worker.SECONDS, worker.CLIENTS, worker.BUSY, worker.PAUSE_S = 1, 2, 1, (0.01, 0.02)
    return worker.run(url)


def test_what_it_finds(call_python):
    with FaultServer() as server:
        found = call_python(run_for_a_moment, server.url, world="eventlet")
        asked = len(server.journal)
    assert found["requests"] == asked - 2 > 0, "the first one of each client does not count"
    assert (found["failures"], found["detail"]) == (0, "")


def test_clients_that_never_come_as_far_as_their_pools_say_why(call_python):
    found = call_python(run_for_a_moment, "http://127.0.0.1:1", world="eventlet")
    assert (found["requests"], found["failures"]) == (0, 0)
    assert "111" in found["detail"] and " at 0x" not in found["detail"]
