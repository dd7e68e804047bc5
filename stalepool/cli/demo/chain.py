"""The incident's chain, once: compute, balancer, neutron, nova-api and the network.

    compute -> balancer -> neutron -> balancer -> nova-api -> network -> balancer -> neutron

This process is nova-compute, all others are children. The connection that
breaks is the pooled one between nova-api and the network.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any, Dict, Mapping, NamedTuple, Optional, Union

from stalepool.cli.demo import balancer
from stalepool.cli.demo.calls import Reply, call
from stalepool.cli.demo.cases import Case
from stalepool.cli.demo.outcome import Answer, Impossible
from stalepool.cli.demo.processes import (
    Address,
    DemoError,
    Processes,
    address_of,
    listener,
    read_line,
    to_text,
)

#: A request that takes longer than this is cut off and counts as hung.
HUNG_AFTER_S = 8.0

_CONTROL_TIMEOUT_S = 60.0
_PORT = "/v2.0/ports/8f0f6c7e"


class Counters(NamedTuple):
    """What the shim of nova-api has counted so far."""

    verdicts: Dict[str, int]
    replays: Dict[str, int]


class Chain:
    """All processes of one half of the demo, running."""

    def __init__(
        self,
        processes: Processes,
        name: str,
        haproxy: Optional[str],
        settings: Optional[Mapping[str, str]],
    ) -> None:
        """Start the processes; does not wait for them.

        :param name: appended to the names of the logs.
        :param haproxy: the program's path, or None for the relay of our own.
        :param settings: stalepool's settings in nova-api, or None: without it.
        """
        self._processes = processes
        self._name = name
        nova, neutron, network = listener(), listener(), listener()
        fronts = {"neutron": listener(), "nova": listener()}
        self._nova = address_of(nova)
        self._front = {service: address_of(sock) for service, sock in fronts.items()}
        servers = {"neutron": address_of(neutron), "nova": self._nova}

        processes.start(
            f"nova-{name}",
            "nova",
            *(str(nova.fileno()), to_text(address_of(network))),
            serves=[nova],
            settings=settings,
        )
        processes.start(
            f"neutron-{name}",
            "neutron",
            *(str(neutron.fileno()), to_text(self._front["nova"])),
            serves=[neutron],
        )
        self._network = processes.start(
            f"network-{name}",
            "network",
            *(str(network.fileno()), to_text(self._front["neutron"])),
            serves=[network],
            talks=True,
        )
        self._start_balancer(haproxy, fronts, servers)

    def ready(self, with_shim: bool) -> None:
        """Wait until nova-api answers; make sure that it has the shim, or has not.

        :raises DemoError: a process has died, or the shim is not as asked for.
        """
        has_shim = self._control("counters")["shim"]
        if has_shim and not with_shim:
            raise DemoError("stalepool is active in nova-api in spite of STALEPOOL_ENABLED=0")
        if with_shim and not has_shim:
            log = self._processes.last_words(f"nova-{self._name}")
            raise DemoError(f"stalepool is not active in nova-api, which has logged:\n{log}")

    def play(self, case: Case) -> Union[Answer, Impossible]:
        """Break the pooled connection as the case says, then update a port.

        Blocks for ``case.idle_s`` and until the answer is there or cut off.
        """
        assert case.fault is not None
        self._control("warm")
        answer = self._strike(case.fault)
        if answer.startswith("impossible"):
            return Impossible(answer.partition(" ")[2])
        if answer != "struck 1":
            raise self._processes.explain(f"{case.name}: the network answered {answer!r}")
        before = self._counters()
        time.sleep(case.idle_s)
        began = time.monotonic()
        reply = self._update_port()
        seconds = time.monotonic() - began
        after = self._counters()
        return Answer(
            status=None if reply is None else reply.status,
            seconds=seconds,
            detail="" if reply is None or reply.status == 200 else _message(reply.body),
            judged=_grown(before.verdicts, after.verdicts),
            replays=_grown(before.replays, after.replays),
        )

    def _update_port(self) -> Optional[Reply]:
        """nova-compute's request; None if it hangs."""
        try:
            return call("PUT", self._front["neutron"], _PORT, HUNG_AFTER_S)
        except socket.timeout:
            return None
        except (OSError, http.client.HTTPException) as error:
            raise self._processes.explain(f"the balancer does not answer ({error})") from error

    def _counters(self) -> Counters:
        data = self._control("counters")
        return Counters(data["verdicts"], data["replays"])

    def _control(self, what: str) -> Dict[str, Any]:
        try:
            reply = call("GET", self._nova, f"/control/{what}", _CONTROL_TIMEOUT_S)
        except (OSError, http.client.HTTPException) as error:
            raise self._processes.explain(f"nova-api does not answer ({error})") from error
        if reply.status != 200:
            raise self._processes.explain(f"nova-api says {reply.status}: {reply.body}")
        data: Dict[str, Any] = json.loads(reply.body)
        return data

    def _strike(self, fault: str) -> str:
        assert self._network.stdin is not None
        try:
            self._network.stdin.write(fault.encode() + b"\n")
            self._network.stdin.flush()
        except OSError as error:
            raise self._processes.explain("the network is gone") from error
        return read_line(self._network.stdout)

    def _start_balancer(
        self,
        haproxy: Optional[str],
        fronts: Mapping[str, socket.socket],
        servers: Mapping[str, Address],
    ) -> None:
        services = {service: sock.fileno() for service, sock in fronts.items()}
        if haproxy is None:
            arguments = ["relay"]
            arguments += [f"{fd}={to_text(servers[name])}" for name, fd in services.items()]
        else:
            path = self._processes.logs / f"haproxy-{self._name}.cfg"
            path.write_text(balancer.configuration(services, servers))
            arguments = ["haproxy", haproxy, str(path)]
        self._processes.start(
            f"balancer-{self._name}", "balancer", *arguments, serves=list(fronts.values())
        )


def _message(body: str) -> str:
    """The text of nova-api's fault; the whole body where it is something else."""
    try:
        return str(json.loads(body)["computeFault"]["message"])
    except (ValueError, KeyError, TypeError):
        return body


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> Dict[str, int]:
    """Which counters have grown, and by how much."""
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: growth for name, growth in grown.items() if growth}
