"""Daemons for the tests of `Local(detached=True)`, in directories of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from this_machine import running, until

from callyard.hosts.daemon import ask, make_directory, start_daemon

stays: set[str] = set()  # directories whose daemon outlives a test; idle for long it ends, and the next test starts it


class TestedDaemon:
    """The daemon of a directory; `start` and `stop` it, or kill its processes."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self) -> None:
        make_directory(str(self.directory))
        assert not (why := start_daemon(str(self.directory))), why

    @property
    def pid(self) -> int:
        answer = ask("reach", 20)
        assert answer is not None
        return int(answer["pid"])

    @property
    def is_there(self) -> bool:
        return ask("reach", 20) is not None

    def keepers(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    def kill(self) -> None:
        """End the daemon as a crash would; its jobs go on."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: not running(pid))

    def stop(self) -> None:
        while (answer := ask("stop", 20)) is not None:
            pid = int(answer["pid"])
            until(lambda pid=pid: not running(pid))  # type: ignore[misc]

    def end(self) -> None:
        """Stop it, and the one that a keeper, which ends a moment after its job, may start in its place."""
        self.stop()
        until(self._is_over)

    def _is_over(self) -> bool:
        """Look for processes first: one that starts a daemon ends when that one can be asked."""
        for process in psutil.process_iter(["cmdline"]):
            # With a slash: another daemon's directory may begin with the name of this one.
            if any(f"{self.directory}/" in f"{word}/" for word in process.info["cmdline"] or ()):
                self.stop()
                return False
        return not self.is_there

    def log(self) -> str:
        return (self.directory / "log").read_text()


@pytest.fixture(scope="session")
def running_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestedDaemon]:
    """A daemon for all tests that need no more than one."""
    daemon = TestedDaemon(tmp_path_factory.getbasetemp() / "d")
    stays.add(str(daemon.directory))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALLYARD_DAEMON", str(daemon.directory))
        daemon.start()
    yield daemon
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALLYARD_DAEMON", str(daemon.directory))
        daemon.end()
    assert daemon.log() == ""


@pytest.fixture
def daemon(running_daemon: TestedDaemon, monkeypatch: pytest.MonkeyPatch) -> TestedDaemon:
    """The daemon of the session, as that of this process."""
    monkeypatch.setenv("CALLYARD_DAEMON", str(running_daemon.directory))
    return running_daemon


@pytest.fixture
def own_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestedDaemon]:
    """A directory for a daemon of this test alone, which may be killed; it starts on need."""
    daemon = TestedDaemon(tmp_path / "d")
    monkeypatch.setenv("CALLYARD_DAEMON", str(daemon.directory))
    yield daemon
    daemon.end()
