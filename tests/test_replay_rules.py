"""The rule table alone: every row refuses what it is there for, and nothing else refuses."""

from __future__ import annotations

import errno
import http.client
import io
import os
import ssl
from typing import Any

import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from stalepool import errors, replay
from stalepool.replay import Failure, Request

ALL_METHODS = (
    "GET",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "PUT",
    "DELETE",
    "POST",
    "PATCH",
    "CONNECT",
    "LOCK",
)
POLICIES = ("off", "safe", "idempotent", "evidence")

GET = Request("GET", frozenset(), None, None, False)
CONSENTED = Failure(
    GET, "idempotent", True, False, (http.client.RemoteDisconnected(),), False, None
)


def changed(**facts: Any) -> Failure:
    """The failure every rule consents to, with some facts otherwise."""
    request = GET._replace(**{name: facts.pop(name) for name in list(facts) if name in GET._fields})
    return CONSENTED._replace(request=request, **facts)


def test_a_get_whose_reused_connection_ended_is_sent_again():
    assert replay.refusal(CONSENTED) is None


@pytest.mark.parametrize(
    ("refusal", "facts"),
    [
        ("switched_off", {"policy": "off"}),
        ("fresh_connection", {"was_reused": False}),
        ("answer_began", {"answer_began": True}),
        ("other_failure", {"errors": (TimeoutError("timed out"),)}),
        ("body", {"body": iter([b"once"])}),
        ("body", {"body": [b"a", b"list"]}),
        ("framing", {"chunked": True}),
        ("framing", {"header_names": frozenset(("expect",))}),
        ("framing", {"header_names": frozenset(("upgrade",))}),
        ("framing", {"header_names": frozenset(("transfer-encoding",))}),
        ("framing", {"body": io.BytesIO(), "body_start": 0}),  # no length: sent in chunks
        ("method", {"method": "POST"}),
        ("method", {"method": "PATCH"}),
        ("method", {"method": "PUT", "policy": "safe"}),
        ("precondition", {"header_names": frozenset(("if-match",))}),
        ("precondition", {"header_names": frozenset(("if-none-match",))}),
        ("precondition", {"header_names": frozenset(("if-unmodified-since",))}),
        ("no_time_left", {"time_left_s": 0.0}),
        ("no_time_left", {"time_left_s": -1.0}),
    ],
)
def test_what_each_rule_refuses(refusal, facts):
    assert replay.refusal(changed(**facts)) == refusal


def test_every_rule_has_a_case_above_and_a_name_of_its_own():
    names = [rule.refusal for rule in replay.RULES]
    marks = test_what_each_rule_refuses.pytestmark
    assert sorted({case[0] for mark in marks for case in mark.args[1]}) == sorted(names)


@pytest.mark.parametrize(
    "facts",
    [
        {"body": b"bytes"},
        {"body": "text"},
        {"body": io.BytesIO(), "body_start": 3, "header_names": frozenset(("content-length",))},
        {"method": "DELETE"},
        {"method": "HEAD", "policy": "safe"},
        {"method": "POST", "header_names": frozenset(("idempotency-key",))},
        {"method": "POST", "policy": "evidence", "never_read": True},
        {"header_names": frozenset(("if-modified-since", "if-range"))},
        {"method": "PUT", "header_names": frozenset(("if-match", "idempotency-key"))},
        {"time_left_s": 0.001},
    ],
)
def test_what_is_sent_again(facts):
    assert replay.refusal(changed(**facts)) is None


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("method", ALL_METHODS)
def test_methods_by_setting(method, policy):
    """Written out once more: this is what the documentation promises."""
    safe = {"GET", "HEAD", "OPTIONS", "TRACE"}
    wanted = {
        "off": set(),
        "safe": safe,
        "idempotent": safe | {"PUT", "DELETE"},
        "evidence": safe | {"PUT", "DELETE"},
    }[policy]
    assert (replay.refusal(changed(method=method, policy=policy)) is None) == (method in wanted)


def of_pyopenssl(name: str, *args: Any) -> BaseException:
    """What ``OpenSSL.SSL`` raises: no OSError, and told by its name, as it need not be there."""
    cls = type(name, (Exception,), {"__module__": "OpenSSL.SSL"})
    return cls(*args)


