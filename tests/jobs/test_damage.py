"""Files of jobs that somebody damaged: nothing hangs, nothing takes much memory, and each error names the file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batches import TOKEN, batch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callyard.cache.directory import CacheDirectory
from callyard.errors import CacheError
from callyard.jobs.batch import BatchPart, CallOutcome, CallStart
from callyard.jobs.list_job_calls import calls_of_jobs, over_batches, without_result
from callyard.jobs.spool import BatchDirectory


@pytest.fixture
def folder(tmp_path: Path) -> BatchDirectory:
    home = CacheDirectory.open(tmp_path / "cache")
    folder = BatchDirectory(home, TOKEN)
    folder.create(batch(), [b"call", b"call"], "#!/bin/sh\n")
    folder.submitted_as(BatchPart(0, 1, "17"))
    folder.submitted_as(BatchPart(1, 2, "18"))
    folder.begin(0, CallStart("17_0", "node1", "ab" * 20))
    folder.begin(1, CallStart("17_1", "node1", "cd" * 20))
    folder.end(1, CallOutcome("failed", failure=b"\x80\x05N."))
    folder.wait_for(0, "16")
    folder.attach("someone")
    return BatchDirectory(home, TOKEN)


def look(folder: BatchDirectory) -> None:
    """Everything that is asked of it, each by itself: only what callers know of is raised."""
    questions: list[Callable[[], Any]] = [
        lambda: folder.batch, lambda: folder.parts, lambda: folder.unsent, folder.news, folder.waits, folder.is_over,
        folder.elements_left, lambda: folder.others("me", {0}), lambda: folder.others("me"),
        *(lambda method=method, n=n: method(n) for n in (0, 1) for method in (
            folder.call, folder.begun, folder.ended, folder.heart, folder.job_of)),
        lambda: (folder.ended(1) or CallOutcome("failed")).error(), folder.keep_failures,
    ]  # fmt: skip
    for question in questions:
        with contextlib.suppress(CacheError, OSError):
            question()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


JUNK = {
    "empty": emptied,
    "zeros": lambda path: path.write_bytes(bytes(300)),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "noise": lambda path: path.write_bytes(os.urandom(5000)),
    "array": lambda path: path.write_text("[1, 2]"),
    "nested": lambda path: path.write_text("[" * 60000),
    "number": lambda path: path.write_text("1e400"),
    "other fields": lambda path: path.write_text('{"format": 1, "callyard": "x"}'),
    "directory": replaced(Path.mkdir),
    "pipe": replaced(os.mkfifo),
    "dangling link": replaced(lambda path: path.symlink_to("/nonexistent")),
    "gone": Path.unlink,
}


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", ["batch", "calls", "job.0-0", "0.begun", "1.begun", "1.end", "0.waits", "at-someone"])
def test_any_file_may_be_damaged(folder: BatchDirectory, name: str, junk: str) -> None:
    JUNK[junk](Path(folder.path, name))
    look(folder)
    fresh = BatchDirectory(folder.home, TOKEN)
    list(calls_of_jobs(folder.home))
    without_result(over_batches(folder.home, None, None))
    fresh.remove()
    assert not os.path.exists(folder.path)


NAMES = [
    "x.end", "1x.begun", "-1.end", "\u0663.end", "99999999999999999999.end", ".end", "a.waits", "job.x", "job.5-",
    "job.9-1", "at-", "at-x@y", "at-@", "at-a~b~c~d~1~1@99999999999999999999", "0.begun.bak", "1.end~",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_we_do_not_give(folder: BatchDirectory, name: str) -> None:
    Path(folder.path, name).write_text("18")
    look(folder)
    assert BatchDirectory(folder.home, TOKEN).news() == {0: "begun", 1: "end"}
    assert [call.state for call in calls_of_jobs(folder.home)] == ["running", "failed"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(1 << 60),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["batch", "0.begun", "1.end"]), st.data())
@pytest.mark.filterwarnings("ignore:left out")
def test_fields_of_any_kind(folder: BatchDirectory, name: str, data: Any) -> None:
    path, copy = Path(folder.path, name), f"{folder.path}.kept"
    head, line, rest = path.read_bytes().partition(b"\n")
    fields = json.loads(head)
    changed = data.draw(st.sampled_from([*sorted(fields), "more"]))
    value = data.draw(_json)
    shutil.copytree(folder.path, copy)
    path.write_bytes(json.dumps({**fields, changed: value}).encode() + line + rest)
    try:
        look(BatchDirectory(folder.home, TOKEN))
        list(calls_of_jobs(folder.home))
    finally:
        shutil.rmtree(folder.path)
        os.rename(copy, folder.path)
