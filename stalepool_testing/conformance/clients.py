"""The clients that the suite knows, each imported only when it is tested."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
from typing import Any, Callable, Mapping, Protocol

TIMEOUT_S = 2.0


class Client(Protocol):
    """An HTTP client with a pool of its own; each request waits ``TIMEOUT_S`` for its answer."""

    def request(self, method: str, url: str, body: bytes | None) -> int:
        """Send a request; return the status, or raise what the client raises."""

    def close(self) -> None:
        """Close the pool."""


#: makes a client that trusts the authority in a PEM file
Factory = Callable[[str], Client]


class _Urllib3:
    def __init__(self, ca_path: str) -> None:
        import urllib3

        self._pool = urllib3.PoolManager(ca_certs=ca_path, timeout=TIMEOUT_S)

    def request(self, method: str, url: str, body: bytes | None) -> int:
        return int(self._pool.request(method, url, body=body).status)

    def close(self) -> None:
        self._pool.clear()


class _Requests:
    def __init__(self, ca_path: str, module: str = "requests") -> None:
        self._session: Any = importlib.import_module(module).Session()
        self._session.verify = ca_path
        self._session.trust_env = False

    def request(self, method: str, url: str, body: bytes | None) -> int:
        return int(self._session.request(method, url, data=body, timeout=TIMEOUT_S).status_code)

    def close(self) -> None:
        self._session.close()


class _Httpx:
    def __init__(self, ca_path: str) -> None:
        import ssl

        context = ssl.create_default_context(cafile=ca_path)
        httpx: Any = importlib.import_module("httpx")
        self._client = httpx.Client(verify=context, timeout=TIMEOUT_S, trust_env=False)

    def request(self, method: str, url: str, body: bytes | None) -> int:
        return int(self._client.request(method, url, content=body).status_code)

    def close(self) -> None:
        self._client.close()


class _Aiohttp:
    def __init__(self, ca_path: str) -> None:
        import asyncio
        import ssl

        self._loop = asyncio.new_event_loop()
        self._context = ssl.create_default_context(cafile=ca_path)
        self._session = self._loop.run_until_complete(self._open())

    async def _open(self) -> Any:
        aiohttp: Any = importlib.import_module("aiohttp")
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    def request(self, method: str, url: str, body: bytes | None) -> int:
        return self._loop.run_until_complete(self._send(method, url, body))

    async def _send(self, method: str, url: str, body: bytes | None) -> int:
        import asyncio

        for _ in range(3):
            await asyncio.sleep(0)  # a service's loop runs all the time, and notices what arrives
        async with self._session.request(method, url, data=body, ssl=self._context) as response:
            await response.read()
            return int(response.status)

    def close(self) -> None:
        self._loop.run_until_complete(self._session.close())
        self._loop.close()


CLIENTS: Mapping[str, Factory] = {
    "urllib3": _Urllib3,
    "requests": _Requests,
    "niquests": lambda ca_path: _Requests(ca_path, "niquests"),
    "httpx": _Httpx,
    "aiohttp": _Aiohttp,
}


def factory_of(name: str) -> Factory:
    """Find a client by name, or import ``module:factory``.

    :raises ValueError: the name is neither, cannot be imported, or is no factory; the text is one
        sentence.
    """
    if name in CLIENTS:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"--client {name}: it is not installed here")
        return CLIENTS[name]
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"--client {name}: it takes {', '.join(CLIENTS)} or module:factory")
    try:
        factory: Factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        is_missing = getattr(error, "name", None) == module.partition(".")[0]
        hint = " here: use python -m pytest, or set PYTHONPATH" if is_missing else ""
        raise ValueError(f"--client {name}: {error}{hint}") from error
    try:
        with contextlib.suppress(ValueError):  # some of C code have no signature
            inspect.signature(factory).bind("ca.pem")
    except TypeError as error:
        takes = "it takes a function of the path of a CA file"
        raise ValueError(f"--client {name}: {takes}: {error}") from error
    return factory
