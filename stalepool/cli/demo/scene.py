"""One half of the demo, running: nova-compute, neutron, and the way between them and nova-api."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Deque, Dict, Mapping, Optional

from stalepool.cli.complaint import Complaint
from stalepool.cli.demo.outcome import Answer, Did, Impossible, Outcome, Race
from stalepool.cli.demo.plan import HUNG_AFTER_S, PAUSE_S
from stalepool.cli.demo.service import Reply, Service, call
from stalepool_testing import (
    AnswerStep,
    CloseAfter,
    Exchange,
    FaultServer,
    Request,
    Respond,
    Unavailable,
)

PORTS = json.dumps({"ports": [{"id": "8f0f6c7e", "device_id": "c0ffee42"}]}).encode()
_LIST_PORTS = Respond(body=PORTS)


@dataclass(frozen=True)
class UpdatePort(AnswerStep):
    """Neutron's answer to nova-compute: whose the port is, nova-api must say."""

    nova: Service

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        try:
            reply = call("GET", self.nova.port, "/servers/detail")
        except (OSError, http.client.HTTPException) as error:
            reply = Reply(502, f"nova-api: {error}")
        exchange.respond(reply.status, reply.body.encode())


class Scene(contextlib.ExitStack):
    """All of one half; leaving the ``with`` block ends it.

    Neutron is two servers: what is done to the one that nova-api asks must not meet nova-compute.

    :param half: ``without`` or ``with``.
    :param settings: stalepool's settings in nova-api.
    :ivar neutron: the server that nova-api asks.
    :ivar planned: neutron's next answers to it, where they are not the usual one.
    :ivar pooled: the number of nova-api's pooled connection there.
    """

    pooled = -1

    def __init__(self, logs: Path, half: str, settings: Mapping[str, str]) -> None:
        super().__init__()
        self._half = half
        self.planned: Deque[AnswerStep] = deque()
        self.neutron = self.enter_context(FaultServer(self._next_step))
        self._front = self.enter_context(FaultServer(lambda request: UpdatePort(self.nova)))
        log = logs / f"nova-{half}.log"
        self.nova = self.enter_context(Service(self.neutron.origin, log, settings))

    def check(self) -> None:
        """Wait until nova-api answers; make sure that it has the shim, or has not.

        :raises Complaint: it has died, or the shim is not as asked for.
        """
        has_shim = self.nova.tell("/demo/counters")["shim"]
        if has_shim and self._half == "without":
            raise Complaint("stalepool is active in nova-api in spite of STALEPOOL_ENABLED=0")
        if not has_shim and self._half == "with":
            raise Complaint(f"stalepool is not active in nova-api; {self.nova.last_words()}")

    def play(self, do: Callable[[Scene], object], idle_s: float) -> Outcome:
        """Do something to nova-api's pooled connection, then update a port.

        Blocks for ``idle_s`` and until the answer is there or cut off.
        """
        self.nova.tell("/servers/detail")  # from here on its connection is pooled
        self.pooled = self.neutron.journal[-1].connection
        try:
            do(self)
        except Unavailable as error:
            return Impossible(str(error.strerror or error))
        time.sleep(idle_s)
        before, asked = self._counters(), len(self.neutron.journal)
        began = time.monotonic()
        reply = self._update_port()
        seconds = time.monotonic() - began
        return Answer(
            status=None if reply is None else reply.status,
            seconds=seconds,
            detail="" if reply is None or reply.status == 200 else _message(reply.body),
            asked=len(self.neutron.journal) - asked,
            did=self._since(before),
        )

    def race(self) -> Outcome:
        """Have nova-api's process be a busy worker, towards a server that closes idle connections.

        :raises Complaint: it does not come to an end.
        """
        before = self._counters()
        with FaultServer(lambda request: CloseAfter(random.uniform(*PAUSE_S))) as server:
            found = self.nova.tell(f"/demo/busy?{server.url}")
        return Race(**found, did=self._since(before))

    def _next_step(self, request: Request) -> AnswerStep:
        return self.planned.popleft() if self.planned else _LIST_PORTS

    def _update_port(self) -> Optional[Reply]:
        """nova-compute's request; None if it hangs."""
        try:
            return call("PUT", self._front.port, "/v2.0/ports/8f0f6c7e", HUNG_AFTER_S)
        except socket.timeout:
            return None

    def _counters(self) -> Dict[str, Any]:
        return dict(self.nova.tell("/demo/counters"))

    def _since(self, before: Dict[str, Any]) -> Did:
        """Return the counters that have grown, and by how much."""
        after = self._counters()
        return Did(*(dict(Counter(after[kind]) - Counter(before[kind])) for kind in Did._fields))


def _message(body: str) -> str:
    """The text of nova-api's fault; the whole body where it is something else."""
    try:
        return str(json.loads(body)["computeFault"]["message"])
    except (ValueError, KeyError, TypeError):
        return body
