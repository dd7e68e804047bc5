"""The kernel's own ``poll``, and our imports, in a process whose standard library is patched.

That it never yields is in ``test_checkout_never_yields``.
"""

import select
import sys
from types import SimpleNamespace

from stalepool.sockets import unpatched


def test_the_kernels_own_poll(monkeypatch):
    assert unpatched.poll() is select.poll
    monkeypatch.delattr("select.poll")
    monkeypatch.delitem(sys.modules, "__original_module_select", raising=False)
    kept_by_gevent = SimpleNamespace(get_original=lambda *names: names)
    for module, found in (kept_by_gevent, ("select", "poll")), (None, None):  # or there is none
        monkeypatch.setitem(sys.modules, "gevent.monkey", module)
        assert unpatched.poll() == found


def test_what_eventlet_keeps_need_not_be_loaded(monkeypatch):
    """Its ``original()`` takes a module out again that was not there before."""
    monkeypatch.setitem(sys.modules, "__original_module_not_loaded", SimpleNamespace())
    with unpatched.in_sight():
        assert "not_loaded" not in sys.modules


IN_SIGHT = """
    import json, sys
    import in_client  # quiets eventlet
    import eventlet, socket
    sys.path.insert(0, sys.argv[1])
    green = eventlet.import_patched("looks_around")
    print(json.dumps([green.OUTSIDE, green.INSIDE, green.AFTER, sys.modules["socket"] is socket]))
"""

LOOKS_AROUND = """
import sys
from stalepool.sockets import unpatched
OUTSIDE = sys.modules["socket"].__name__
with unpatched.in_sight():
    INSIDE = sys.modules["socket"].__name__
AFTER = sys.modules["socket"].__name__
"""


def test_what_is_imported_while_a_green_copy_is_made_is_not_green(run_python, tmp_path):
    (tmp_path / "looks_around.py").write_text(LOOKS_AROUND)
    seen = run_python(IN_SIGHT, tmp_path)
    assert seen == ["eventlet.green.socket", "socket", "eventlet.green.socket", True]
