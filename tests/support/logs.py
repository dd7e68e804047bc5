"""What is logged: here, or by a service in a process of its own."""

from __future__ import annotations

import contextlib
import logging

from conftest import child


class Records(logging.Handler):
    """Keeps what is logged, and does something at each record.

    Not at that of the process's first answer, which any test's may be.
    """

    def __init__(self, act=lambda record: None):
        super().__init__(logging.DEBUG)
        self.records = []
        self.act = act

    def emit(self, record):
        if "is active" not in record.msg:
            self.records.append(record)
            self.act(record)

    @property
    def lines(self):
        return [record.getMessage() for record in self.records]


@contextlib.contextmanager
def listening():
    """Give ``listen(act)``: a handler on ``stalepool``, its records, and what it does at each."""
    logger = logging.getLogger("stalepool")
    added = []

    def listen(act=lambda record: None, level=logging.DEBUG):
        handler = Records(act)
        logger.addHandler(handler)
        logger.setLevel(level)
        added.append(handler)
        return handler

    try:
        yield listen
    finally:
        for handler in added:
            logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


#: a service that sets its logging up after its imports, as most do
LATE = """
import sys
import stalepool, urllib3
import logging
logging.basicConfig(
    stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(name)s %(filename)s %(message)s"
)
pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
"""


def output_of(script, server, *, first="", **variables):
    done = child("-c", first + LATE + script, server.port, env=variables, check=True)
    return done.stdout.splitlines(), done.stderr.splitlines()
