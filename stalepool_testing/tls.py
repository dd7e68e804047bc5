"""Certificates made when they are needed, and the two contexts of a TLS connection."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import ssl
import tempfile
import threading
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Callable, TypeVar

if TYPE_CHECKING:
    import trustme

T = TypeVar("T")

_making = threading.RLock()
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


class TLS:
    """A server's and a client's TLS settings that fit each other.

    The certificate authority and the certificate (for ``localhost``, ``127.0.0.1`` and
    ``::1``) are made by trustme when they are first needed, once per process.

    :param version: ``"TLSv1.2"`` or ``"TLSv1.3"``: only this version is spoken.
    :param num_tickets: how many session tickets a TLS 1.3 server sends after the handshake.
        0, the default, keeps an idle connection silent.
    :raises ImportError: trustme is not installed.
    """

    def __init__(self, version: str = "TLSv1.3", num_tickets: int = 0) -> None:
        if version not in VERSIONS:
            raise ValueError(f"version must be one of {', '.join(VERSIONS)}, got {version!r}")
        self.version = version
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _certificate().configure_cert(self.server_context)
        self.client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _authority().configure_trust(self.client_context)
        for context in (self.server_context, self.client_context):
            context.minimum_version = context.maximum_version = VERSIONS[version]
        if version == "TLSv1.3":
            self.server_context.num_tickets = num_tickets

    @property
    def ca_path(self) -> str:
        """A PEM file with the authority: ``ca_certs=`` of urllib3, ``verify=`` of requests."""
        return _files()[0]

    @property
    def cert_path(self) -> str:
        """A PEM file with the server's key and certificate chain, for other servers."""
        return _files()[1]

    def wrap_client(self, sock: socket.socket) -> ssl.SSLSocket:
        """Return the client's end, before the handshake; it expects the name ``localhost``."""
        return self.client_context.wrap_socket(
            sock, server_hostname="localhost", do_handshake_on_connect=False
        )

    def wrap_server(self, sock: socket.socket) -> ssl.SSLSocket:
        """Return the server's end, before the handshake."""
        return self.server_context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False
        )


def forget_errors() -> None:
    """Empty the thread's OpenSSL error queue after a failure on a TLS socket.

    CPython leaves a ConnectionError in it (3.13 to 3.15 with OpenSSL 3.5 and 3.6 do), and the next
    connection of the thread, or of any of its green threads, raises that error. CPython empties the
    queue for each new object.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)


def _made_once(make: Callable[[], T]) -> Callable[[], T]:
    """Decorator: one result for all threads. lru_cache alone may call the function twice."""
    kept = lru_cache(maxsize=None)(make)

    def get() -> T:
        with _making:
            return kept()

    return get


@_made_once
def _authority() -> trustme.CA:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cryptography's opinion of an old Python
            import trustme
    except ImportError as error:
        raise ImportError(
            "TLS needs certificates, and they need trustme: pip install 'stalepool[testing]'"
        ) from error
    return trustme.CA()


@_made_once
def _certificate() -> trustme.LeafCert:
    return _authority().issue_cert("localhost", "127.0.0.1", "::1")


@_made_once
def _files() -> tuple[str, str]:
    directory = tempfile.mkdtemp(prefix="stalepool-testing-")
    ca_path = os.path.join(directory, "ca.pem")
    cert_path = os.path.join(directory, "server.pem")
    _authority().cert_pem.write_to_path(ca_path)
    _certificate().private_key_and_cert_chain_pem.write_to_path(cert_path)
    atexit.register(_remove, directory, os.getpid())
    return ca_path, cert_path


def _remove(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # if not, a forked child exits, and they are its parent's
        shutil.rmtree(directory)
