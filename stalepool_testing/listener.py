"""A listening socket, with one thread for each connection."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time
from typing import Any, Callable, TypeVar
from urllib.parse import quote

from stalepool_testing.channel import Channel
from stalepool_testing.doorbell import Doorbell
from stalepool_testing.journal import Journal
from stalepool_testing.kernel import POLLIN, Unavailable, require_green_sockets
from stalepool_testing.network import LISTENING, Network
from stalepool_testing.sockets import errors_of_binding, loopback
from stalepool_testing.tls import TLS, forget_errors
from stalepool_testing.wire import IO_TIMEOUT_S, Ended, raise_ended

L = TypeVar("L", bound="Listener")


class Listener:
    """Accepts connections, and serves each in a thread of its own.

    The threads are those of ``threading``: native, or green under eventlet.

    :param family: ``AF_INET``, ``AF_INET6`` or ``AF_UNIX`` (a path in a temporary directory).
    :param host: the address to listen on, ``None`` for the family's loopback.
    :param receive_buffer: SO_RCVBUF of the accepted sockets, in bytes; ``None``: the default.
    :ivar errors: exceptions of ``_serve()``, except the end of a connection.
    """

    def __init__(
        self,
        tls: TLS | None = None,
        family: int = socket.AF_INET,
        host: str | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        if tls is not None and not isinstance(tls, TLS):
            raise TypeError(f"tls takes TLS() or None, got {tls!r}")
        if receive_buffer is not None and not isinstance(receive_buffer, int):
            raise TypeError(
                f"receive_buffer takes a number of bytes or None, got {receive_buffer!r}"
            )
        require_green_sockets()
        self.journal = Journal()
        self.errors: list[Exception] = []
        self.channels: list[Channel] = []
        self.family = family
        self._tls = tls
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._receive_buffer = receive_buffer
        self._directory = tempfile.mkdtemp() if family == socket.AF_UNIX else None
        try:
            if self._directory:
                self._sock = self._bound(os.path.join(self._directory, "socket"))
            else:
                own = loopback(family)  # refuses another family, also where a host is given
                self._sock = self._bound((host or own, 0))
        except BaseException:
            self._remove_directory()
            raise
        self._address = self._sock.getsockname()
        self._network = Network(self.journal)
        self._accept()

    def __enter__(self: L) -> L:
        return self

    def __exit__(self, *exc_info: object) -> None:
        error = exc_info[1]
        if isinstance(error, Exception):
            _add_note(error, self.report())
        self.close()

    @property
    def host(self) -> str:
        return "" if self._directory else str(self._address[0])

    @property
    def port(self) -> int:
        """0 for AF_UNIX."""
        return 0 if self._directory else int(self._address[1])

    @property
    def path(self) -> str:
        """The path of an AF_UNIX socket, else empty."""
        return str(self._address) if self._directory else ""

    @property
    def origin(self) -> str:
        """``http://127.0.0.1:PORT``, without a slash; ``http+unix://PATH`` for AF_UNIX."""
        scheme = "http" if self._tls is None else "https"
        if self.path:
            return f"{scheme}+unix://{quote(self.path, safe='')}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The origin and a slash."""
        return self.origin + "/"

    def connect(self, timeout_s: float = 10.0) -> socket.socket:
        """Return a new client socket, connected to this server, after the handshake with TLS.

        For raw clients, and for :func:`.into_pool`.
        """
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(self._address)
            if self._tls is not None:
                sock = self._tls.wrap_client(sock)
                sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        return sock

    def report(self) -> str:
        """Return the server's address and its journal, a line for each event."""
        return f"{type(self).__name__} {self.origin}\n{self.journal}"

    def stop_listening(self) -> None:
        """Refuse connects from now on; connections that are open go on. Does nothing a second time.

        The port stays this server's, for :meth:`listen`. TCP only.
        """
        if self._stop_accepting():
            self._sock = self._bound(self._address)

    def listen(self) -> None:
        """Accept connects again, on the same port, after :meth:`stop_listening`.

        :raises ValueError: the server is closed.
        """
        if self._closing:
            raise ValueError("the server is closed, it cannot listen again")
        if not self._acceptor.is_alive():
            self._accept()

    def close_connections(self) -> None:
        """End all connections that are open; returns when the FIN of each has been sent."""
        for channel in self.channels:
            channel.stop()
        self.journal.wait(
            lambda _: all(channel.ended for channel in self.channels), what="end of all connections"
        )

    def close(self) -> None:
        """Stop listening, end all connections with a FIN, and wait for the threads.

        May be called twice.

        :raises Exception: the first of ``errors``.
        :raises TimeoutError: a thread does not end within 10 s.
        """
        if self._closing:
            return
        self._closing = True
        self._stop_accepting()
        self._sock.close()  # which may be one that keeps the port
        for channel in self.channels:
            channel.stop()
        if not self._join(0.25):
            for channel in self.channels:
                channel.unblock()
            if not self._join(IO_TIMEOUT_S):
                raise TimeoutError("a connection's thread does not end")
        self._remove_directory()
        if self.errors:
            raise self.errors[0]

    def _serve(self, channel: Channel) -> None:
        """Serve a connection; may raise ``Ended``."""
        raise NotImplementedError

    def _bound(self, address: Any) -> socket.socket:
        with errors_of_binding(address, self.family), contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.socket(self.family, socket.SOCK_STREAM))
            if self._receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            # connections that have been accepted here may still be open
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            # while it does not listen, nobody else may have the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            stack.pop_all()
        return sock

    def _accept(self) -> None:
        self._network.accepted(LISTENING, self._sock)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.listen(1024)
        self._sock.setblocking(False)
        self._doorbell = Doorbell()
        self._acceptor = self._start(self._accept_all)

    def _stop_accepting(self) -> bool:
        was_accepting = self._doorbell.tell(raise_ended)
        self._acceptor.join(IO_TIMEOUT_S)
        return was_accepting

    def _join(self, timeout_s: float) -> bool:
        """Wait for the threads; not by ``join()``, which raises under eventlet on Python 3.13."""
        deadline = time.monotonic() + timeout_s
        while any(thread.is_alive() for thread in self._threads):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def _start(self, target: Callable[..., None], *args: object) -> threading.Thread:
        name = f"{type(self).__name__}-{self.port or self.path}"
        thread = threading.Thread(target=target, args=args, name=name, daemon=True)
        thread.start()
        return thread

    def _accept_all(self) -> None:
        try:
            while True:
                self._doorbell.wait({self._sock.fileno(): POLLIN})
                self._accept_waiting()
        except Ended:
            pass
        finally:
            self._network.let_go(LISTENING)
            self._sock.close()
            self._doorbell.close()

    def _accept_waiting(self) -> None:
        while True:
            try:
                sock, client = self._sock.accept()
            except OSError:
                return  # the queue is empty, or the client has left it again
            channel = Channel(sock, self.journal, self._network, client)
            self.channels.append(channel)
            self._threads.append(self._start(self._serve_one, channel))

    def _know_clients(self) -> None:
        """Accept the clients in the queue, which are connected as far as their kernels know."""
        known = threading.Event()

        def accept() -> None:
            self._accept_waiting()
            known.set()

        if self._doorbell.tell(accept) and not known.wait(IO_TIMEOUT_S):
            raise TimeoutError("the server does not accept")

    def _serve_one(self, channel: Channel) -> None:
        try:
            channel.meet_faults()
            if self.family != socket.AF_UNIX:
                channel.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                channel.start_tls(self._tls)
            self._serve(channel)
        except Ended:
            pass
        except Exception as error:
            if isinstance(error, OSError) and not isinstance(error, Unavailable):
                channel.close(how="client")  # it closed while something was sent to it
                if self._tls is not None:
                    forget_errors()  # or a green client under test would get them
            else:
                self.errors.append(error)
                self.journal.write(channel.number, f"the server failed: {error!r}")
        finally:
            channel.release()

    def _remove_directory(self) -> None:
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)


def _add_note(error: Exception, text: str) -> None:
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note(text)
    elif isinstance(error, AssertionError):
        error.args = (f"{error}\n\n{text}",)
