"""Timeouts as urllib3 takes them."""

import socket

import urllib3

from stalepool import clock


def test_a_limit_is_a_number_none_or_the_sockets_default():
    limits = [3, 2.5, None, urllib3.util.Timeout.DEFAULT_TIMEOUT]
    socket.setdefaulttimeout(7.0)
    try:
        assert [clock.number_of(limit) for limit in limits] == [3.0, 2.5, None, 7.0]
    finally:
        socket.setdefaulttimeout(None)


def test_the_shortest_is_the_smallest_number():
    default = urllib3.util.Timeout.DEFAULT_TIMEOUT
    assert clock.shorter(None, 3, default, 2.5) == 2.5
    assert clock.shorter(default, None) is default
