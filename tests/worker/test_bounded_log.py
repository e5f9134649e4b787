"""The log of a job keeps its limit, its head and its tail, whatever is printed."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.worker.bounded_log import BoundedLog

pytestmark = pytest.mark.needs("linux")

MARK = re.compile(rb"\n\[callyard: +(\d+) bytes were left out here, beyond log_limit\]\n")
LIMIT = 4096


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, last))


numbers = st.integers(0, 500)
texts = st.binary(max_size=3000) | st.builds(lines, numbers, numbers)


@given(before=st.binary(max_size=10_000), printed=st.lists(texts, max_size=20))
def test_a_log_within_its_limit(before: bytes, printed: list[bytes]) -> None:
    before, printed = before.replace(b"[", b"("), [text.replace(b"[", b"(") for text in printed]
    with tempfile.TemporaryDirectory() as place, open(f"{place}/log", "ab", buffering=0) as file:
        file.write(before)
        log = BoundedLog(file.fileno(), LIMIT)
        whole = before
        for text in printed:
            log.write(text)
            whole += text
            content = Path(file.name).read_bytes()
            assert len(content) <= LIMIT or content == before
            if content == whole:
                continue
            head, left_out, tail = MARK.split(content)
            assert len(head) + int(left_out) + len(tail) == len(whole)
            assert whole.startswith(head)
            assert whole.endswith(tail)
            assert len(head) <= LIMIT // 2
        log.close()


def test_lines_are_kept_whole(tmp_path: Path) -> None:
    with open(tmp_path / "log", "ab", buffering=0) as file:
        log = BoundedLog(file.fileno(), LIMIT)
        for number in range(10_000):
            log.write(b"line %d\n" % number)
        log.close()
    head, left_out, tail = MARK.split((tmp_path / "log").read_bytes())
    first, last = head.split(b"\n"), tail.split(b"\n")
    assert (first[0], last[-2:]) == (b"line 0", [b"line 9999", b""])
    assert {len(first) > 100, len(last) > 50} == {True}
    assert all(re.fullmatch(rb"line \d+", line) for line in [*first[:-1], *last[:-1]])
    assert int(left_out) > 80_000


def test_on_a_full_disk_the_last_words_are_kept(small_disk: Path) -> None:
    with open(small_disk / "log", "ab", buffering=0) as file:
        log = BoundedLog(file.fileno(), 100 << 20)
        for number in range(1 << 18):
            log.write(b"%020d, and so on\n" % number)
        log.close()
    head, _, tail = MARK.split((small_disk / "log").read_bytes())
    assert head.startswith(b"%020d, and so on\n" % 0)
    assert tail.endswith(b"%020d, and so on\n" % ((1 << 18) - 1))
    assert len(head) > 1 << 20


def test_a_file_that_cannot_be_opened_once_more_keeps_its_head(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with open(tmp_path / "log", "ab", buffering=0) as file:
        monkeypatch.setattr(BoundedLog, "_reopened", lambda self: None)
        log = BoundedLog(file.fileno(), LIMIT)
        for _ in range(10):
            log.write(bytes(1000))
        log.close()
    assert (tmp_path / "log").read_bytes() == bytes(LIMIT)
