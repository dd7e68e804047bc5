"""Fixtures for pytest, and the journals in the report of a failed test; installed with stalepool.

Imports nothing before a test asks for a fixture, so that other suites pay nothing; and only
``stalepool_on`` and ``stalepool_off`` import ``stalepool``. All fixtures last for one test. If the
machine cannot do something, the test is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Iterator

import pytest

if TYPE_CHECKING:
    from stalepool_testing import ConnectProxy, FaultServer, Pair


def pytest_load_initial_conftests(early_config: Any, args: list[str]) -> None:
    """Load the option of the conformance suite, only for a run of that suite."""
    if any(argument.startswith("stalepool_testing.conformance") for argument in args):
        early_config.pluginmanager.import_plugin("stalepool_testing.conformance.plugin")


class _Factory:
    """A fixture that has to be called; if a test forgets that, the error says so."""

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self._name = name
        self._make = make

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from stalepool_testing import Unavailable

        try:
            return self._make(*arguments, **options)
        except Unavailable as reason:
            pytest.skip(str(reason))

    def __getattr__(self, attribute: str) -> Any:
        raise AttributeError(
            f"{self._name} is a factory: what {self._name}(...) returns may have {attribute!r}"
        )

    def __enter__(self) -> None:
        raise TypeError(f"{self._name} is a factory: write 'with {self._name}(...)'")

    def __exit__(self, *exc_info: object) -> None:
        """Never called; but ``with`` asks for it first."""


class _Switch(_Factory):
    """The value of the fixture ``stalepool_on``."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        super().__call__(*arguments, **options)
        return self

    def __enter__(self) -> None:
        raise TypeError("stalepool_on takes no with: stalepool is on until the test ends")


class _Servers(_Factory):
    """The value of the fixture ``fault_server``: starts servers, and remembers them.

    :ivar started: each of them, and whether it may leave steps.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        super().__init__("fault_server", self._start)
        self._stack = stack
        self.started: list[tuple[FaultServer, bool]] = []

    def _start(self, *script: Any, may_leave_steps: bool = False, **options: Any) -> FaultServer:
        from stalepool_testing import FaultServer

        server = self._stack.enter_context(FaultServer(*script, **options))
        self.started.append((server, may_leave_steps))
        return server


@pytest.fixture
def fault_server() -> Iterator[Callable[..., FaultServer]]:
    """Factory of servers that fail by script: ``fault_server([Respond(200), Reset()])``.

    Takes the arguments of ``stalepool_testing.FaultServer``. A test fails at its end if a step is
    left that no request has met, unless ``may_leave_steps=True``.
    """
    with contextlib.ExitStack() as stack:
        yield _Servers(stack)


@pytest.fixture
def proxy() -> Iterator[Callable[..., ConnectProxy]]:
    """Factory of HTTP proxies; takes the arguments of ``stalepool_testing.ConnectProxy``."""
    from stalepool_testing import proxy

    with contextlib.ExitStack() as stack:
        yield _Factory("proxy", lambda *a, **options: stack.enter_context(proxy(*a, **options)))


@pytest.fixture
def stale_socket() -> Iterator[Callable[..., Pair]]:
    """Factory of dead connections: ``stale_socket(state)``, a state of ``stale_states()``."""
    from stalepool_testing import stale_socket

    with contextlib.ExitStack() as stack:

        def make(state: str, **options: Any) -> Pair:
            return stack.enter_context(stale_socket(state, **options))

        yield _Factory("stale_socket", make)


@pytest.fixture
def black_hole(stale_socket: Callable[..., Pair]) -> Pair:
    """A connection whose peer drops all that comes; skips where socket filters are forbidden."""
    return stale_socket("black_hole")


@pytest.fixture
def stalepool_on() -> Iterator[Callable[..., Any]]:
    """The shim on for this test; ``stalepool_on(replay="off")`` replaces all its settings."""
    from stalepool_testing import stalepool_on

    with contextlib.ExitStack() as stack:
        switch = _Switch(
            "stalepool_on", lambda *a, **settings: stack.enter_context(stalepool_on(*a, **settings))
        )
        yield switch()


@pytest.fixture
def stalepool_off() -> Iterator[None]:
    """The shim off for this test."""
    import stalepool_testing

    with stalepool_testing.stalepool_off():
        yield


@pytest.fixture
def no_hub_switch() -> Callable[[], ContextManager[None]]:
    """Assert that a block does not yield, under eventlet or gevent: ``with no_hub_switch():``."""
    from stalepool_testing import no_hub_switch

    return _Factory("no_hub_switch", no_hub_switch)


@pytest.hookimpl(hookwrapper=True)  # not wrapper=True: an old pytest must not trip over us
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Fail a test that left steps, and add the journals to the report of a failed test.

    Skip a test in which a server was to do what the machine cannot do.
    """
    outcome: Any = yield
    servers = getattr(item, "funcargs", {}).get("fault_server")
    if not isinstance(servers, _Servers) or not sys.modules.get("stalepool_testing"):
        return  # without stalepool_testing the test has failed to import it
    from stalepool_testing import Unavailable

    report: pytest.TestReport = outcome.get_result()
    if call.excinfo is not None and isinstance(call.excinfo.value, Unavailable):
        path, line, _ = item.reportinfo()
        report.outcome = "skipped"
        report.longrepr = (str(path), (line or 0) + 1, f"Skipped: {call.excinfo.value}")
    if report.when == "call" and report.passed:
        left = [server.steps_left() for server, may_leave in servers.started if not may_leave]
        if any(left):
            report.outcome, report.longrepr = "failed", "\n".join(filter(None, left))
    if report.failed:
        for server, _ in servers.started:
            report.sections.append((f"fault server {server.origin}", str(server.journal)))
