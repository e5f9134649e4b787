"""`callyard watch`: its rows, the view driven by keys, and once a real terminal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gate import Gate, until

from callyard import Executor
from callyard.cli.watch_rows import CallRow, CallsNow, Source

pytestmark = [pytest.mark.wide, pytest.mark.once]
OPTIONS = argparse.Namespace(trust=None)


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLYARD_STATUS", str(tmp_path / "status"))


@contextlib.contextmanager
def executor(gate: Gate, *args: Any, **kwargs: Any) -> Iterator[Executor]:
    """Yield an executor whose calls are let through in any case."""
    with Executor(*args, **kwargs) as ex:
        try:
            yield ex
        finally:
            gate.open(100)


def test_the_log_of_a_call_whose_process_has_died(results: Path) -> None:
    with Executor(1, cache=results) as ex:
        lost = ex.submit(os._exit, 3)
        message = str(lost.exception())
    row = CallRow("", "_exit", "failed", "", "", lost.key or "")
    assert Source(OPTIONS, str(results)).log(row) == f"WorkerLost: {message}"


def test_the_log_of_a_call_that_runs(gate: Gate, results: Path) -> None:
    def noisy() -> None:
        print("so far", flush=True)
        gate.hold()

    source = Source(OPTIONS, str(results))
    with executor(gate, 1, cache=results) as ex:
        ex.submit(noisy)
        ex.submit(abs, -1)
        gate.arrived()
        running, waiting = source.look().rows
        until(lambda: source.log(running) == "so far")
        assert source.log(waiting) == "It has not begun, and so has printed nothing."


def test_failures_are_seen_and_read(gate: Gate, results: Path) -> None:
    with executor(gate, 1, cache=results) as ex:
        failed = [ex.submit(divmod, number, 0) for number in range(60)]
        for future in failed:
            future.exception()
        ex.submit(gate.hold)
        gate.arrived()
        source = Source(OPTIONS, str(results))
        now = source.look()
    assert now.head[0].endswith("; last failure: divmod: ZeroDivisionError: integer division or modulo by zero")
    assert [row.state for row in now.rows] == ["running", *["failed"] * 50]
    row = now.rows[1]
    assert (row.function, row.key in {future.key for future in failed}) == ("divmod", True)
    assert row.where == "ZeroDivisionError: integer division or modulo by zero"
    assert source.explain(row) == f"divmod failed: {row.where}"
    assert source.log(row).endswith(row.where)
    assert source.cancel(row) == f"{row.id} has ended"
    assert [row.state for row in Source(OPTIONS, None).look().rows] == []


def test_rows_of_running_executors(gate: Gate) -> None:
    source = Source(OPTIONS, None)
    assert source.look() == CallsNow(("no executor runs here",), ())
    with executor(gate, 1) as ex:
        held, waiting = ex.submit(gate.hold), ex.submit(abs, -1)
        gate.arrived()
        now = source.look()
        assert re.match(rf"{os.getpid()}\S* \S+: 1 waiting, 1 running; in use: 1 of ", now.head[0])
        first, second = now.rows
        assert (first.function, first.state, second.function, second.state) == ("hold", "running", "abs", "waiting")
        assert source.explain(first).startswith("hold runs on ")
        assert source.explain(second) == f"abs waits {second.where}"
        assert "only where its result goes to a cache" not in source.explain(second)
        assert "is kept only where" in source.log(first)
        assert source.cancel(second) == "cancelled 'abs'"
        assert waiting.cancelled()
        assert source.cancel(second) == f"{second.id} has ended"
        assert source.explain(second) == "abs has ended"
        assert source.cancel(first) == "ended 'hold', which was running"
        until(held.done)


class Scripted(Source):
    """A source without processes."""

    def __init__(self) -> None:
        self.rows = [
            CallRow("1:0", "relax", "running", "c1 (worker 7)", "12 s", "abc", (1, 1, 0)),
            CallRow("1:1", "energy[b]", "waiting", "for `f[/b]`", "", "", (1, 1, 1)),
        ]
        self.cancelled: list[str] = []

    def look(self) -> CallsNow:
        rows = tuple(row for row in self.rows if row.id not in self.cancelled)
        return CallsNow(("1 study.py: 1 running",), rows)

    def explain(self, row: CallRow) -> str:
        return f"{row.function} explained"

    def log(self, row: CallRow) -> str:
        return f"[b]printed by {row.function}"

    def cancel(self, row: CallRow) -> str:
        self.cancelled.append(row.id)
        return f"cancelled {row.function}"


def drive(steps: Callable[[Any, Any, Scripted], Awaitable[None]]) -> None:
    """Run the view without a terminal, and drive it by keys."""
    from callyard.cli.watch_app import WatchApp

    source = Scripted()

    async def run() -> None:
        app = WatchApp(source, 0.05)
        async with app.run_test(size=(100, 30)) as pilot:
            await ready(pilot, lambda: len(app._rows) == 2)
            await steps(app, pilot, source)

    asyncio.run(run())


async def ready(pilot: Any, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        await pilot.pause(0.01)


@pytest.mark.needs("textual")
def test_keys_open_a_call_and_show_its_log() -> None:
    async def steps(app: Any, pilot: Any, source: Scripted) -> None:
        await pilot.press("down", "enter")
        await ready(pilot, lambda: len(app.screen_stack) == 2)
        assert app.screen.text == "1:1\nenergy[b] explained"
        await pilot.press("escape")
        await ready(pilot, lambda: len(app.screen_stack) == 1)
        await pilot.press("up", "l")
        await ready(pilot, lambda: len(app.screen_stack) == 2)
        assert app.screen.text == "[b]printed by relax"
        await pilot.press("q")
        await ready(pilot, lambda: len(app.screen_stack) == 1)
        await pilot.press("q")

    drive(steps)


@pytest.mark.needs("textual")
@pytest.mark.parametrize(
    ("text", "shown", "styles"),
    [
        ("[b]plain[/b]\nlines", "[b]plain[/b]\nlines", 0),
        ("\x1b[31mred\x1b[0m not", "red not", 1),
        ("10 %\r20 %\ndone", "20 %\ndone", 0),
        ("\x1b[2J\x1b[31mred\x07", "red", 1),
        ("\x1b[31mred\x00", "\\x1b[31mred\\x00", 0),
    ],
)
def test_what_calls_print_is_shown_in_its_colours(text: str, shown: str, styles: int) -> None:
    from callyard.cli.watch_app import in_its_colours

    found = in_its_colours(text)
    assert (found.plain, len([span for span in found.spans if span.style])) == (shown, styles)


@pytest.mark.needs("textual")
def test_names_and_reasons_are_no_markup() -> None:
    async def steps(app: Any, pilot: Any, source: Scripted) -> None:
        await ready(pilot, lambda: app.table.row_count == 2)
        assert [str(cell) for cell in app.table.get_row("1:1")[1:4]] == ["energy[b]", "waiting", "for `f[/b]`"]
        await pilot.press("q")

    drive(steps)


@pytest.mark.needs("textual")
def test_a_call_is_cancelled_after_a_yes() -> None:
    async def steps(app: Any, pilot: Any, source: Scripted) -> None:
        await pilot.press("down", "c")
        await ready(pilot, lambda: len(app.screen_stack) == 2)
        assert app.screen.question == "Cancel energy[b] (1:1, waiting)?"
        await pilot.press("n")
        await ready(pilot, lambda: len(app.screen_stack) == 1)
        assert source.cancelled == []
        await pilot.press("c")
        await ready(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("y")
        await ready(pilot, lambda: len(app._rows) == 1)
        assert source.cancelled == ["1:1"]

    drive(steps)


@pytest.mark.needs("textual")
def test_the_cursor_stays_with_its_call_while_others_come() -> None:
    async def steps(app: Any, pilot: Any, source: Scripted) -> None:
        await pilot.press("down")
        source.rows.insert(0, CallRow("1:2", "new", "running", "", "", "", (1, 1, 2)))
        await ready(pilot, lambda: len(app._rows) == 3)
        assert app.chosen.function == "energy[b]"

    drive(steps)


def test_without_textual_the_command_says_what_to_install(
    callyard: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    monkeypatch.delitem(sys.modules, "callyard.cli.watch_app", raising=False)
    ended = callyard("watch")
    assert ended.status == 1
    assert 'pip install "callyard[watch]"' in ended.err


@pytest.mark.needs("textual")
def test_without_a_terminal_the_command_names_status(callyard: Callable[..., Any]) -> None:
    ended = callyard("watch")
    assert ended.status == 1
    assert "`callyard status` prints the same once" in ended.err


@pytest.mark.needs("textual")
def test_in_a_real_terminal(gate: Gate) -> None:
    with executor(gate, 1) as ex:
        ex.submit(gate.hold)
        gate.arrived()
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
        command = [sys.executable, "-m", "callyard", "watch"]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as watching:
            os.close(theirs)
            seen = read_until(ours, b"hold")
            assert b"running" in seen
            os.write(ours, b"q")
            with contextlib.suppress(OSError):  # the other end is closed
                read_until(ours, b"never said")
            assert watching.wait(30) == 0
        os.close(ours)


def read_until(descriptor: int, word: bytes) -> bytes:
    """Read what a terminal gets until a word is there."""
    seen, deadline = b"", time.monotonic() + 60
    while word not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([descriptor], [], [], 1.0)[0]:
            part = os.read(descriptor, 1 << 16)
            if not part:
                break
            seen += part
    return seen
