"""A service that the demo asks, and that cannot answer."""

import pytest

from stalepool.cli.complaint import Complaint
from stalepool.cli.demo.service import Service


def test_why_it_does_not_answer(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Service("http://127.0.0.1:1", log, {"STALEPOOL_ENABLED": "0"}) as nova:
        with pytest.raises(Complaint, match=r"^nova-api does not answer as it should: .*:1"):
            nova.tell("/servers/detail")
        nova._process.kill()
        log.write_text("no room\n")
        with pytest.raises(Complaint, match=r"^nova-api has ended with status -9; .*:\nno room"):
            nova.tell("/servers/detail")
