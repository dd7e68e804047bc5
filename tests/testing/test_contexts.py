"""The context managers of stalepool_testing, which need no pytest."""

from urllib.request import urlopen

import pytest

from stalepool_testing import Reset, Respond, fault_server


def test_a_step_that_is_left_fails_the_block():
    with pytest.raises(AssertionError, match=r"no request met Reset\(\): 1 came in all"):
        with fault_server([Respond(200), Reset()]) as server:
            urlopen(server.url).close()
    with fault_server([Respond(200)], may_leave_steps=True):
        pass
    with pytest.raises(KeyError, match="its own error goes first"), fault_server([Reset()]):
        raise KeyError("its own error goes first")
