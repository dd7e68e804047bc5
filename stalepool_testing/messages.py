"""HTTP/1.1 messages, as far as a server in a test needs them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.client import responses
from typing import Callable, Mapping, Union

CRLF = b"\r\n"


@dataclass
class Request:
    """A request as it arrived; header names are in lower case.

    ``body`` is empty until a step has read it, so a script function sees only the head.
    """

    method: str
    path: str
    version: str = "HTTP/1.1"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def request_id(self) -> str:
        """The client's ``X-Request-Id``, which every answer repeats."""
        return self.headers.get("x-request-id", "")

    @property
    def is_chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"

    @property
    def content_length(self) -> int:
        return int(self.headers.get("content-length", "0"))

    @property
    def expects_continue(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"

    @property
    def wants_close(self) -> bool:
        """True if the client will not use the connection again (RFC 9112 section 9.3)."""
        tokens = self.headers.get("connection", "").lower()
        return "close" in tokens or (self.version == "HTTP/1.0" and "keep-alive" not in tokens)


Body = Union[bytes, Callable[[Request], bytes]]


def echo(request: Request) -> bytes:
    """Return a body for ``Respond(body=echo)``: JSON that names the request that it answers."""
    said = {
        "method": request.method,
        "path": request.path,
        "request_id": request.request_id,
        "body": request.body.decode("latin-1"),
    }
    return json.dumps(said, sort_keys=True).encode()


def parse_head(head: bytes) -> Request:
    """Parse the request line and the headers, without the blank line that ends them.

    :raises ValueError: this is not an HTTP/1 request.
    """
    request_line, *lines = head.decode("latin-1").split("\r\n")
    words = request_line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise ValueError(f"not an HTTP/1 request line: {request_line!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"not a header line: {line!r}")
        headers[name.strip().lower()] = value.strip()
    return Request(words[0], words[1], words[2], headers)


def answer_bytes(
    status: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    request: Request | None = None,
) -> bytes:
    """Return a whole answer, framed as its status and the request's method demand.

    :param request: the request, whose ``X-Request-Id`` is repeated, and which has no body in its
        answer if it is ``HEAD``; ``None``: the answer is to no request.
    """
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"]
    bodiless = status < 200 or status in (204, 304)  # RFC 9112 section 6.3
    fields = {} if bodiless else {"Content-Length": str(len(body))}
    if request is not None and request.request_id:
        fields["X-Request-Id"] = request.request_id
    fields.update(headers or {})
    lines += [f"{name}: {value}" for name, value in fields.items()]
    head = "\r\n".join(lines).encode("latin-1") + CRLF + CRLF
    if bodiless or (request is not None and request.method == "HEAD"):
        return head
    return head + body
