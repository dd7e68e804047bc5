"""An answer that comes when a test says so."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from stalepool_testing import AnswerStep, Exchange


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