@pytest.mark.parametrize(
    ("error", "is_the_connections"),
    [
        (of_pyopenssl("SysCallError", errno.ECONNRESET, "ECONNRESET"), True),
        (of_pyopenssl("SysCallError", errno.EPIPE, "EPIPE"), True),
        (of_pyopenssl("SysCallError", errno.ETIMEDOUT, "ETIMEDOUT"), True),
        (of_pyopenssl("SysCallError", -1, "Unexpected EOF"), True),
        (of_pyopenssl("Error", [("SSL routines", "", "unexpected eof while reading")]), True),
        (of_pyopenssl("Error", [("system library", "", "")]), True),
        (of_pyopenssl("Error", []), True),
        (of_pyopenssl("SysCallError", errno.EMFILE, "EMFILE"), False),
        (of_pyopenssl("SysCallError"), False),
        (of_pyopenssl("Error", [("SSL routines", "", "certificate verify failed")]), False),
        (of_pyopenssl("Error", [("SSL routines", "", "decryption failed or bad mac")]), False),
        (of_pyopenssl("Error"), False),
        (of_pyopenssl("WantReadError"), False),  # behind the caller's own timeout
        (of_pyopenssl("WantReadError", []), False),
        (Exception([]), False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (ConnectionAbortedError(errno.ECONNABORTED, "aborted"), True),
        (BrokenPipeError(errno.EPIPE, "pipe"), True),
        (TimeoutError(errno.ETIMEDOUT, "the kernel gave up"), True),
        (OSError(errno.EHOSTUNREACH, "unreachable"), True),
        (OSError(errno.ENETUNREACH, "unreachable"), True),
        (http.client.RemoteDisconnected("closed"), True),
        (ssl.SSLEOFError(8, "EOF"), True),
        (ssl.SSLZeroReturnError(6, "close_notify"), True),
        (TimeoutError("timed out"), False),  # the caller's own
        (BlockingIOError(errno.EAGAIN, "again"), False),
        (OSError(errno.EMFILE, "no descriptors"), False),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), False),
        (ssl.SSLCertVerificationError(1, "certificate"), False),
        (http.client.BadStatusLine("HTTP/1."), False),
        (http.client.IncompleteRead(b"half"), False),
        (ValueError("a header"), False),
        (MemoryError(), False),
    ],
)
def test_whose_failure_it_is(error, is_the_connections):
    assert (replay.refusal(changed(errors=(error,))) is None) is is_the_connections


def test_the_errno_is_found_behind_what_urllib3_made_of_it():
    def by_cause() -> None:  # 2.x
        try:
            raise TimeoutError(errno.ETIMEDOUT, "the kernel gave up")
        except OSError as error:
            raise urllib3.exceptions.ReadTimeoutError(None, "/", "") from error  # type: ignore

    def by_context() -> None:  # 1.26
        try:
            raise TimeoutError(errno.ETIMEDOUT, "the kernel gave up")
        except OSError:
            raise urllib3.exceptions.ReadTimeoutError(None, "/", "")  # type: ignore

    for make in (by_cause, by_context):
        with pytest.raises(urllib3.exceptions.ReadTimeoutError) as raised:
            make()
        assert replay.refusal(changed(errors=errors.chain(raised.value))) is None


def test_what_the_caller_was_handling_is_none_of_it():
    handled = ConnectionResetError(errno.ECONNRESET, "of another connection")
    with pytest.raises(TimeoutError) as raised:
        try:
            raise handled
        except ConnectionResetError:
            raise TimeoutError("timed out")
    error = raised.value
    assert error.__context__ is handled
    assert errors.chain(error, handled) == (error,)
    assert errors.chain(error) == (error, handled)


class Alarm(Exception):
    """What a timer was told to raise: ``eventlet.Timeout(1, Alarm)``."""


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), True),
        (TimeoutError("timed out"), True),
        (ssl.SSLError(1, "handshake"), True),
        (ssl.CertificateError("host name"), True),
        (http.client.BadStatusLine("HTTP/1."), True),
        (http.client.RemoteDisconnected("closed"), True),
        (urllib3.exceptions.ProtocolError("aborted"), True),
        (urllib3.exceptions.NewConnectionError(None, "refused"), True),  # type: ignore[arg-type]
        (urllib3.exceptions.LocationParseError("place"), True),
        (UnicodeError("a header"), True),
        (of_pyopenssl("Error", []), True),
        (type("HTTPException", (Exception,), {"__module__": "eventlet.green.http.client"})(), True),
        (type("HTTPError", (Exception,), {"__module__": "pip._vendor.urllib3.exceptions"})(), True),
        (type("Timeout", (BaseException,), {"__module__": "eventlet.timeout"})(), False),
        (type("Timeout", (Exception,), {"__module__": "eventlet.timeout"})(), False),
        (Alarm(), False),
        (KeyboardInterrupt(), False),
        (SystemExit(), False),
        (GeneratorExit(), False),
        (MemoryError(), False),
        (AttributeError("a defect"), False),
    ],
    ids=repr,
)
def test_whether_an_error_is_a_trys_own(error, is_it):
    assert errors.is_of_the_try(error) is is_it


