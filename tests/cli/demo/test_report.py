"""The report of the demo."""

from stalepool.cli.demo import report
from stalepool.cli.demo.cases import CASES
from stalepool.cli.demo.outcome import Answer, Did, Impossible, Race
from stalepool.cli.demo.report import Row

BY_NAME = {case.name: case for case in CASES}


def answer(status, asked=1, detail="lost", replays=(), **judged):
    did = Did(judged, dict.fromkeys(replays, 1))
    return Answer(status, 0.0123, detail if status == 500 else "", asked, did)


def race(failures, detail=""):
    return Race(1000, failures, 0.25, detail, Did({"closed": 1100, "alive": 1000}, {}))


def test_the_report_says_all():
    saved = answer(200, asked=2, replays=["ok"], alive=1)
    rows = [
        Row(BY_NAME["fin-idle"], answer(500), answer(200, closed=1)),
        Row(BY_NAME["rst-on-arrival"], answer(500), saved),
        Row(BY_NAME["busy-worker"], race(31, "reset by peer"), race(0)),
        Row(BY_NAME["black-hole"], answer(None), answer(200, probe_unanswered=1)),
        Row(BY_NAME["path-away"], answer(200), answer(200, alive=1)),
        Row(BY_NAME["select-hang"], *[Impossible("no socket filter")] * 2),
    ]
    closing = report.closing(rows, 41.7, None)
    table = "\n".join(map(report.row, rows))
    assert max(map(len, (table + closing).splitlines())) <= 79
    for cell in (
        *("200 in 12 ms", "found: closed\n", "sent again: ok", "hung, over 6 s"),
        *("31 of 1000 fail", "0 of 1000 fail", "median 250 ms", "found: closed 1100\n"),
        *("found: probe_unanswered", "neutron asked: 1", "not possible here"),
    ):
        assert cell in table
    assert "unexpected: fin-idle without stalepool should give: 200." in closing
    assert closing.count("unexpected") == 1
    assert "not possible here: no socket filter\n" in closing
    assert report.as_json(rows[-1])["with"]["result"] == "impossible"
    assert "\n500: lost\n" in closing
    assert "the commonest error of the busy worker: reset by peer" in closing
    assert closing.endswith(
        "\nOK: cases that end well: 5 of 5 with stalepool, 1 of 5 without it; select-hang\n"
        "cannot be shown on this machine (42 s)."
    )
    failed = Row(BY_NAME["fin-on-arrival"], answer(500), answer(500, detail="odd"))
    assert report.row(failed).splitlines()[0].endswith(" FAIL")
    closing = report.closing([*rows, failed], 1.0, None)
    assert "500: odd\n" in closing and "lost" not in closing
    assert "FAILED: with stalepool, fin-on-arrival did not end as expected; --keep-" in closing
    assert report.closing([failed], 1.0, "/tmp/x").endswith("expected; the logs are in\n/tmp/x")
