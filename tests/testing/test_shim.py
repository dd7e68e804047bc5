"""Switching the shim on or off for one block."""

import pytest
import urllib3  # noqa: F401  # settings come into force with it

import stalepool
from stalepool import runtime
from stalepool_testing import stalepool_off, stalepool_on

SETTINGS = {"replay": "off", "max_idle_s": 7.0, "silence_s": "off", "mode": "audit"}


@pytest.fixture(autouse=True)
def install_afterwards():
    yield
    stalepool.install()


@pytest.mark.parametrize("settings", [None, {}, SETTINGS], ids=["off", "defaults", "settings"])
def test_what_was_in_force_is_in_force_again(settings):
    if settings is None:
        stalepool.uninstall()
    else:
        stalepool.install(**settings)
    before = runtime.current
    with stalepool_on(keepalive_count=3):
        assert runtime.current.keepalive_count == 3
        with stalepool_off():
            assert not stalepool.is_installed()
        assert runtime.current.keepalive_count == 3
    assert runtime.current == before
    assert stalepool.is_installed() is (settings is not None)
    with pytest.raises(stalepool.SettingsError, match="no_such"), stalepool_on(no_such=1):
        pass
    assert runtime.current == before


@pytest.mark.parametrize("kill_switch", ["1", "0"])
def test_an_import_inside_a_block_changes_nothing(kill_switch, run_python):
    script = """
        import urllib3
        from stalepool_testing import stalepool_off, stalepool_on
        with stalepool_off():
            import stalepool
            assert not stalepool.is_installed()
        with stalepool_on():
            assert stalepool.is_installed()
        assert not stalepool.is_installed()
    """
    run_python(script, env={"STALEPOOL_ENABLED": kill_switch})


def test_a_urllib3_that_cannot_be_patched(run_python):
    script = """
        import pytest
        import urllib3.connectionpool
        from stalepool_testing import stalepool_on
        del urllib3.connectionpool.is_connection_dropped
        with pytest.raises(RuntimeError, match="could not be switched on: .*: not there"):
            with stalepool_on():
                pass
    """
    run_python(script, complains=True)
