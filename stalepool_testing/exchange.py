"""One request, and the ways in which a step can deal with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping

from stalepool_testing import messages
from stalepool_testing.messages import Body, Request

if TYPE_CHECKING:
    from stalepool_testing.channel import Channel
    from stalepool_testing.script import Step


class Exchange:
    """A request that has arrived, its entry in the journal, and its connection.

    :ivar request: the head; its ``body`` is empty until :meth:`read` or :meth:`process`.
    :ivar entry: its entry in the journal.
    :ivar channel: the connection; ``channel.sock`` is the raw socket.
    """

    def __init__(self, channel: Channel, request: Request, step: Step) -> None:
        self.channel = channel
        self.request = request
        self.entry = channel.journal._request_arrived(channel.number, request, step)

    def read(self, processed: bool) -> None:
        """Read the body, and note in the journal whether the server acts on the request."""
        self.request.body = self.channel.read_body(self.request)
        self.channel.journal._read(self.entry, self.request.body, processed)

    def process(self) -> None:
        """Read the body and act on the request: from here on it must not be sent again."""
        self.read(processed=True)

    def answer_bytes(
        self, status: int, body: Body = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Return a whole answer to this request, with its ``X-Request-Id``."""
        content = body if isinstance(body, bytes) else body(self.request)
        if not isinstance(content, bytes):
            raise TypeError(f"the function of a body has to return bytes, got {content!r}")
        return messages.answer_bytes(status, content, headers, self.request)

    def send(self, data: bytes) -> None:
        """Hand bytes to the kernel, over TLS as one record up to 16 KiB."""
        self.channel.send(data)

    def send_last(self, data: bytes) -> None:
        """Send the rest of the answer, and note that the request is answered."""
        # noted first: the client may read the answer, and look here, before sendall returns
        self.channel.journal._answered(self.entry, True)
        try:
            self.send(data)
        except BaseException:
            self.channel.journal._answered(self.entry, False)
            raise

    def respond(
        self, status: int, body: Body = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer, and note it."""
        self.send_last(self.answer_bytes(status, body, headers))

    def end(self, reset: bool) -> None:
        """End the connection with an RST or a FIN, over TLS without a close_notify."""
        if reset:
            self.channel.flush()  # an RST would discard what has not been sent yet
            self.channel.reset()
        else:
            self.channel.close()
