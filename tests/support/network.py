"""A network that fails or is slow: segments that vanish, a host that is away, one that is far away.

Socket filters need no rights and hit one connection each. Other hosts need network namespaces,
which need root: :class:`Unavailable` elsewhere, which skips the test.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
from collections import deque
from time import monotonic
from typing import Any, Deque, Iterator, List, Set, Tuple

from stalepool.sockets.layers import raw_of
from stalepool_testing import FaultServer, Unavailable, blackhole, release, swallow

# -- filters on sockets ----------------------------------------------------------------------------

#: classic BPF on a TCP segment, from its header on: (code, jump if true, jump if false, operand)
_DROP_EMPTY: Tuple[Tuple[int, int, int, int], ...] = (
    (0x30, 0, 0, 13),  # A = the flags
    (0x45, 7, 0, 0x07),  # FIN, SYN or RST: keep
    (0x30, 0, 0, 12),  # A = header length in words, in the upper half of a byte
    (0x54, 0, 0, 0xF0),
    (0x74, 0, 0, 2),  # A = header length in bytes
    (0x07, 0, 0, 0),  # X = A
    (0x80, 0, 0, 0),  # A = length of the segment
    (0x1D, 0, 1, 0),  # A == X, nothing but a header: drop
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


def swallow_empty(sock: socket.socket) -> None:
    """From now on no segment without data arrives here: no keepalive probe, no mere ACK."""
    program = b"".join(struct.pack("HBBI", *line) for line in _DROP_EMPTY)
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HP", len(_DROP_EMPTY), ctypes.addressof(buffer))
    blackhole._set(sock, blackhole._SO_ATTACH_FILTER, filter_)


class CutServer(FaultServer):
    """A fault server whose network can be taken away, and brought back.

    :param swallows_probes: a firewall before it lets data through, and no keepalive probe.
    """

    def __init__(self, *args: Any, swallows_probes: bool = False, **options: Any) -> None:
        self._swallows_probes = swallows_probes
        self._cut: List[Any] = []
        super().__init__(*args, **options)

    def _serve_one(self, channel: Any) -> None:
        if self._swallows_probes:
            swallow_empty(channel.sock)
        super()._serve_one(channel)

    def cut(self, client: Any) -> None:
        """From now on nothing gets through between this server and a client, either way.

        New connections get no answer, either.

        :param client: the client's socket.
        """
        channels = [channel.sock for channel in self.channels if channel.is_open]
        self._cut = [raw_of(client), *channels, self._sock]
        for sock in self._cut:
            swallow(sock)

    def heal(self) -> None:
        """What is retransmitted from now on arrives."""
        for sock in self._cut:
            if sock.fileno() >= 0:
                release(sock)


# -- network namespaces ----------------------------------------------------------------------------

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_IPV4_WITHOUT_OPTIONS, _SYN = 0x45, 0x02
NEAR, FAR = "10.9.0.2", "10.9.0.1"


class _OtherHost:
    """Another host, at the address ``FAR``; its server is in this process.

    The thread that makes it, and those that it starts, are at ``NEAR`` from then on, in a network
    of their own.

    :raises Unavailable: where the process may not have a network of its own.
    """

    def __init__(self) -> None:
        if shutil.which("ip") is None:
            raise Unavailable("another host needs the ip command, which is not on PATH")
        self._far = _own_network()
        self._near = _own_network()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that are made meanwhile, by this thread, are the other host's."""
        _enter(self._far)
        try:
            yield
        finally:
            _enter(self._near)


class Neighbour(_OtherHost):
    """A host on the same wire."""

    def __init__(self) -> None:
        super().__init__()
        path = "/proc/%d/fd/%d" % (os.getpid(), self._far)
        _ip("link add near0 type veth peer name far0 netns %s" % path)
        _ip("addr add %s/24 dev near0" % NEAR)
        _ip("link set near0 up")
        with self.inside():
            _ip("addr add %s/24 dev far0" % FAR)
            _ip("link set far0 up")
        # not to be waited for: what cannot be written takes 3 s in place of 0.3
        with contextlib.suppress(OSError):
            with open("/proc/sys/net/ipv4/neigh/near0/retrans_time_ms", "w") as file:
                file.write("100")

    def leave(self) -> None:
        """It answers no question for its address any more: "no route to host"."""
        with self.inside():
            _ip("link set far0 arp off")
        _ip("neigh flush dev near0")

    def come_back(self) -> None:
        with self.inside():
            _ip("link set far0 arp on")


class DistantHost(_OtherHost):
    """A host that packets take a while to. They are carried in user space, until the process ends.

    :param delay_s: one way, each way.
    """

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self._delay_s = delay_s
        self._seen: Set[bytes] = set()
        self._last_from = FAR
        #: how often something was sent to the other host after it had sent something itself: a
        #: request and its answer are one, however many packets they are
        self.round_trips = 0
        near = _tun(NEAR, FAR)
        with self.inside():
            far = _tun(FAR, NEAR)
        threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: int, far: int) -> None:
        onward = {near: (NEAR, far), far: (FAR, near)}
        on_the_way: Deque[Tuple[float, int, bytes]] = deque()
        while True:
            wait_s = max(0.0, on_the_way[0][0] - monotonic()) if on_the_way else None
            for end in select.select(onward, [], [], wait_s)[0]:
                sender, target = onward[end]
                packet = os.read(end, 65536)
                self._note(sender, packet)
                on_the_way.append((monotonic() + self._delay_s, target, packet))
            while on_the_way and on_the_way[0][0] <= monotonic():
                _, target, packet = on_the_way.popleft()
                os.write(target, packet)

    def _note(self, sender: str, packet: bytes) -> None:
        """Count what opens a connection or brings data, and is sent for the first time."""
        if packet[0] != _IPV4_WITHOUT_OPTIONS or packet[9] != socket.IPPROTO_TCP:
            return
        head_size = 20 + 4 * (packet[32] >> 4)
        ports_and_sequence = packet[20:28]
        if (len(packet) == head_size and not packet[33] & _SYN) or ports_and_sequence in self._seen:
            return
        self._seen.add(ports_and_sequence)
        self.round_trips += sender == NEAR and self._last_from == FAR
        self._last_from = sender


def _tun(own: str, peer: str) -> int:
    """Make a device of this thread's network; returns the descriptor of what is sent through it."""
    try:
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        raise Unavailable(error.errno, "no tun device here: %s" % error) from error
    _ip("addr add %s peer %s dev tun0" % (own, peer))
    _ip("link set tun0 up")
    return device


def _own_network() -> int:
    """Have this thread in a new network; returns a descriptor of that."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise Unavailable(number, "no network of one's own here: %s" % os.strerror(number))
    _ip("link set lo up")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _enter(network: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(network, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, stdin=subprocess.DEVNULL)
