"""SSH servers for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from relay import Relay
from sshd import Server


def pytest_itemcollected(item: pytest.Item) -> None:
    if "sshd" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.needs("ssh"))
        item.add_marker(pytest.mark.once)  # the same whatever Python asks, and a login takes its time


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this session."""
    with Server(tmp_path_factory.getbasetemp() / "sshd") as server:
        server.account("plain")
        yield server


@pytest.fixture
def relay(sshd: Server) -> Iterator[Relay]:
    """A relay in front of it."""
    with Relay(sshd.port) as relay:
        yield relay
