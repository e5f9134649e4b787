"""The file of events: lines are whole, whoever appends, and whatever ends a writer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from callyard.recording import event_file
from callyard.recording.event_file import EventFile

_WRITER = """
import sys
from callyard.recording.event_file import EventFile
file = EventFile(sys.argv[1])
for number in range(200):
    file.append(f"{sys.argv[2]} {number} {'x' * 5000}\\n".encode() * 3)
"""


def test_the_file_is_the_users_alone(tmp_path: Path):
    file = EventFile(tmp_path / "run.jsonl")
    file.append(b"one\n")
    file.append(b"two\n")
    assert (tmp_path / "run.jsonl").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "run.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    EventFile("~/run.jsonl").append(b"one\n")
    assert (tmp_path / "run.jsonl").read_bytes() == b"one\n"


def test_two_processes_tear_no_lines(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name]) for name in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]
    lines = path.read_text().splitlines()
    assert len(lines) == 2 * 200 * 3
    for name in ("a", "b"):
        numbers = [int(line.split()[1]) for line in lines if line.startswith(name)]
        assert numbers == [number for number in range(200) for _ in range(3)]
    assert {len(line.split()[2]) for line in lines} == {5000}


def test_two_threads_tear_no_lines(tmp_path: Path):
    path = tmp_path / "run.jsonl"

    def write(name: str) -> None:
        file = EventFile(path)
        for _ in range(100):
            file.append(f"{name * 3000}\n".encode())

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(path.read_text().splitlines())) == ["a" * 3000, "b" * 3000]


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"one\ntwo\nthr")
    EventFile(path).append(b"four\n")
    assert path.read_bytes() == b"one\ntwo\nfour\n"


def test_a_file_without_any_whole_line(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"on")
    EventFile(path).append(b"two\n")
    assert path.read_bytes() == b"two\n"


def test_half_a_long_line_is_cut_off_if_it_is_ours(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    long = b'{"event": "ended", "failure": "' + b"x" * 200_000
    path.write_bytes(b"one\n" + long)
    EventFile(path).append(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    other = b"x" * 200_000
    path.write_bytes(other)
    EventFile(path).append(b"two\n")
    assert path.read_bytes() == other + b"two\n"


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.jsonl"
    file = EventFile(path)
    file.append(b"one\n")
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:60])

    with monkeypatch.context() as patched:
        patched.setattr(event_file.os, "write", full)
        with pytest.raises(OSError, match="No space"):
            file.append(b"x" * 120 + b"\n")
    assert path.read_bytes() == b"one\n"
    file.append(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_stopped_writer_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.jsonl"
    file = EventFile(path)
    monkeypatch.setattr(event_file, "_LOCKED", 0.0)
    with open(path, "rb") as other:
        event_file.fcntl.flock(other, event_file.fcntl.LOCK_EX)
        file.append(b"one\n")
    assert path.read_bytes() == b"one\n"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(event_file.fcntl, "flock", no_locks)
    file = EventFile(tmp_path / "run.jsonl")
    file.append(b"one\n")
    assert (tmp_path / "run.jsonl").read_bytes() == b"one\n"
