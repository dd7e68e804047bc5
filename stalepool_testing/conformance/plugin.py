"""The option ``--client``, and the table at the end."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from stalepool_testing.conformance.cases import CASES
from stalepool_testing.conformance.clients import CLIENTS, Factory, factory_of

#: takes the case, the method, and the result
Note = Callable[[str, str, str], None]


class _Checked:
    """A client that may not be what it has to be: then one sentence fails the test."""

    def __init__(self, name: str, client: Any) -> None:
        self._name = name
        self._client = client
        if not (hasattr(client, "request") and hasattr(client, "close")):
            self._fail(f"it has to return an object with request() and close(), got {client!r}")

    def request(self, method: str, url: str, body: bytes | None) -> int:
        status = self._client.request(method, url, body)
        if not isinstance(status, int):
            self._fail(f"request() has to return the status as an int, got {status!r}")
        return int(status)

    def close(self) -> None:
        self._client.close()

    def _fail(self, why: str) -> None:
        pytest.fail(f"--client {self._name}: {why}", pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    names = ", ".join(CLIENTS)
    parser.addoption(
        "--client", default="urllib3", help=f"the client to test: {names} or module:factory"
    )


def pytest_configure(config: pytest.Config) -> None:
    try:
        factory_of(config.getoption("--client"))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture
def make_client(request: pytest.FixtureRequest) -> Factory:
    name = request.config.getoption("--client")
    return lambda ca_path: _Checked(name, factory_of(name)(ca_path))


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    # not record_property, which warns about the newer form of --junitxml
    return lambda *cell: request.node.user_properties.append(("stalepool", cell))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a row for each case: the results of GET and POST."""
    rows: dict[str, dict[str, str]] = {}
    for reports in list(terminalreporter.stats.values()):
        for report in reports:
            for key, cell in getattr(report, "user_properties", ()):
                if key == "stalepool" and report.when == "call":
                    case, method, said = cell
                    rows.setdefault(case, {})[method] = said
    terminalreporter.section(terminalreporter.config.getoption("--client"))
    terminalreporter.line(f"{'':28}{'GET':24}POST")
    for case in filter(rows.__contains__, CASES):
        said = rows[case]
        terminalreporter.line(f"{case:28}{said.get('GET', ''):24}{said.get('POST', '')}")
