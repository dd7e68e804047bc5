"""A server that fails as its script says, and keeps a journal of what it really did."""

from __future__ import annotations

import socket
from typing import TypeVar

from stalepool_testing.channel import Channel
from stalepool_testing.exchange import Exchange
from stalepool_testing.listener import Listener
from stalepool_testing.messages import answer_bytes
from stalepool_testing.script import AnswerStep, IdleStep, Script, ScriptLike
from stalepool_testing.steps import Respond, ZeroWindow
from stalepool_testing.tls import TLS

S = TypeVar("S", bound="FaultServer")


class FaultServer(Listener):
    """An HTTP/1.1 server on loopback, with a script of faults::

        with FaultServer([Respond(200), CloseAfter(0.05), Reset()]) as server:
            ...requests to server.url...

    The first request is answered; 50 ms later its connection is closed, unless another request
    came on it before; the second request, on whatever connection, is reset as it arrives.

    **The script** is consumed in order, across connections. An *answer step* is what happens to
    the next request that arrives, whichever connection it comes on. An *idle step* belongs to the
    answer before it and happens on that answer's connection as soon as the answer is sent;
    several happen one after the other. Idle steps that stand first meet the first connection as
    soon as it is accepted. When the script is used up, every further request gets ``default``. A
    step that ends the connection cannot be followed by an idle step (``ValueError``).

    **A function** in place of the list, ``script(request)``, is asked for each request, from
    several threads. It sees the head, not the body, and returns an answer step, an idle step
    (``default`` is answered before it), or an answer step and its idle steps in a list.

    **Every answer** carries the request's ``X-Request-Id`` back. Bodies are read by Content-Length
    or chunked, after ``100 Continue`` where it is expected; answers to HEAD, and 204 and 304, have
    no body. A client's ``Connection: close`` is kept to. What is not HTTP/1 gets 400 and a FIN.

    **Threads**: one per connection, native, or green where eventlet has patched. Starts at once.

    :param script: a list of steps, or a function of the request.
    :param tls: ``TLS()`` for https.
    :param family: ``AF_INET``, ``AF_INET6`` or ``AF_UNIX``.
    :param host: the address to listen on; ``None``, the default, is the family's loopback.
    :param default: what every request gets once the script is used up.
    :param receive_buffer: SO_RCVBUF of the server's sockets in bytes, for ``ZeroWindow``.
    :raises Unavailable: where the kernel cannot do a step of the list.
    """

    def __init__(
        self,
        script: ScriptLike = (),
        *,
        tls: TLS | None = None,
        family: int = socket.AF_INET,
        host: str | None = None,
        default: AnswerStep | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self._script = Script(script, Respond(200) if default is None else default)
        for step in self._script.steps:
            step.check(family)
            if isinstance(step, ZeroWindow) and receive_buffer is None:
                receive_buffer = 16384
        super().__init__(self._serve_requests, tls, family, host, receive_buffer)

    def __enter__(self: S) -> S:
        return self

    @property
    def script_left(self) -> int:
        """How many answer steps of the list no request has met yet."""
        return self._script.left

    # -- synchronise with the server ---------------------------------------------------------

    def perform(self, step: IdleStep, connection: int = -1, timeout_s: float = 5.0) -> None:
        """Do an idle step to a connection now, as soon as the server waits on it.

        For faults at an exact moment, such as between a client's look at its connection and its
        request. Returns when the step is done: the FIN, say, has left. Where the next line must
        find it *arrived*, ask the client's socket with ``wait_readable()``.

        :param connection: its number, -1 for the newest.
        :raises ValueError: when that connection is over.
        :raises TimeoutError: when it is not done in time.
        """
        channel = self.channels[connection]
        done = self._steps_done(channel.number)
        if not channel.tell(lambda: self._idle(channel, step)):
            raise ValueError(f"connection {channel.number} is over")
        self.journal.wait(
            lambda journal: self._steps_done(channel.number) > done, timeout_s, f"{step!r}"
        )

    def wait_request(self, count: int = 1, timeout_s: float = 5.0) -> None:
        """Wait until the heads of so many requests have arrived since the server started.

        :raises TimeoutError: when they have not in time.
        """
        self.journal.wait(lambda journal: len(journal) >= count, timeout_s, f"request {count}")

    def wait_idle_step(self, count: int = 1, timeout_s: float = 5.0) -> None:
        """Wait until so many idle steps have been done since the server started.

        A step that a request forestalled does not count.

        :raises TimeoutError: when they have not in time.
        """
        self.journal.wait(
            lambda journal: len(journal.idle_steps) >= count, timeout_s, f"idle step {count}"
        )

    def wait_ended(self, connection: int = 0, timeout_s: float = 5.0) -> str:
        """Wait until a connection is over: the server has closed its socket.

        :returns: how it ended, as in ``journal.connections[connection].ended``.
        :raises TimeoutError: when it is not in time.
        """
        connections = self.journal.connections
        self.journal.wait(
            lambda _: any(c.number == connection and c.ended for c in connections),
            timeout_s,
            f"end of connection {connection}",
        )
        return str(connections[connection].ended)

    def _steps_done(self, number: int) -> int:
        return sum(done.connection == number for done in tuple(self.journal.idle_steps))

    # -- serve ---------------------------------------------------------------------------------

    def _serve_requests(self, channel: Channel) -> None:
        if channel.number == 0:
            for step in self._script.opening:
                self._idle(channel, step)
        while channel.is_open:
            channel.wait_request()
            try:
                request = channel.read_head()
            except ValueError as error:
                channel.sock.sendall(answer_bytes(400, str(error).encode()))
                channel.throw_away()
                channel.close()
                return
            turn = self._script.next(request)
            turn.answer.answer(Exchange(channel, request, turn.answer))
            if request.wants_close:
                channel.close(close_notify=True)
            for step in turn.idle:
                if channel.is_open:
                    self._idle(channel, step)

    def _idle(self, channel: Channel, step: IdleStep) -> None:
        if step.idle(channel):
            self.journal._idle_step_done(channel.number, step)
            if channel.is_open:
                step.afterwards(channel)
