"""Texts of the user's programs, as they are shown and kept."""

from __future__ import annotations

import pytest

from callyard.utils.shown_text import kept_message, kept_traceback, one_line, shortened, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u65e5\u672c", "plain \u65e5\u672c"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("two\r\nlines", "two\nlines"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("over\rwritten", "over\\rwritten"),
        ("\x9b31m \x00", "\\x9b31m \\x00"),
        ("\udcff no text", "\\udcff no text"),
        ("left \u202e right", "left \\u202e right"),
    ],
)
def test_a_terminal_gets_nothing_to_obey(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_one_line() -> None:
    assert one_line(" some\n words\r\n and \x1b[1m ") == "some words and \\x1b[1m"
    assert one_line("x" * 10_000_000, 20) == "x" * 17 + "..."
    assert one_line("x" * 20, 20) == "x" * 20


def test_what_is_kept_of_a_long_text() -> None:
    assert shortened("abcdefgh", 8) == "abcdefgh"
    assert shortened("abcdefghij", 4) == "ab\n... 6 characters are left out ...\nij"
    assert len(kept_message(ValueError("x" * 1_000_000))) < 10_100
    assert len(kept_traceback("x" * 1_000_000)) < 50_100
