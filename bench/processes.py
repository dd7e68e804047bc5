"""Processes of their own: one for everything that is measured, and one for its server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import multiprocessing
import os
import random
import signal
import ssl
import warnings
from typing import Any, Iterator, Optional, Sequence, Tuple

from bench import EVENTLET, THREADS
from stalepool_testing import TLS
from stalepool_testing.messages import answer_bytes, parse_head

_SPAWN = multiprocessing.get_context("spawn")

#: in a child: the way to its parent
pipe: Any = None


class ChildFailed(Exception):
    """A measuring process has ended, and has said on stderr why."""


class Child(contextlib.AbstractContextManager):  # type: ignore[type-arg]
    """A process that calls a function, and says what that returns.

    If that is a function again, it calls this one whenever it is asked. Leaving the ``with`` block
    ends it.

    :param seed: of hashes; two that are compared get the same, so that their dicts lie alike.
    """

    def __init__(self, function: Any, world: str = THREADS, seed: int = 0, **more: Any) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        work = (theirs, world, function, more)
        self._process = _SPAWN.Process(target=_work, args=work, daemon=True)
        os.environ["PYTHONHASHSEED"] = str(seed)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for us
        self._process.start()
        signal.signal(signal.SIGINT, before)
        theirs.close()

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def read(self, asks: bool = False) -> Any:
        """Return what it says next, where it waits for that after it was asked.

        :raises ChildFailed: it ended instead.
        """
        try:
            if asks:
                self._pipe.send(None)
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise ChildFailed("a process ended with %s" % self._process.exitcode) from None


def _work(to_parent: Any, world: str, function: Any, arguments: Any) -> None:
    global pipe
    pipe = to_parent
    warnings.simplefilter("ignore")  # eventlet speaks of its own future, others of Python 3.8's
    logging.getLogger().addHandler(logging.NullHandler())  # stalepool, of checks without a request
    if world == EVENTLET:
        import eventlet

        eventlet.monkey_patch()
    result = function(**arguments)
    while callable(result):
        pipe.recv()
        pipe.send(result())
    pipe.send(result)


def call(function: Any, world: str = THREADS, **arguments: Any) -> Any:
    """Have a new process call a function, and return what it returns."""
    with Child(function, world, **arguments) as child:
        return child.read()


_ANSWER = answer_bytes(200, b'{"servers": []}', {"Content-Type": "application/json"})

#: where a server is: its URL, and the path of its authority's certificate where it speaks TLS
At = Tuple[str, Optional[str]]


@contextlib.contextmanager
def server(tls: bool = False, idle_s: Sequence[float] = (), spins: bool = False) -> Iterator[At]:
    """Serve HTTP with keep-alive until the block is left, in a process that does little else.

    :param tls: speak TLS 1.3, two session tickets a connection, as servers do by default.
    :param idle_s: close a connection that has been idle for a random time between these two.
    :param spins: never sleep, so that no client pays for waking it; takes a processor.
    """
    files = TLS() if tls else None  # made here: a process that is killed would leave them behind
    with Child(_serve, pem=files and files.cert_path, idle_s=idle_s, spins=spins) as child:
        yield child.read(), files and files.ca_path


def manager(at: At, maxsize: int = 1) -> Any:
    """Return urllib3's pools for the server at ``at``."""
    import urllib3

    return urllib3.PoolManager(maxsize=maxsize, ca_certs=at[1])


def _serve(**how: Any) -> None:
    asyncio.run(_serve_until_killed(**how))


async def _serve_until_killed(pem: str, idle_s: Sequence[float], spins: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if pem else None
    if context:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(pem)
    answer = functools.partial(_answer, idle_s=idle_s)
    # a backlog for all clients of a race at once
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context, backlog=1024)
    pipe.send("http%s://127.0.0.1:%d/" % ("s" * bool(pem), server.sockets[0].getsockname()[1]))
    asyncio.get_running_loop().add_reader(pipe.fileno(), os._exit, 0)
    while True:
        await asyncio.sleep(0 if spins else 3600)


async def _answer(reader: Any, writer: Any, idle_s: Sequence[float]) -> None:
    with contextlib.suppress(asyncio.TimeoutError, EOFError, OSError):
        while True:
            limit_s = random.uniform(*idle_s) if idle_s else None
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), limit_s)
            await reader.readexactly(parse_head(head[:-4]).content_length)
            writer.write(_ANSWER)
    writer.close()
