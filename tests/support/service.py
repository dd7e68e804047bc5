"""A service whose server closes each connection, for environments that should have the shim."""

from __future__ import annotations

from worlds import SUPPORT

#: takes the server's port; prints "covered" if the shim was there before it was asked for
SERVICE = """
import sys
assert "stalepool" in sys.modules  # before the service has asked for it
sys.path.insert(0, %r)
from in_client import check
import eventlet
eventlet.monkey_patch()
import urllib3
check(urllib3.connectionpool)
print("covered")
""" % str(SUPPORT)
