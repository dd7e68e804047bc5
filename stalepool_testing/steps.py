"""Answer steps: what a fault server does with a request.

To write your own, derive from :class:`.AnswerStep`. A wrong argument is refused at once, by a
``TypeError`` or ``ValueError``. The steps *between* requests are in ``idle_steps``.

"Processed" means that the server acted on the request: sending it again would do it twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Mapping

from stalepool_testing.arguments import BODY, COUNT, HEADERS, SECONDS, STATUS
from stalepool_testing.exchange import Exchange
from stalepool_testing.messages import Body, answer_bytes
from stalepool_testing.script import AnswerStep

# before Python 3.14 http.client reads this much at a time: after an answer of exactly this size,
# the next bytes stay in the kernel or in the TLS layer, and not in a Python buffer
READ_SIZE = 8192


class _LastAnswer(AnswerStep):
    keeps_connection = False


@dataclass(frozen=True)
class Respond(AnswerStep):
    """An ordinary answer on a connection that stays open. Processed, whatever the status.

    :param body: bytes, or a function of the request, such as :func:`.echo`.
    :param headers: further headers, such as ``{"Keep-Alive": "timeout=5"}``.
    :param delay_s: how long the server waits before it answers.
    """

    status: int = 200
    body: Body = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    takes = {"status": STATUS, "body": BODY, "headers": HEADERS, "delay_s": SECONDS}

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        if self.delay_s:
            exchange.channel.pause(self.delay_s)
        exchange.respond(self.status, self.body, self.headers)


@dataclass(frozen=True)
class RespondThenClose(_LastAnswer):
    """An answer with ``Connection: close``, then a FIN. Processed.

    :param announced: False leaves that header out, so that only the FIN tells the client.
    :param close_notify: over TLS, end the session before the FIN.
    """

    status: int = 200
    body: Body = b""
    announced: bool = True
    close_notify: bool = True
    takes = {"status": STATUS, "body": BODY}

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        headers = {"Connection": "close"} if self.announced else {}
        exchange.respond(self.status, self.body, headers)
        exchange.channel.close(self.close_notify)


@dataclass(frozen=True)
class SlowAnswer(AnswerStep):
    """The head at once, the body in pieces spread over some seconds. Processed."""

    seconds: float
    body: Body = b"x" * 100
    pieces: int = 5
    takes = {"seconds": SECONDS, "body": BODY, "pieces": COUNT}

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        answer = exchange.answer_bytes(200, self.body)
        head, blank_line, body = answer.partition(b"\r\n\r\n")
        size = max(1, math.ceil(len(body) / self.pieces))
        pieces = [head + blank_line, *(body[at : at + size] for at in range(0, len(body), size))]
        for piece in pieces[:-1]:
            exchange.send(piece)
            exchange.channel.pause(self.seconds / self.pieces)
        exchange.send_last(pieces[-1])


@dataclass(frozen=True)
class SurplusWithAnswer(AnswerStep):
    """An answer and, in the same write and TLS record, another one to no request. Processed.

    A header pads the first to 8192 bytes, the size that ``http.client`` reads at a time. So the
    second stays in the kernel, or over TLS in the TLS layer, where no poll sees it. From Python
    3.14 on ``http.client`` reads 128 KiB (``io.DEFAULT_BUFFER_SIZE``), and drops the second with
    the first.
    """

    surplus_status: int = 408
    status: int = 200
    body: Body = b""
    takes = {"surplus_status": STATUS, "status": STATUS, "body": BODY}

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        bare = exchange.answer_bytes(self.status, self.body, {"X-Padding": ""})
        padding = {"X-Padding": "x" * max(0, READ_SIZE - len(bare))}
        answer = exchange.answer_bytes(self.status, self.body, padding)
        exchange.send_last(answer + answer_bytes(self.surplus_status))


# -- no answer -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Close(_LastAnswer):
    """A FIN as the request arrives. Not processed.

    The server reads the head for the journal, and drops the rest, so that the close sends a FIN:
    with unread bytes Linux would send an RST, as :class:`Reset` does. The client sees EOF instead
    of an answer; over TLS without a close_notify by default.
    """

    close_notify: bool = False

    def answer(self, exchange: Exchange) -> None:
        exchange.channel.throw_away()
        exchange.channel.close(self.close_notify)


@dataclass(frozen=True)
class Reset(_LastAnswer):
    """An RST as the request arrives. Not processed, and the client cannot know that.

    A ``close()`` with an unread request does the same. AF_UNIX has no RST: EOF there.
    """

    def answer(self, exchange: Exchange) -> None:
        exchange.channel.reset()


@dataclass(frozen=True)
class ProcessThenClose(_LastAnswer):
    """Reads the request, acts on it, and closes without an answer. Processed.

    The client sees the same as with :class:`Close`.
    """

    close_notify: bool = False

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        exchange.channel.close(self.close_notify)


@dataclass(frozen=True)
class ProcessThenReset(_LastAnswer):
    """Reads the request, acts on it, and resets without an answer. Processed.

    The client sees the same as with :class:`Reset`.
    """

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        exchange.channel.reset()


@dataclass(frozen=True)
class Silence(_LastAnswer):
    """Reads the request, which the kernel acknowledges, and never answers.

    The connection ends when the client closes it, or with a FIN when the server stops.

    :param processed: whether the server acts on it; True by default, as a client must assume.
    """

    processed: bool = True

    def answer(self, exchange: Exchange) -> None:
        exchange.read(processed=self.processed)
        exchange.channel.park()


@dataclass(frozen=True)
class HalfAnswer(_LastAnswer):
    """The first half of an answer, then a FIN or an RST. Processed.

    :param body: if it is longer than the head, the cut is within the body.
    """

    body: Body = b"x" * 1000
    reset: bool = False
    takes = {"body": BODY}

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        answer = exchange.answer_bytes(200, self.body)
        exchange.send(answer[: len(answer) // 2])
        exchange.end(self.reset)


@dataclass(frozen=True)
class HalfStatusLine(_LastAnswer):
    """``HTTP/1.``, then a FIN or an RST. Processed."""

    reset: bool = False

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        exchange.send(b"HTTP/1.")
        exchange.end(self.reset)


@dataclass(frozen=True)
class ZeroWindow(AnswerStep):
    """Stops reading for some seconds, then reads it all and answers 200. Processed.

    The peer is alive and acknowledges, but its window is 0; a user timeout must not take it for
    dead. The request has to be larger than both kernels' buffers (4 MB suffice). If the script is a
    list with this step, the server has a small receive buffer; if it is a function, pass
    ``receive_buffer=16384`` to the server.
    """

    seconds: float
    takes = {"seconds": SECONDS}

    def answer(self, exchange: Exchange) -> None:
        exchange.channel.pause(self.seconds)
        exchange.process()
        exchange.respond(200)
