"""The table of what is left out is true, complete and the one that the documentation shows."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import departures
import pytest
import stdlib_tests

if not stdlib_tests.make_importable():
    pytest.skip(stdlib_tests.MISSING, allow_module_level=True)

MODULES = {suite: module for suite, module, _ in departures.SUITES}
DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
LEFT_OUT = [
    pytest.param(suite, departure, id=f"{suite}.{departure.test}")
    for suite, entries in departures.LEFT_OUT.items()
    for departure in entries
    if stdlib_tests.version() >= departure.since
]

# How a test shows in its code that the reason given for leaving it out is the true one.
SIGNS = {
    departures.PRIVATE: {
        "_broken", "_executor_manager_thread", "_force_shutdown", "_max_workers", "_mp_context", "_processes",
        "_start_joinable_thread", "_ThreadWakeup", "_threads",
    },
    departures.BY_NAME: {"ProcessPoolExecutor", "ThreadPoolExecutor"},
}  # fmt: skip


@pytest.mark.parametrize(("suite", "departure"), LEFT_OUT)
def test_what_is_left_out_exists_and_the_reason_is_true(suite: str, departure: departures.Departure) -> None:
    case = getattr(stdlib_tests.module(MODULES[suite]), suite)
    test = getattr(case, departure.test)
    if departure.reason in SIGNS:
        assert SIGNS[departure.reason] & set(names(case, test))


def test_the_document_shows_the_table() -> None:
    shown = DOCUMENT.read_text().partition("<!-- table -->\n")[2].partition("\n<!-- end -->")[0]
    assert shown == departures.table(), f"run {sys.executable} {departures.__file__} and paste what it prints"


def test_what_is_there_instead_exists() -> None:
    ours = Path(__file__).with_name("test_instead.py").read_text()
    named = {departure.instead for entries in departures.LEFT_OUT.values() for departure in entries}
    assert named - {""} == set(re.findall(r"^def (test_\w+)", ours, re.MULTILINE))


def names(owner: type[Any], function: Any) -> Iterator[str]:
    """Yield every name in the code of a test, and of its class's private methods that it calls."""
    for code in codes(inspect.unwrap(function).__code__):
        for name in code.co_names:
            yield name
            helper = getattr(owner, name, None)
            if name.startswith("_") and inspect.isroutine(helper) and hasattr(helper, "__code__"):
                yield from names(owner, helper)


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)
