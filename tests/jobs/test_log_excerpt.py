"""The last lines of a log in an error."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from callyard.jobs.log_excerpt import what_it_printed


def quoted(tmp_path: Path, content: bytes) -> list[str]:
    path = tmp_path / "log"
    path.write_bytes(content)
    first, *lines = what_it_printed(str(path)).split("\n")
    assert first == f"; what it printed is in {path}" + (", at last:" if lines else "")
    assert all(line.startswith("    ") for line in lines)
    return [line[4:] for line in lines]


def test_the_last_lines(tmp_path: Path) -> None:
    assert quoted(tmp_path, b"one\n\ntwo\n") == ["one", "two"]
    assert quoted(tmp_path, b"".join(b"%d\n" % number for number in range(100))) == list(map(str, range(90, 100)))
    assert quoted(tmp_path, b"x" * 10_000) == ["x" * 1000]
    assert quoted(tmp_path, b" \n") == []


def test_no_log(tmp_path: Path) -> None:
    assert what_it_printed(f"{tmp_path}/log") == f"; what it printed is in {tmp_path}/log"
    assert what_it_printed(str(tmp_path)) == f"; what it printed is in {tmp_path}"


def test_what_a_terminal_would_show(tmp_path: Path) -> None:
    assert quoted(tmp_path, b"10 %\r100 %\n\xff\x1b[31mred\n") == ["100 %", "\ufffd\ufffd[31mred"]


@given(content=st.binary(max_size=6000))
def test_any_bytes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        lines = quoted(Path(place), content)
    assert len(lines) <= 10
    assert sum(map(len, lines)) <= 1000
    assert all(letter.isprintable() or letter == "\t" for line in lines for letter in line)
