"""The journal of a fault server: what it really did, noted when it happens."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, NamedTuple

if TYPE_CHECKING:
    from stalepool_testing.messages import Request
    from stalepool_testing.script import Step


@dataclass
class Entry:
    """One request that arrived.

    :ivar connection: the number of its connection, the first is 0.
    :ivar processed: the server acted on it. A POST with two such entries was executed twice.
    :ivar answered: the whole answer was given to the kernel. It becomes True just before the last
        part is, and False again if that fails.
    :ivar body: what was read of the body; empty if the step reads none.
    :ivar headers: with names in lower case.
    :ivar number: its number in the order of arrival on this server; the first is 0.
    """

    connection: int
    method: str
    path: str
    headers: Mapping[str, str]
    step: Step
    body: bytes = b""
    processed: bool = False
    answered: bool = False
    number: int = 0

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")


@dataclass
class Connection:
    """One accepted connection.

    :ivar ended: ``None`` while it is open. Then how it ended: ``"closed"`` (FIN) or ``"reset"``
        (RST) by a step, ``"client"`` if the client closed first, ``"stopped"`` by
        ``server.close()`` or an error in a step.
    """

    number: int
    ended: str | None = None


@dataclass
class IdleStepDone:
    """An idle step that has been done to its connection."""

    connection: int
    step: Step


class Line(NamedTuple):
    """One event.

    :ivar at_s: seconds since the server started.
    :ivar connection: the number of the connection; ``None`` for the server as a whole.
    """

    at_s: float
    connection: int | None
    what: str

    def __str__(self) -> str:
        where = "the server  " if self.connection is None else f"connection {self.connection}"
        return f"{self.at_s * 1000:10.3f} ms  {where}  {self.what}"


_ENDED = {
    "closed": "closed by the server",
    "reset": "reset by the server",
    "client": "ended by the client",
    "stopped": "ended, as the server stops",
}


@dataclass(repr=False)
class Journal:
    """Entries in the order of arrival, safe to read while the server runs.

    A sequence of :class:`Entry`: ``len(journal)``, ``journal[-1]``, ``for entry in journal``.
    ``print(journal)`` shows all events in the order of time, a line for each.
    """

    connections: list[Connection] = field(default_factory=list)
    idle_steps: list[IdleStepDone] = field(default_factory=list)
    _lines: deque[Line] = field(default_factory=lambda: deque(maxlen=1000))
    _entries: list[Entry] = field(default_factory=list)
    _changed: Any = field(default_factory=threading.Condition, compare=False)
    _started: float = field(default_factory=time.monotonic, compare=False)

    def __repr__(self) -> str:
        return f"<Journal: {len(self.connections)} connections, {len(self)} requests>"

    def __str__(self) -> str:
        return "\n".join(map(str, self.lines)) or "no client has connected"

    @property
    def lines(self) -> tuple[Line, ...]:
        """The last thousand of the lines that are printed."""
        with self._changed:
            return tuple(self._lines)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def select(
        self,
        *,
        method: str | None = None,
        path: str | None = None,
        processed: bool | None = None,
        answered: bool | None = None,
    ) -> list[Entry]:
        """Return the entries that match all given values."""
        wanted = {"method": method, "path": path, "processed": processed, "answered": answered}
        given = [(name, value) for name, value in wanted.items() if value is not None]
        return [
            entry for entry in self if all(getattr(entry, name) == value for name, value in given)
        ]

    def processed(self, method: str | None = None, path: str | None = None) -> list[Entry]:
        """Return the requests on which the server acted."""
        return self.select(method=method, path=path, processed=True)

    def count(self, **wanted: Any) -> int:
        """Return the number of entries that match, as in :meth:`select`."""
        return len(self.select(**wanted))

    def wait(
        self, check: Callable[[Journal], bool], timeout_s: float = 5.0, what: str = "condition"
    ) -> None:
        """Wait until ``check(journal)`` holds; it is asked again after every change.

        :raises TimeoutError: it does not hold in time; the text has the journal.
        """
        __tracebackhide__ = True
        with self._changed:
            if not self._changed.wait_for(lambda: check(self), timeout_s):
                raise TimeoutError(f"no {what} within {timeout_s} s\n{self}")

    def write(self, connection: int | None, what: str) -> None:
        """Add a line, for the reader of a failed test."""
        with self._changed:
            self._lines.append(Line(time.monotonic() - self._started, connection, what))
            self._changed.notify_all()

    def _request_arrived(self, connection: int, request: Request, step: Step) -> Entry:
        entry = Entry(connection, request.method, request.path, request.headers, step)
        with self._changed:
            entry.number = len(self._entries)
            self._entries.append(entry)
            self.write(
                connection, f"request {entry.number}: {entry.method} {entry.path} meets {step}"
            )
        return entry

    def _read(self, entry: Entry, body: bytes, processed: bool) -> None:
        with self._changed:
            entry.body, entry.processed = body, processed
            done = "processed" if processed else "read, not processed"
            size = f", {len(body)} bytes of body" if body else ""
            self.write(entry.connection, f"request {entry.number}: {done}{size}")

    def _answered(self, entry: Entry, answered: bool) -> None:
        with self._changed:
            entry.answered = answered
            done = "answered" if answered else "not answered, the connection is over"
            self.write(entry.connection, f"request {entry.number}: {done}")

    def _connected(self, client: Any) -> Connection:
        port = f", its port is {client[1]}" if isinstance(client, tuple) else ""
        with self._changed:
            connection = Connection(len(self.connections))
            self.connections.append(connection)
            self.write(connection.number, f"a client connects{port}")
        return connection

    def _ended(self, connection: Connection, how: str) -> None:
        with self._changed:
            connection.ended = how
            self.write(connection.number, _ENDED[how])

    def _idle_step_done(self, connection: int, step: Step) -> None:
        with self._changed:
            self.idle_steps.append(IdleStepDone(connection, step))
            self.write(connection, f"{step} done")
