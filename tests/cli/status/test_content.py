"""What is in a status file is not taken on trust."""

import json
import os

import pytest

from pools import get, serving, shim
from service_process import this_process
from stalepool import fallback
from stalepool.cli.status import content, explain, page, report
from stalepool.cli.status.find import Process
from stalepool.cli.status.services import Service
from stalepool_testing import ResetAfter, Respond

#: what is written, or done to the file; what is said of it
GARBAGE = {
    "no JSON": (b"{", "it is no JSON"),
    "not even text": (b"\xff\x00" * 9, "it is no JSON"),
    "deep": (b"[" * 100_000, "it is no JSON"),
    "another shape": (b"[1, 2]", "it is not of stalepool's making, or of another version"),
    "too large": (b" " * (content.LARGEST_FILE + 1), "it is too large"),
    "a fifo": (lambda path: (path.unlink(), os.mkfifo(path)), "it is not a file of its user's"),
    "a link": (lambda p: (p.rename(p.with_name("x")), p.symlink_to("x")), "it is a link"),
}


def read(path):
    directory = os.open(str(path.parent), os.O_RDONLY)
    try:
        return content.read(directory, path.name, os.geteuid())
    finally:
        os.close(directory)


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_named_in_one_sentence(name, tmp_path):
    (garbage, why), path = GARBAGE[name], tmp_path / "it"
    path.write_bytes(b"" if callable(garbage) else garbage)
    garbage(path) if callable(garbage) else None
    with pytest.raises((OSError, ValueError)) as refused:
        read(path)
    assert content.reason(refused.value) == why


JUNK = [None, True, -1, 10**30, 1e300, float("nan"), "junk", [], [[1]], {}, {"x": {"y": []}}]


def with_junk(value):
    """The same thing with one part at a time replaced by junk, or left out."""
    if isinstance(value, dict):
        for key in value:
            yield {each: value[each] for each in value if each != key}
            yield {**value, key + "?": value[key]}
            for changed in with_junk(value[key]):
                yield {**value, key: changed}
    yield from JUNK


def test_whatever_a_file_holds_it_is_refused_or_shown(tmp_path):
    with shim(falls_back=True), serving([Respond(200), ResetAfter(0)]) as (server, pool):
        get(pool)
        server.wait_idle_step()
        get(pool)
        fallback.fall_back("check_failed", "junk")
        (whole,) = this_process().seen
    # one setting and one origin: others, such as those of other tests, would be junked alike
    whole["settings"] = {"replay": whole["settings"]["replay"]}
    own = ":%d" % server.port
    whole["origins"] = {name: o for name, o in whole["origins"].items() if name.endswith(own)}
    junk = [json.loads(json.dumps(changed)) for changed in with_junk(whole)]
    taken = [seen for seen in junk if content.is_a_status(seen)]
    for seen in taken:
        shown = [Service([Process(1, "u", "x", b"", seen)])]
        assert page.page(shown) and explain.explanation(shown)
        json.dumps(shown[0].as_dict())
        seen["mode"] = "audit"
        assert report.report(shown)
    assert content.is_a_status(whole) and len(taken) > 50
    whole["patched"] = ["\x1b]0;title\x07\n"]
    (tmp_path / "it").write_text(json.dumps(whole))
    assert read(tmp_path / "it")["patched"] == ["?]0;title??"]
    for edge in ("e", "1..2", "", "nan"):  # an age that is no number
        whole["totals"]["died_idle_s"] = {edge: 1}
        assert not content.is_a_status(whole)
