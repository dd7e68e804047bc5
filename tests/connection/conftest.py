"""What the tests of a connection share."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Tuple

import pytest
import urllib3

import stalepool
from outages import Sleeper
from pools import forget_what_was_counted


@pytest.fixture
def defaults() -> Iterator[None]:
    """Stalepool's own settings, and again after a test that has set others; counters at zero."""
    stalepool.install()
    forget_what_was_counted()
    yield
    stalepool.install()


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> Sleeper:
    """What urllib3 sleeps with, and so what we do while a connect is tried again."""
    sleeper = Sleeper()
    monkeypatch.setattr("urllib3.util.retry.time", sleeper)
    return sleeper


class Connects:
    """What urllib3 connects with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stock = urllib3.util.connection.create_connection
        self.hosts: List[str] = []
        self.failed: List[OSError] = []
        #: done before each connect
        self.act: Any = lambda: None
        #: host -> the address that is connected to in its place
        self.leads_to: Dict[str, Tuple[str, int]] = {}
        monkeypatch.setattr(urllib3.util.connection, "create_connection", self._create)

    def _create(self, address: Any, *args: Any, **options: Any) -> Any:
        self.hosts.append(address[0])
        try:
            self.act()
            return self._stock(self.leads_to.get(address[0], address), *args, **options)
        except OSError as error:
            self.failed.append(error)
            raise


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> Connects:
    return Connects(monkeypatch)