def test_a_chain_that_bites_its_tail_ends():
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    assert errors.chain(first) == (first, second)


# -- every combination -------------------------------------------------------------------------

the_same_each_time = settings(derandomize=True, database=None, deadline=None)

BODIES = st.sampled_from([None, b"bytes", "text", bytearray(b"array"), (b"tuple",), io.BytesIO()])
HEADERS = st.frozensets(
    st.sampled_from(
        [
            "accept",
            "content-length",
            "expect",
            "idempotency-key",
            "if-match",
            "if-modified-since",
            "if-none-match",
            "if-unmodified-since",
            "transfer-encoding",
            "upgrade",
        ]
    ),
    max_size=4,
)
ERRORS = st.sampled_from(
    [
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError(errno.ETIMEDOUT, "the kernel gave up"),
        TimeoutError("timed out"),
        http.client.RemoteDisconnected(),
        ValueError(),
    ]
)
FAILURES = st.builds(
    Failure,
    request=st.builds(
        Request,
        method=st.sampled_from(ALL_METHODS),
        header_names=HEADERS,
        body=BODIES,
        body_start=st.sampled_from([None, None, 0, 7]),
        chunked=st.booleans(),
    ),
    policy=st.sampled_from(POLICIES),
    was_reused=st.booleans(),
    answer_began=st.booleans(),
    errors=st.lists(ERRORS, min_size=1, max_size=2).map(tuple),
    never_read=st.booleans(),
    time_left_s=st.one_of(st.none(), st.floats(-5, 5)),
)


@the_same_each_time
@given(FAILURES)
def test_nothing_is_sent_again_that_could_harm(failure):
    """What makes a replay safe, said without the table."""
    if replay.refusal(failure) is not None:
        return
    request, names = failure.request, failure.request.header_names
    assert failure.policy != "off"
    assert failure.was_reused and not failure.answer_began
    assert any(
        isinstance(error, ConnectionError) or getattr(error, "errno", None) == errno.ETIMEDOUT
        for error in failure.errors
    )
    assert (
        request.body is None
        or isinstance(request.body, (bytes, str))
        or request.body_start is not None
    )
    assert not request.chunked
    assert not names & {"expect", "upgrade", "transfer-encoding"}
    if "idempotency-key" not in names:
        assert not names & {"if-match", "if-none-match", "if-unmodified-since"}
        if request.method in ("POST", "PATCH", "CONNECT", "LOCK"):
            assert failure.policy == "evidence" and failure.never_read
    assert failure.time_left_s is None or failure.time_left_s > 0


@the_same_each_time
@given(FAILURES)
def test_a_stricter_setting_never_sends_more(failure):
    consents = [replay.refusal(failure._replace(policy=policy)) is None for policy in POLICIES]
    assert consents == sorted(consents)


@the_same_each_time
@given(FAILURES)
def test_the_first_rule_that_refuses_is_named(failure):
    refusing = [rule.refusal for rule in replay.RULES if not rule.consents(failure)]
    assert replay.refusal(failure) == (refusing[0] if refusing else None)


# -- what the rules are told of a request --------------------------------------------------------


def test_describe():
    described = replay.describe("pOsT", {"If-Match": "x", b"Expect": "y"}, b"body", None, None)
    assert described == Request("POST", frozenset(("if-match", "expect")), b"body", None, False)
    assert replay.describe("GET", None, None, None, True) == GET._replace(chunked=True)
    headers = urllib3.response.HTTPHeaderDict({"UPGRADE": "h2c"})
    assert replay.describe("GET", headers, None, None, False).header_names == {"upgrade"}


class Unseekable(io.RawIOBase):
    def seek(self, *args: Any) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        return 5


def test_where_a_body_begins(tmp_path):
    path = tmp_path / "body"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.seek(4)
        assert replay.position(file) == 4
        assert file.read() == b"456789"
    assert replay.position(file) is None  # closed
    assert replay.position(io.StringIO("text")) == 0
    assert replay.position(Unseekable()) is None
    ear, mouth = os.pipe()
    with open(ear, "rb") as pipe, open(mouth, "wb"):
        assert replay.position(pipe) is None
    for body in (None, b"", "", [b"a"], iter(()), bytearray(b"a")):
        assert replay.position(body) is None
