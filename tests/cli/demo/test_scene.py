"""One half of the demo: what is said where it is not as it should be."""

from unittest.mock import Mock

import pytest

from stalepool.cli.complaint import Complaint
from stalepool.cli.demo import scene as module
from stalepool.cli.demo.outcome import Impossible
from stalepool.cli.demo.scene import Scene
from stalepool_testing import Respond, Silence, Unavailable


def test_what_cannot_be_shown_and_what_fails(tmp_path, monkeypatch):
    with Scene(tmp_path, "with", {"STALEPOOL_ENABLED": "0"}) as scene:
        refuse = Mock(side_effect=Unavailable(1, "no socket filter"))
        assert scene.play(refuse, 0) == Impossible("no socket filter")
        with pytest.raises(Complaint, match="stalepool is not active in nova-api; its last words:"):
            scene.check()
        failed = scene.play(lambda scene: scene.planned.append(Respond(500)), 0)
        assert (failed.result, failed.asked) == ("500", 1) and "500" in failed.detail
        monkeypatch.setattr(module, "HUNG_AFTER_S", 0.2)
        hung = scene.play(lambda scene: scene.planned.append(Silence()), 0)
        assert (hung.result, hung.detail, hung.did.judged) == ("hung", "", {})


def test_what_is_no_fault_of_novas_is_shown_whole():
    assert [module._message(body) for body in ("x", "[]")] == ["x", "[]"]
