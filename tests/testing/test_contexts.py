"""The context managers of stalepool_testing, which need no pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import clean_environ

UNITTEST = """
import unittest, urllib3
from stalepool_testing import *

def ask(server, times=2):
    with urllib3.PoolManager(retries=False) as pool:
        return [pool.request("GET", server.url).status for _ in range(times)]

class Passes(unittest.TestCase):
    def test_off(self):
        with stalepool_off(), fault_server([Respond(200), Reset()]) as server:
            with self.assertRaises(urllib3.exceptions.ProtocolError):
                ask(server)

    def test_on(self):
        with stalepool_on(), fault_server([Respond(200), Reset()]) as server:
            self.assertEqual(ask(server), [200, 200])

    def test_states(self):
        for state in stale_states(tls=False):
            with self.subTest(state), stale_socket(state) as pair:
                self.assertGreaterEqual(pair.client.fileno(), 0)
        with black_hole() as pair, proxy() as between:
            self.assertTrue(between.port)

    def test_left(self):
        with fault_server([Respond(200)], may_leave_steps=True):
            pass

class Fails(unittest.TestCase):
    def test_left(self):
        with fault_server([Respond(200), Reset()]) as server:
            ask(server, 1)

    def test_assertion(self):
        with fault_server() as server:
            self.assertEqual(ask(server, 1), [404])
"""


def test_unittest(tmp_path: Path) -> None:
    """A failure shows the journal once."""
    (tmp_path / "cases.py").write_text(UNITTEST, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "cases"],
        cwd=tmp_path,
        env=clean_environ(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=100,
    )
    assert "Ran 6 tests" in done.stderr and "FAILED (failures=2)" in done.stderr, done.stderr
    assert done.stderr.count("(cases.Fails") == 2
    assert "no request met Reset(): 1 came in all" in done.stderr
    assert done.stderr.count("request 0: GET / meets Respond()") == 2
