"""The progress of what takes long on the link."""

from __future__ import annotations

import logging

import pytest

from callyard.backends.gateway.gateway_call import GatewayFuture
from callyard.backends.gateway.transfers import Transfer


def test_a_future_shows_what_is_on_its_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "callyard")
    now = [0.0]
    transfer = Transfer(("sending", "to me@login"), 300_000_000, lambda: now[0])
    future = GatewayFuture("relax", lambda: None)
    future.transfer = transfer
    for seconds, text in ((4.0, "999 kB of 300 MB"), (11.0, "120 of 300 MB")):
        now[0] = seconds
        transfer.came(int(float(text.split()[0]) * (1e3 if "kB" in text else 1e6)) - transfer.done)
        assert f"state=sending {text} to me@login>" in repr(future)
    future.where = "the connection to me@login"
    assert "state=waiting for the connection to me@login>" in repr(future)
    future.where = ""
    now[0] = 20.0
    transfer.came(180_000_000)
    assert "state=pending" in repr(future)
    assert caplog.messages == [
        "callyard: sending 300 MB to me@login",
        "callyard: sending 120 of 300 MB to me@login",
        "callyard: sending 300 MB to me@login: done, 15 MB/s",
    ]


def test_what_is_short_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "callyard")
    transfer = Transfer(("receiving", "from me@login"), 2_000_000)
    transfer.came(1_000_000)
    assert transfer.text() == "receiving 1 of 2 MB from me@login"
    transfer.came(1_000_000)
    assert transfer.text() == ""
    assert caplog.messages == []


def test_an_ended_future_shows_its_end() -> None:
    future = GatewayFuture("relax", lambda: None)
    future.transfer = Transfer(("sending", "to me@login"), 10)
    future.cancel()
    assert "state=cancelled" in repr(future)
