"""A server that fails by its script, and keeps a journal of what it really did."""

from __future__ import annotations

import socket
from typing import Callable

from stalepool_testing.arguments import got
from stalepool_testing.channel import Channel
from stalepool_testing.exchange import Exchange
from stalepool_testing.faults import Fault
from stalepool_testing.listener import Listener
from stalepool_testing.messages import answer_bytes
from stalepool_testing.network import AddedFault
from stalepool_testing.script import AnswerStep, IdleStep, Script, ScriptLike, Step
from stalepool_testing.steps import Respond, ZeroWindow
from stalepool_testing.tls import TLS
from stalepool_testing.wire import Ended


class FaultServer(Listener):
    """An HTTP/1.1 server on loopback, with a script of faults::

        with FaultServer([Respond(200), CloseAfter(0.05), Reset()]) as server:
            ...requests to server.url...

    The first request is answered. 50 ms later its connection is closed, unless another request
    comes on it before. The second request, on whatever connection, is reset as it arrives.

    **The script** is used in order, across connections. An *answer step* is for the next request
    that arrives, whichever connection it comes on. An *idle step* belongs to the answer before it,
    and is done on that answer's connection as soon as the answer is sent; several are done one
    after the other. Idle steps at the beginning are for the first connection, as soon as it is
    accepted. After the last step every request gets ``default``. An idle step cannot follow a step
    that ends the connection (``ValueError``).

    **A function** instead of the list, ``script(request)``, is called for each request, from
    several threads. It sees the head, not the body, and returns an answer step, an idle step
    (``default`` is answered before it), or a list of an answer step and its idle steps.

    **Every answer** repeats the request's ``X-Request-Id``. Bodies are read by Content-Length or
    chunked, after ``100 Continue`` if it is expected; answers to HEAD, and 204 and 304, have no
    body. After a client's ``Connection: close`` the server closes. What is not HTTP/1 gets 400 and
    a FIN.

    **Faults of the path**, such as latency, are added and lifted while it runs: :meth:`add`.

    **Threads**: one for each connection, native, or green under eventlet. Starts at once.

    :param script: a list of steps, or a function of the request.
    :param no_list: refused, because several steps have to be in a list.
    :param tls: ``TLS()`` for https.
    :param family: ``AF_INET``, ``AF_INET6`` or ``AF_UNIX``.
    :param host: the address to listen on; ``None``, the default, is the family's loopback.
    :param default: the answer step for every request after the last step.
    :param receive_buffer: SO_RCVBUF of the server's sockets in bytes, for ``ZeroWindow``.
    :raises Unavailable: the kernel cannot do a step of the list, or has no IPv6.
    """

    def __init__(
        self,
        script: ScriptLike = (),
        *no_list: object,
        tls: TLS | None = None,
        family: int = socket.AF_INET,
        host: str | None = None,
        default: AnswerStep | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        if no_list:
            steps = ", ".join(map(str, (script, *no_list)))
            raise TypeError(f"script takes a list of steps: write [{steps}]")
        self._script = Script(script, Respond(200) if default is None else default)
        for step in self._script.steps:
            step.check(family)
            if isinstance(step, ZeroWindow) and receive_buffer is None:
                receive_buffer = 16384
        super().__init__(tls, family, host, receive_buffer)

    @property
    def script_left(self) -> int:
        """The number of answer steps of the list that no request has met yet."""
        return len(self._script.left)

    # -- steer the server while it runs ------------------------------------------------------

    def add(self, fault: Fault, *, only_open: bool = False) -> AddedFault:
        """Put a fault in force, on the connections that are open and on those to come::

            with server.add(Latency(0.2)):
                ...each answer is 0.2 s late...

            blackout = server.add(Blackout())
            ...nothing arrives...
            blackout.lift()

        Any number of them can be in force; the order in which they were added makes no difference.

        :param only_open: it affects the connections that are open now, and no new ones, like a
            firewall that has lost its state, or a load balancer that was restarted.
        :returns: an object that ends it, by :meth:`.AddedFault.lift` or as a context manager.
        :raises TypeError: it is no fault.
        :raises ValueError: the server is closed.
        :raises Unavailable: the kernel cannot do it.
        """
        if not isinstance(fault, Fault):
            raise TypeError(f"add() takes a fault such as Latency(0.2), {got(fault, Fault)}")
        fault.check(self.family)
        if self._closing:
            raise ValueError(f"the server is closed, {fault} cannot be added")
        self._know_clients()
        still_open = frozenset(c.number for c in tuple(self.channels) if not c.ended)
        return self._network.add(fault, still_open if only_open else None)

    # -- synchronise with the server ---------------------------------------------------------

    def perform(self, step: IdleStep, connection: int = -1, timeout_s: float = 5.0) -> None:
        """Do an idle step to a connection now, as soon as the server waits on it.

        For faults at an exact moment, such as between a client's check of its connection and its
        request. Returns when the step is done: a FIN, for example, is sent. To wait until it has
        *arrived*, call ``wait_readable()`` with the client's socket.

        :param connection: its number, -1 for the newest.
        :raises TypeError: it is no idle step.
        :raises ValueError: there is no such connection, or it is over.
        :raises Unavailable: the kernel cannot do the step.
        :raises TimeoutError: it is not done in time.
        """
        if not isinstance(step, IdleStep):
            raise TypeError(
                f"perform() takes an idle step such as ResetAfter(0), {got(step, Step)}"
            )
        step.check(self.family)
        channels = list(self.channels)
        try:
            channel = channels[connection]
        except IndexError:
            raise ValueError(
                f"there is no connection {connection} to perform {step} on: "
                f"{len(channels)} clients have connected"
            ) from None
        done = self._steps_done(channel.number)
        if not (channel.is_open and channel.tell(lambda: self._idle(channel, step))):
            raise ValueError(f"connection {channel.number} is over, {step} cannot be performed")
        self._wait(
            lambda: self._steps_done(channel.number) > done,
            timeout_s,
            f"{step} on connection {channel.number}",
        )

    def wait_request(self, count: int = 1, timeout_s: float = 5.0) -> None:
        """Wait until the heads of so many requests have arrived since the server started.

        :raises TimeoutError: they have not in time.
        """
        step = self._script.answer_step(count - 1)
        self._wait(
            lambda: len(self.journal) >= count,
            timeout_s,
            f"request {count - 1}" + (f", which was to meet {step}," if step else ""),
        )

    def wait_idle_step(self, count: int = 1, timeout_s: float = 5.0) -> None:
        """Wait until so many idle steps have been done since the server started.

        A step that was left out because a request came first does not count.

        :raises TimeoutError: they have not in time.
        """
        step = self._script.idle_step(count - 1)
        self._wait(
            lambda: len(self.journal.idle_steps) >= count,
            timeout_s,
            f"idle step {count - 1}" + (f", {step}," if step else " (none is listed)"),
        )

    def wait_ended(self, connection: int = 0, timeout_s: float = 5.0) -> str:
        """Wait until a connection is over: the server has closed its socket.

        :returns: how it ended, as in ``journal.connections[connection].ended``.
        :raises TimeoutError: it is not over in time.
        """
        connections = self.journal.connections
        self._wait(
            lambda: any(c.number == connection and c.ended for c in tuple(connections)),
            timeout_s,
            f"end of connection {connection}",
        )
        return str(connections[connection].ended)

    def steps_left(self) -> str:
        """Return a sentence that names the steps that no request has met; empty without any."""
        left = [step for turn in self._script.left for step in (turn.answer, *turn.idle)]
        if not self.journal.connections:
            left = [*self._script.opening, *left]
        if not left:
            return ""
        steps = ", ".join(map(str, left))
        came = f"{len(self.journal)} came in all"
        return f"no request met {steps}: {came} (may_leave_steps=True permits that)"

    def _wait(self, check: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait as the journal does, but only until the server has failed."""
        __tracebackhide__ = True
        self.journal.wait(lambda _: bool(self.errors) or check(), timeout_s, what)
        if not check():
            raise self.errors[0]

    def _steps_done(self, number: int) -> int:
        return sum(done.connection == number for done in tuple(self.journal.idle_steps))

    # -- serve ---------------------------------------------------------------------------------

    def _serve(self, channel: Channel) -> None:
        if channel.number == 0:
            for step in self._script.opening:
                self._idle(channel, step)
        while channel.is_open:
            channel.wait_request()
            try:
                request = channel.read_head()
            except ValueError as error:
                self.journal.write(channel.number, f"{error}: answered 400")
                channel.send(answer_bytes(400, str(error).encode()))
                channel.throw_away()
                channel.close()
                return
            turn = self._script.next(request)
            self._answer(turn.answer, Exchange(channel, request, turn.answer))
            if request.wants_close:
                channel.close(close_notify=True)
            for step in turn.idle:
                if channel.is_open:
                    self._idle(channel, step)
                else:
                    self.journal.write(channel.number, f"{step} not done: the connection is over")

    def _answer(self, step: AnswerStep, exchange: Exchange) -> None:
        try:
            step.answer(exchange)
        except Exception as error:
            if not isinstance(error, Ended):
                self._say_undone(exchange.channel, step, error)
            raise

    def _idle(self, channel: Channel, step: IdleStep) -> None:
        try:
            is_done = step.idle(channel)
        except Exception as error:
            self._say_undone(channel, step, error)
            raise
        if not is_done:
            self.journal.write(channel.number, f"{step} not done: a request came first")
            return
        self.journal._idle_step_done(channel.number, step)
        if channel.is_open:
            step.afterwards(channel)

    def _say_undone(self, channel: Channel, step: Step, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, Ended):
            why = "the client had gone" if channel.ended else "the server stopped"
        self.journal.write(channel.number, f"{step} not done: {why}")
