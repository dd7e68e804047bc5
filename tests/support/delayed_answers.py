"""Answers that come when a test says so, or never."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from stalepool_testing import AnswerStep, Exchange, swallow
from stalepool_testing.wire import Ended


@dataclass(frozen=True)
class AnswerLater(AnswerStep):
    """Takes the request, says that it came, and answers when it is told to."""

    told: threading.Event
    came: threading.Event = field(default_factory=threading.Event)

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        self.came.set()
        assert self.told.wait(20)
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@dataclass(frozen=True)
class ReadThenBlackHole(AnswerStep):
    """Reads the request and acts on it; from then on nothing arrives. Acknowledged, processed."""

    keeps_connection = False

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        swallow(exchange.channel.sock)
        try:
            exchange.channel.pause(None)
        except Ended:
            exchange.channel.reset(how="stopped")  # a FIN would be retransmitted for a minute
            raise
