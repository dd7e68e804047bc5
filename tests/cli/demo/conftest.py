"""What the tests of the demo share."""

from importlib.util import find_spec

import pytest


@pytest.fixture(autouse=True)
def green():
    if find_spec("eventlet") is None:
        pytest.skip("the demo needs eventlet")
