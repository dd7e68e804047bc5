"""Every name that is counted is explained."""

from stalepool import fallback
from stalepool.cli.status import explain
from stalepool.connection import move, request_rules
from stalepool.sockets.verdict import Verdict


def test_each_name_has_a_meaning_and_a_remedy():
    names = [*request_rules.REPLAY_RULES, *request_rules.DEATH_RULES, *fallback.REASONS]
    names += [*move.MOVE_REASONS, *(verdict.value for verdict in Verdict)]
    names += ["ok", "failed", "would", "windows", "failed_in_request", "silent_in_request"]
    for name in names:
        assert "?" not in (explain.words_for(name), explain.remedy_for(name)), name
    assert (explain.words_for("x"), explain.remedy_for("x")) == ("?", "?")
    usual = explain._FALLBACK_REMEDY
    others = {name for name in fallback.REASONS if explain.remedy_for(name) != usual}
    known = {"unknown_connection", "requests_unseen", "wrapped_by_others", "patch_missing"}
    assert others == {*known, "hook_failed", "status_failed"}
