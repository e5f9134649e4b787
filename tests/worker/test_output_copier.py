"""The guard's side of a worker's output, without a worker: pipes, a control socket, and a page."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from callyard.serialize.shared_memory import anonymous_file
from callyard.worker.output_copier import ASK, BEGIN, OutputCopier, OutputPage

pytestmark = pytest.mark.needs("linux")


class Side:
    """The worker's side: the page, the pipe, and the socket; `target` is where the output goes."""

    def __init__(self, target: int) -> None:
        self.control, theirs = socket.socketpair()
        self.copier = OutputCopier(theirs)
        self.wake, self._waker = os.pipe()
        os.set_blocking(self.wake, False)
        page = anonymous_file(OutputPage.SIZE)
        self.page = OutputPage(page)
        read, self.output = os.pipe()
        socket.send_fds(self.control, [BEGIN], [page, read, target])
        for fd in (page, read):
            os.close(fd)
        self.answered()

    def answered(self) -> None:
        self.copier.wait(self.wake)
        assert self.control.recv(1)

    def ask(self) -> None:
        self.control.sendall(ASK)
        self.answered()

    def end(self) -> None:
        os.close(self.output)
        self.control.close()
        self.copier.wait(self.wake)
        self.copier.finish()
        self.copier.close()
        self.page.close()
        for fd in (self.wake, self._waker):
            os.close(fd)


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "seen", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def side(seen: int) -> Iterator[Side]:
    made = Side(seen)
    yield made
    made.end()


def test_output_goes_to_both(side: Side, tmp_path: Path) -> None:
    log = tmp_path / "log"
    side.page.begin(os.fsencode(log))
    assert not side.page.has_output()
    os.write(side.output, b"one\n")
    side.ask()
    assert side.page.has_output()
    assert log.read_bytes() == b"one\n"
    assert (tmp_path / "seen").read_bytes() == b"one\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_each_call_has_its_log(side: Side, tmp_path: Path) -> None:
    for number in range(3):
        side.page.begin(os.fsencode(tmp_path / f"log{number}"))
        assert not side.page.has_output()
        if number != 1:
            os.write(side.output, b"%d\n" % number)
        side.ask()
    side.page.begin(b"")
    os.write(side.output, b"between\n")
    side.ask()
    assert {path.name: path.read_text() for path in tmp_path.glob("log*")} == {"log0": "0\n", "log2": "2\n"}
    assert (tmp_path / "seen").read_bytes() == b"0\n2\nbetween\n"


def test_a_log_that_cannot_be_written(side: Side, tmp_path: Path) -> None:
    side.page.begin(os.fsencode(tmp_path / "missing" / "log"))
    os.write(side.output, b"one\n")
    side.ask()
    assert (tmp_path / "seen").read_bytes() == b"one\n"


def test_a_terminal_that_takes_nothing(tmp_path: Path) -> None:
    """The log has all; the terminal gets it when it goes on."""
    reading, writing = os.pipe()
    side = Side(writing)
    side.page.begin(os.fsencode(tmp_path / "log"))
    text = b"x" * 60_000
    for _ in range(3):
        os.write(side.output, text)
        side.ask()
    assert (tmp_path / "log").stat().st_size == 180_000
    with ThreadPoolExecutor(1) as pool, open(reading, "rb") as terminal:
        came = pool.submit(terminal.read)
        side.end()
        os.close(writing)
        assert came.result() == text * 3
