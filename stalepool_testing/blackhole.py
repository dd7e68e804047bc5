"""A connection that swallows what is sent into it, like a firewall that has lost its state.

A classic BPF filter of one instruction, ``return 0``, on the *receiving* socket drops every
segment of that connection before TCP sees it: none is acknowledged or answered, also no FIN and no
RST. It needs no root, no network namespace and no firewall rule. See socket(7) under
SO_ATTACH_FILTER, and the kernel's Documentation/networking/filter.rst.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import Any

from stalepool_testing.kernel import Unavailable

_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_RETURN_0 = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: keep 0 bytes of the packet


def swallow(sock: socket.socket) -> None:
    """Have this socket receive and acknowledge nothing from now on. Does not block.

    What the *other* end sends disappears: it is retransmitted until that kernel gives up. What
    this end sends still arrives there.

    :param sock: a connected TCP socket, IPv4 or IPv6, plain or TLS; usually the server's end.
    :raises Unavailable: the platform has no such filter, or does not permit it.
    """
    program = ctypes.create_string_buffer(_RETURN_0, len(_RETURN_0))
    # struct sock_fprog: the number of instructions, padding, and where they are
    _set(sock, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def release(sock: socket.socket) -> None:
    """Undo :func:`swallow`: what the other end retransmits from now on arrives.

    Does nothing to a socket that swallows nothing.

    :raises Unavailable: the platform has no such filter, or does not permit it.
    """
    _set(sock, _SO_DETACH_FILTER, 0)


def require(family: int) -> None:
    """Raise ``Unavailable`` if connections of a family cannot be made to swallow anything."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        swallow(probe)


def _set(sock: socket.socket, option: int, value: Any) -> None:
    if not sys.platform.startswith("linux"):
        raise Unavailable(f"a black hole needs Linux socket filters, this is {sys.platform}")
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise Unavailable(f"a black hole needs TCP, this socket is {sock.family!s}")
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    except FileNotFoundError:
        pass  # no filter is attached that could be detached
    except OSError as error:
        raise Unavailable(error.errno, f"the kernel refuses a socket filter: {error}") from error
