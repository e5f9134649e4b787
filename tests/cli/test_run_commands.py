"""The commands that show a run: `callyard report` and `callyard graph`, of a file of events, of a cache."""

from __future__ import annotations

import errno
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from unittest.mock import Mock

import pytest

from callyard.events.event import Ended, Event, RunBegan, RunEnded, Submitted, to_line
from callyard.report.runs import runs_at


def run_of(*names: str, at: float) -> list[Event]:
    calls = [event for i, name in enumerate(names) for event in (Submitted(at, i, name), Ended(at, i, "cached"))]
    return [RunBegan(at, f"{at}", "h", 1, "study.py"), *calls, RunEnded(at + 1)]


def write(path: Path, *runs: list[Event]) -> None:
    path.write_text("".join(to_line(event) + "\n" for run in runs for event in run))


def test_the_last_run_of_a_file(callyard) -> None:
    write(Path("events.jsonl"), run_of("relax", at=1.0), run_of("energy", "energy", at=9.0))
    status, out, err = callyard("report", "events.jsonl")
    assert (status, out) == (0, "The report of 2 calls is in run.html.\n")
    assert err == "the last of 2 runs; --run 1 is the one before\n"
    page = Path("run.html").read_text(encoding="utf-8")
    assert "energy" in page
    assert "relax" not in page
    assert Path("run.html").stat().st_mode & 0o777 == 0o600
    assert callyard("report", "events.jsonl", "--run", "1", "-o", "other.html").status == 0
    assert "relax" in Path("other.html").read_text(encoding="utf-8")


def test_a_graph_as_text_and_as_a_file(callyard) -> None:
    write(Path("events.jsonl"), run_of("relax", at=1.0))
    lines = callyard("graph", "events.jsonl").out.splitlines()
    assert lines[:2] == ["flowchart LR", '    n0["relax ↺ remembered"]:::cached']
    assert callyard("graph", "events.jsonl", "-o", "run.svg").out == "The graph of 1 call is in run.svg.\n"
    ET.parse("run.svg")
    refused = callyard("graph", "events.jsonl", "-o", "run.jpg")
    assert (refused.status, refused.out) == (1, "")


def test_a_cache_is_shown_by_its_entries(store, callyard) -> None:
    store(1, name="relax")
    failure = (ValueError("no"), "Traceback of the worker")
    store(2, name="energy", state="failed", output=failure)
    assert callyard("report", "results").out == "The report of 2 calls is in run.html.\n"
    page = Path("run.html").read_text(encoding="utf-8")
    assert "<b>energy</b>: ValueError: no" in page
    assert "Traceback of the worker" in page
    assert callyard("graph", "results").out.count(":::finished") == 1


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["empty.jsonl"], 1, "there is no event in empty.jsonl"),
        (["page.html"], 1, "page.html is no file of events: line 1 is no line of events: '<"),
        (["bytes"], 1, "bytes is no file of events: line 1 is no line of events: '\ufffd"),
        (["nowhere"], 1, "there is no 'nowhere': name a file that an executor with events= has written, or"),
        (["results"], 1, "there is no stored call in"),
        (["events.jsonl", "--run", "0"], 2, "there is no run 0: events.jsonl has 1 run"),
        (["events.jsonl", "--run", "-2"], 2, "there is no run -2"),
        ([], 2, "which run? Name a file of events or the directory of a cache"),
    ],
)
@pytest.mark.parametrize("command", ["report", "graph"])
def test_what_is_no_run_is_told(cache, callyard, command: str, words: list[str], status: int, error: str) -> None:
    Path("empty.jsonl").write_text("")
    Path("page.html").write_text("<html>\n")
    Path("bytes").write_bytes(b"\xff\xfe\n")
    write(Path("events.jsonl"), run_of("relax", at=1.0))
    ended = callyard(command, *words)
    assert (ended.status, ended.out) == (status, "")
    assert error in ended.err
    assert not Path("run.html").exists()


def test_a_cache_knows_what_calls_used_and_took(store, callyard) -> None:
    first = store(1, name="relax", facts={"usage": {"wall": 1.0, "peak_memory": 3 << 20}})
    store(2, name="energy", facts={"inputs": {first: "relax", "b" * 40: "gone"}})
    assert "    n0 --> n1" in callyard("graph", "results").out.splitlines()
    [run] = runs_at("results")
    usage = run.calls[0].usage
    assert usage is not None
    assert usage.peak_memory == 3 << 20


@pytest.mark.needs("linux")
def test_a_full_disk_leaves_the_earlier_report(callyard, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("events.jsonl"), run_of("relax", at=1.0))
    assert callyard("report", "events.jsonl").status == 0
    before = Path("run.html").read_bytes()
    full = os.strerror(errno.ENOSPC)
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError(errno.ENOSPC, full)))
    ended = callyard("report", "events.jsonl")
    assert (ended.status, ended.err) == (1, f"callyard report: {Path('run.html').resolve()}: {full}\n")
    assert Path("run.html").read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["events.jsonl", "run.html"]


def test_a_report_goes_through_a_link(callyard) -> None:
    write(Path("events.jsonl"), run_of("relax", at=1.0))
    Path("page.html").touch(mode=0o644)
    Path("run.html").symlink_to("page.html")
    assert callyard("report", "events.jsonl").status == 0
    assert Path("run.html").is_symlink()
    assert "relax" in Path("page.html").read_text(encoding="utf-8")
    assert Path("page.html").stat().st_mode & 0o777 == 0o644
