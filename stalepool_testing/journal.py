"""What a fault server really did, written down as it happens."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

if TYPE_CHECKING:
    from stalepool_testing.messages import Request
    from stalepool_testing.script import Step


@dataclass
class Entry:
    """One request that arrived.

    :ivar connection: the number of its connection, the first is 0.
    :ivar processed: the server acted on it. A POST with two such entries was executed twice.
    :ivar answered: the whole answer was handed to the kernel; True as soon as the last of it is
        about to be, and False again where that fails.
    :ivar body: what was read of the body; empty where the step reads none.
    :ivar headers: with names in lower case.
    """

    connection: int
    method: str
    path: str
    headers: Mapping[str, str]
    step: Step
    body: bytes = b""
    processed: bool = False
    answered: bool = False

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")


@dataclass
class Connection:
    """One accepted connection.

    :ivar ended: ``None`` while it is open. Then how it ended: ``"closed"`` (FIN) or ``"reset"``
        (RST) by a step, ``"client"`` where the client went first, ``"stopped"`` by
        ``server.close()`` or an error in a step.
    """

    number: int
    ended: str | None = None


@dataclass
class IdleStepDone:
    """An idle step that came about: what it does to the connection has been done."""

    connection: int
    step: Step


@dataclass
class Journal:
    """Entries in the order of arrival, safe to read while the server runs.

    A sequence of :class:`Entry`: ``len(journal)``, ``journal[-1]``, ``for entry in journal``.
    """

    connections: list[Connection] = field(default_factory=list)
    idle_steps: list[IdleStepDone] = field(default_factory=list)
    _entries: list[Entry] = field(default_factory=list)
    _changed: Any = field(default_factory=threading.Condition, repr=False, compare=False)

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
        """The entries that agree with all that is given."""
        wanted = {"method": method, "path": path, "processed": processed, "answered": answered}
        given = [(name, value) for name, value in wanted.items() if value is not None]
        return [
            entry for entry in self if all(getattr(entry, name) == value for name, value in given)
        ]

    def processed(self, method: str | None = None, path: str | None = None) -> list[Entry]:
        """The requests the server acted on."""
        return self.select(method=method, path=path, processed=True)

    def count(self, **wanted: Any) -> int:
        """How many entries there are, narrowed down as in :meth:`select`."""
        return len(self.select(**wanted))

    def wait(
        self, check: Callable[[Journal], bool], timeout_s: float = 5.0, what: str = "condition"
    ) -> None:
        """Wait until ``check(journal)`` holds; it is asked again after every change.

        :raises TimeoutError: with the journal in it, when it does not hold in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: check(self), timeout_s):
                raise TimeoutError(f"no {what} within {timeout_s} s in {self!r}")

    def _request_arrived(self, connection: int, request: Request, step: Step) -> Entry:
        entry = Entry(connection, request.method, request.path, request.headers, step)
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()
        return entry

    def _note(self, noted: Entry | Connection, **facts: Any) -> None:
        with self._changed:
            for name, value in facts.items():
                setattr(noted, name, value)
            self._changed.notify_all()

    def _connected(self) -> Connection:
        with self._changed:
            connection = Connection(len(self.connections))
            self.connections.append(connection)
            self._changed.notify_all()
        return connection

    def _idle_step_done(self, connection: int, step: Step) -> None:
        with self._changed:
            self.idle_steps.append(IdleStepDone(connection, step))
            self._changed.notify_all()
