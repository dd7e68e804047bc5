"""What is logged."""

import logging


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
