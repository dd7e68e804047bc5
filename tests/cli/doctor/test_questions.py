"""What the doctor says of the facts."""

import pytest

from stalepool.cli.doctor import questions
from stalepool.cli.doctor.questions import ERROR, OK, WARNING
from stalepool.settings import Settings

SNAPSHOT = {"patched": ["urllib3.connectionpool"], "unpatched": [], "fallbacks": {}}
START = {"switch": None, "writable_by_others": None, "has_start_file": True, "is_injectable": True}
#: which this machine may not have
FACTS = {
    **{"python": "3.11.7", "implementation": "cpython", "system": "Linux", "kernel": "6.1"},
    "versions": {"urllib3": "2.8.0", "wrapt": "2.5.2", "openssl": "OpenSSL 3.5"},
    **{"snapshot": SNAPSHOT, "settings": Settings(), "sysctls": {"tcp_retries2": 15}},
    **{"pools": ["urllib3.connectionpool"], "on_disk": {"urllib3": "urllib3"}, "tools": []},
    **{"hub": "", "hub_at_import": [""], "uwsgi": [], "without_timeout": [], "start": START},
}
ARMED = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 42}


@pytest.mark.parametrize(
    ("question", "known", "levels"),
    [
        ("python", {"implementation": "pypy"}, [ERROR]),
        ("python", {"system": "Darwin"}, [WARNING]),
        ("versions", {}, [OK]),
        ("settings", {"settings": "it is wrong"}, [ERROR]),
        ("settings", {"settings": Settings(enabled=False)}, [WARNING]),
        ("settings", {"settings": Settings(keepalive="off", keepalive_count=3)}, [OK, WARNING]),
        ("urllib3", {"versions": {"urllib3": "1.25.11"}}, [WARNING]),
        ("urllib3", {"versions": {"urllib3": "3.0.0"}}, [WARNING]),
        ("urllib3", {"versions": {"urllib3": "1.26.20"}}, []),
        ("urllib3", {"versions": {}}, [WARNING]),
        ("urllib3", {"import_error": "No module named 'urllib3'"}, [WARNING]),
        ("urllib3", {"on_disk": {"urllib3": "urllib3-future"}}, [WARNING]),
        ("copies", {"on_disk": {"urllib3_future": "", "pip._vendor.urllib3": ""}}, [OK, WARNING]),
        ("copies", {"pools": ["urllib3.connectionpool", "x.urllib3.connectionpool"]}, [WARNING]),
        ("patches", {"snapshot": {**SNAPSHOT, "fallbacks": {"check_failed": 1}}}, [OK, WARNING]),
        ("patches", {"snapshot": {**SNAPSHOT, "patched": []}}, [ERROR]),
        ("patches", {"pools": []}, []),
        ("order", {"hub": "gevent"}, [WARNING]),
        ("order", {"hub_at_import": []}, []),
        ("tools", {"tools": ["New Relic"]}, [OK]),
        ("forks", {"uwsgi": ["master", "processes"]}, [WARNING]),
        ("forks", {"uwsgi": ["lazy-apps", "master"]}, []),
        ("forks", {"uwsgi": ["py-call-osafterfork"]}, []),
        ("keepalive", {}, []),
        ("keepalive", {"socket": ARMED}, [OK]),
        ("keepalive", {"socket": {**ARMED, "SO_KEEPALIVE": 0}}, [WARNING]),
        ("keepalive", {"socket_error": "AttributeError()"}, [WARNING]),
        ("keepalive", {"socket": {"SO_KEEPALIVE": 0}, "settings": Settings(keepalive="off")}, [OK]),
        ("kernel", {"sysctls": {"tcp_retries2": 5}}, [WARNING]),
        ("kernel", {"sysctls": {}}, [OK]),
        ("kernel", {"settings": Settings(silence_s="off")}, [WARNING]),
        ("timeouts", {"without_timeout": ["[neutron] timeout"]}, [WARNING]),
        ("start", {"start": None}, []),
        ("start", {"start": {**START, "switch": "yes"}}, [WARNING, OK]),
        ("start", {"start": {**START, "switch": "1", "has_start_file": False}}, [WARNING, OK]),
        ("start", {"start": {**START, "writable_by_others": ("/", "belongs to x")}}, [WARNING, OK]),
    ],
)
def test_judgement(question, known, levels):
    found = questions.ask_all({**FACTS, **known})
    assert [each.level for each in found if each.question == question] == levels
    assert all(bool(each.remedy) == (each.level != OK) for each in found)


def test_all_is_well():
    assert {each.level for each in questions.ask_all(FACTS)} == {OK}


@pytest.mark.parametrize(
    ("question", "known", "words"),
    [
        ("python", {"versions": {}}, "no ssl"),
        ("python", {"versions": {}, "start": None}, "ssl not loaded"),
        ("start", {"start": {**START, "is_injectable": False}}, ": STALEPOOL=1, import stalepool"),
    ],
)
def test_what_is_said(question, known, words):
    found = questions.ask_all({**FACTS, **known})
    assert [words in each.says for each in found if each.question == question] == [True]
