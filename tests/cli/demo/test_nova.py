"""nova-api's process: what it answers, and when it ends."""

import json

from stalepool.cli.demo.scene import PORTS
from stalepool.cli.demo.service import Service, call
from stalepool_testing import FaultServer, Respond


def test_what_it_answers_and_that_it_ends_with_the_demo(tmp_path):
    with FaultServer([Respond(body=PORTS)]) as neutron:
        with Service(neutron.origin, tmp_path / "log", {}) as nova:
            assert nova.tell("/servers/detail") == {"servers": [{"id": "c0ffee42"}]}
            assert nova.tell("/demo/counters") == {"shim": True, "judged": {}, "replays": {}}
            status, body = call("GET", nova.port, "/no/such")
            assert (status, json.loads(body)["computeFault"]["code"]) == (500, 500)
            nova._process.stdin.close()  # as a demo that was killed leaves it
            assert nova._process.wait(30) == 1
