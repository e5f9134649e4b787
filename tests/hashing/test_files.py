"""Files as arguments: their content is part of the meaning of a call, and their names are not."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import pytest

from callyard import Executor, File, Local
from callyard.hashing.files import content_name, file_token
from callyard.serialize.function_registry import dumps
from callyard.serialize.importable import for_another_computer


def first_line(file: File) -> str:
    with open(file) as opened:
        return opened.readline()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.txt"
    path.write_text("one\n")
    return path


def test_a_file_is_a_path(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    file = File("data.txt")
    assert os.fspath(file) == str(file) == str(data)
    assert repr(file) == f"File({str(data)!r})"
    assert os.fspath(pickle.loads(pickle.dumps(file))) == str(data)
    assert os.fspath(File(b"data.txt")) == str(data)


@pytest.mark.parametrize(("name", "words"), [("absent", "no such file"), (".", "it is no regular file")])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(FileNotFoundError, match=words):
        File(tmp_path / name)


def test_the_content_counts_and_not_the_name(data: Path) -> None:
    other = data.with_name("copy.dat")
    other.write_text("one\n")
    one = file_token(File(data))
    assert file_token(File(other)) == one
    other.write_text("two\n")
    assert file_token(File(other)) != one


def test_an_unchanged_file_is_read_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = File(data), time.time()
    monkeypatch.setattr("callyard.hashing.files.time.time", lambda: now + 60)
    name = content_name(file)
    assert content_name(file) is name
    data.write_text("changed\n")
    assert content_name(file) != name


def test_a_file_that_has_just_been_written_may_change_unnoticed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times may stay the same, as they count in ticks of a clock."""
    file, seen = File(data), os.stat(data)
    name = content_name(file)
    data.write_text("two\n")
    monkeypatch.setattr("callyard.hashing.files.os.fstat", lambda descriptor: seen)
    assert content_name(file) != name


def test_calls_with_a_cache(data: Path, tmp_path: Path) -> None:
    def run(path: Path) -> tuple[str, bool | None]:
        with Executor(backend=Local(cores=1), cache=tmp_path / "results") as executor:
            future = executor.submit(first_line, File(path))
            return future.result(60), future.cached

    assert run(data) == ("one\n", False)
    assert run(data) == ("one\n", True)
    assert run(data.rename(data.with_name("moved.dat"))) == ("one\n", True)
    data.write_text("two\n")
    assert run(data) == ("two\n", False)


def test_only_a_gateway_keeps_copies(data: Path) -> None:
    with for_another_computer(lambda module: True):
        sent = dumps(File(data))
    assert os.fspath(pickle.loads(sent)) == str(data)  # of the sender itself, the file
    from callyard.serialize import definition_identity

    elsewhere = sent.replace(definition_identity.process_name.encode(), b"another process.")
    with pytest.raises(RuntimeError, match="sent to a gateway"):
        pickle.loads(elsewhere)
