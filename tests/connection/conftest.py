"""What the tests of a connection share."""

import gc

import pytest
import urllib3

from pools import DEFAULTS, shim
from replay_routes import Sleeper


@pytest.fixture
def defaults():
    """Stalepool's own settings, and again after a test that has set others; counters at zero."""
    with shim(falls_back=True, **DEFAULTS):  # before what others have patched
        yield


@pytest.fixture
def no_collector():
    """What is let go is gone at once, or is missed."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def sleeper(monkeypatch):
    """What urllib3 sleeps with, and so what we do while a connect is tried again."""
    sleeper = Sleeper()
    monkeypatch.setattr("urllib3.util.retry.time", sleeper)
    return sleeper


class Connects:
    """What urllib3 connects with."""

    def __init__(self, monkeypatch):
        self._stock = urllib3.util.connection.create_connection
        self.hosts = []
        self.failed = []
        #: done before each connect
        self.act = lambda: None
        #: host -> the address that is connected to in its place
        self.leads_to = {}
        monkeypatch.setattr(urllib3.util.connection, "create_connection", self._create)

    def _create(self, address, *args, **options):
        self.hosts.append(address[0])
        try:
            self.act()
            return self._stock(self.leads_to.get(address[0], address), *args, **options)
        except OSError as error:
            self.failed.append(error)
            raise


@pytest.fixture
def connects(monkeypatch):
    return Connects(monkeypatch)
