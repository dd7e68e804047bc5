"""The context managers of stalepool_testing, which need no pytest."""

from __future__ import annotations

from pathlib import Path

from conftest import child

UNITTEST = """
import unittest, urllib3
from stalepool_testing import *

def ask(server):
    with urllib3.PoolManager() as pool:
        return pool.request("GET", server.url).status

class Passes(unittest.TestCase):
    def test_proxy(self):
        with proxy() as between, fault_server() as server:
            with urllib3.ProxyManager(between.url) as pool:
                self.assertEqual(pool.request("GET", server.url).status, 200)
            self.assertEqual(len(between.forwarded), 1)

    def test_left(self):
        with fault_server([Respond(200)], may_leave_steps=True):
            pass

class Fails(unittest.TestCase):
    def test_left(self):
        with fault_server([Respond(200), Reset()]) as server:
            ask(server)

    def test_assertion(self):
        with fault_server() as server:
            self.assertEqual(ask(server), 404)
"""


def test_unittest(tmp_path: Path) -> None:
    """A failure shows the journal once."""
    (tmp_path / "cases.py").write_text(UNITTEST, encoding="utf-8")
    done = child("-m", "unittest", "cases", cwd=tmp_path)
    assert "Ran 4 tests" in done.stderr and "FAILED (failures=2)" in done.stderr, done.stderr
    assert done.stderr.count("(cases.Fails") == 2
    assert "no request met Reset(): 1 came in all" in done.stderr
    assert done.stderr.count("request 0: GET / meets Respond()") == 2
