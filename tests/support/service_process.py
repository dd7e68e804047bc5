"""Services in processes of their own, and ``stalepool status`` asked about one."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import stalepool
from conftest import child, of_a_child
from pools import get, serving, shim
from stalepool.cli.status.find import Process
from stalepool.cli.status.services import Service

SERVICE = """
import contextlib, os, signal, sys
import stalepool, urllib3
pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
def ask(method="GET"):
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        pool.request(method, "/a/path?token=secret", headers={"X": "secret"})
"""

#: set up after the imports, as most services do it
LOGGING = """
import logging
logging.basicConfig(
    stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(name)s %(filename)s %(message)s"
)
"""

#: a green one, which should have the shim from its environment; prints "covered" if it has. It
#: takes the port of a server that closes each connection
COVERED = """
import sys
assert "stalepool" in sys.modules  # before the service has asked for it
sys.path.insert(0, %r)
from in_client import check
import eventlet
eventlet.monkey_patch()
import urllib3
check(urllib3.connectionpool)
print("covered")
""" % str(Path(__file__).parent)


class Started(subprocess.Popen):
    """A child that runs a script, says when it is there, and ends when it is told to."""

    def __init__(self, script, *args, command=(sys.executable,), **variables):
        words = [*command, "-c", textwrap.dedent(script) + WAIT, *args]
        super().__init__(**of_a_child(words, env=variables, stdin=subprocess.PIPE))
        self.said = self.stdout.readline().split()

    def __exit__(self, *exc_info):
        self.err = self.communicate(timeout=30)[1]


WAIT = "\nprint('ready', *globals().get('said', ()), flush=True)\nsys.stdin.read()\n"


def this_process(**facts):
    """This process, as ``stalepool status`` knows it by its file."""
    seen = {"written_at": time.time(), "start_ticks": 1, **stalepool.snapshot(), **facts}
    return Service([Process(1, "u", "x", b"", json.loads(json.dumps(seen)))])


def service_after_two_requests(**settings):
    """This process, which has reused one connection with the shim."""
    with shim(**settings), serving() as (_, pool):
        assert [get(pool), get(pool)] == [200, 200]
        return this_process()


def output_of(script, server, *, first="", **variables):
    script = first + SERVICE + LOGGING + script
    done = child("-c", script, server.port, env=variables, check=True)
    return done.stdout.splitlines(), done.stderr.splitlines()
