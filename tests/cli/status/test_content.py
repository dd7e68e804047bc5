"""What is in a status file is not taken on trust."""

import json
import os
import time

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


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_named_in_one_sentence(name, changed, status):
    (pid, path), (garbage, why) = changed, GARBAGE[name]
    garbage(path) if callable(garbage) else path.write_bytes(garbage)
    done, as_json = status(pid), status("--json", pid)
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert line.endswith("its status file %s cannot be used: %s" % (path, why))
    assert json.loads(as_json.stdout)["services"][0]["processes"][0]["is_off"] is True


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"start_ticks": 1}, "no status"),  # of an earlier process with its pid
        ({"written_at": time.time() - 3 * 86400}, "  as of 3 d ago: "),
        ({"patched": ["\x1b]0;title\x07\n"]}, "; patched: ?]0;title??\n"),
    ],
    ids=["of another process", "old", "for a terminal"],
)
def test_what_is_in_the_file_is_not_taken_on_trust(edit, said, changed, status):
    pid, path = changed
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    done = status(pid)
    assert said in done.stdout and "\x1b" not in done.stdout


JUNK = [None, True, -1, 1e300, float("nan"), "junk", [], [[1]], {}, {"x": {"y": []}}]


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
    with shim(), serving([Respond(200), ResetAfter(0)]) as (server, pool):
        get(pool)
        server.wait_idle_step()
        get(pool)
        fallback.fall_back("check_failed", "junk")
        (whole,) = this_process().seen
    # one setting and one origin: others, such as those of other tests, would be junked alike
    whole["settings"] = {"replay": whole["settings"]["replay"]}
    own = ":%d" % server.port
    whole["origins"] = {name: o for name, o in whole["origins"].items() if name.endswith(own)}
    read = [json.loads(json.dumps(changed)) for changed in with_junk(whole)]
    taken = [seen for seen in read if content.is_a_status(seen)]
    for seen in taken:
        shown = [Service([Process(1, "u", "x", b"", seen)])]
        assert page.page(shown) and explain.explanation(shown)
        json.dumps(shown[0].as_dict())
        seen["mode"] = "audit"
        assert report.report(shown)
    assert content.is_a_status(whole) and len(taken) > 50
    for edge in ("e", "1..2", "", "nan"):  # an age that is no number
        whole["totals"]["died_idle_s"] = {edge: 1}
        assert not content.is_a_status(whole)
