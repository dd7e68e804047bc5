"""What the tests of ``stalepool status`` share."""

import functools

import pytest

from service_process import SERVICE, Started
from stalepool.cli.status import proc
from stalepool_testing import Close, FaultServer, Respond


@pytest.fixture(scope="module", autouse=True)
def linux():
    if not proc.has_proc():
        pytest.skip("there is no /proc here")


@pytest.fixture
def status(stalepool_here):
    return functools.partial(stalepool_here, "status")


@pytest.fixture
def flaky():
    with FaultServer([Respond(200), Close()]) as server:
        yield server


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """A service that has had an answer: its pid, and its status file."""
    directory = tmp_path_factory.mktemp("status")
    with FaultServer() as server:
        at = {"STALEPOOL_STATUS_DIR": str(directory)}
        with Started(SERVICE + "ask()", server.port, **at) as service:
            (path,) = directory.glob("*/*")
            yield service.pid, path
    assert service.err == ""
