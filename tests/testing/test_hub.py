"""The assertion that a block does not yield."""

import pytest

import lanes

SCRIPT = """
    import time
    import pytest
    from stalepool_testing import no_hub_switch

    with no_hub_switch():
        sum(range(1000))
    with pytest.raises(AssertionError, match="(?s)yielded 2 times.* in sleep"), no_hub_switch():
        time.sleep(0)
        time.sleep(0)
    with pytest.raises(KeyError), no_hub_switch():
        time.sleep(0)
        raise KeyError("the block's own error goes first")
    time.sleep(0)  # nobody watches any more

    import greenlet
    seen = []
    greenlet.settrace(lambda event, switched: seen.append(event))
    with pytest.raises(AssertionError), no_hub_switch():
        time.sleep(0)
    assert "switch" in seen, "an earlier trace function sees what it saw before"
    greenlet.settrace(None)
"""


@pytest.mark.parametrize("world", lanes.first(1, ["gevent", "eventlet"]))
def test_a_switch_is_seen(world, run_python):
    run_python(SCRIPT, world=world)
