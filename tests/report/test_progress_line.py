"""The progress of calls: its words, its counts, and what it does to a terminal and to a notebook."""

from __future__ import annotations

import io
import operator
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from gate import Gate

from callyard import Executor
from callyard.events.call_record import CallState
from callyard.futures import Future
from callyard.report import progress as progress_module
from callyard.report import terminal_rows
from callyard.report.progress_text import Estimate, final_text, left_in_words, progress_text

Counts = Mapping[CallState, int]

# ------------------------------------------------------------------ words


def test_the_line() -> None:
    counts: Counts = {"finished": 250, "cached": 12, "failed": 3, "running": 8, "waiting": 227, "cancelled": 11}
    line = progress_text(counts, 130.0, 120)
    assert line == (
        "callyard ##########.......... 265 of 511 calls done, about 3 min left, 12 remembered, 8 running, 227 waiting, "
        "3 failed"
    )
    assert progress_text(counts, None, 40) == "callyard 265 of 511 calls done"
    assert progress_text(counts, None, 10) == "callyard 2"
    assert progress_text({}, None, 200).endswith("0 of 0 calls done")


def test_the_last_line_counts_what_really_happened() -> None:
    counts: Counts = {"cancelled": 258, "finished": 253}
    assert final_text(counts, 12.34) == "callyard: 511 calls in 12.3 s: 253 finished, 258 cancelled"
    assert final_text({"finished": 1}, 0.5) == "callyard: 1 call in 500 ms: 1 finished"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.1, "1 s"),
        (3.2, "4 s"),
        (31.0, "40 s"),
        (99.0, "1 min 40 s"),
        (130.0, "3 min"),
        (3600.0, "1 h"),
        (1e5, "27 h 47 min"),
    ],
)
def test_the_time_that_is_left_is_told_as_exactly_as_it_is_known(seconds: float, words: str) -> None:
    assert left_in_words(seconds) == f"about {words} left"


def test_the_estimate_counts_the_time_with_calls_and_no_results_from_the_cache() -> None:
    estimate = Estimate()
    assert estimate.update(0.0, {"waiting": 10}) is None
    assert estimate.update(10.0, {"waiting": 4, "finished": 1, "failed": 1, "cached": 4}) == 10.0 / 2 * 4
    assert estimate.update(20.0, {"finished": 5, "failed": 1, "cached": 4}) is None
    assert estimate.update(5000.0, {"finished": 5, "failed": 1, "cached": 4, "running": 1}) == 20.0 / 6
    assert estimate.busy == 20.0


# ------------------------------------------------------------------ counts


class View:
    """A view that keeps what it has been shown."""

    def __init__(self) -> None:
        self.shown: list[dict[str, int]] = []
        self.last: dict[str, int] | None = None
        self.changed = threading.Semaphore(0)

    def show(self, counts: Counts, left: float | None) -> None:
        self.shown.append(dict(counts))
        self.changed.release()

    def end(self, counts: Counts, seconds: float) -> None:
        self.last = dict(counts)

    def wait_for(self, counts: dict[str, int]) -> None:
        while counts not in self.shown:
            assert self.changed.acquire(timeout=60), self.shown


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> View:
    view = View()
    monkeypatch.setattr(progress_module, "_view_here", lambda: view)
    return view


def test_calls_are_counted_by_state(view: View, gate: Gate, results: Path) -> None:
    with Executor(1, cache=results) as ex:
        ex.submit(abs, -1).result()
    with Executor(1, cache=results, progress=True) as ex:
        ex.submit(abs, -1).result()
        ex.submit(operator.truediv, 1, 0).exception()
        held = ex.submit(gate.hold)
        waiting = ex.submit(abs, -2)
        view.wait_for({"cached": 1, "failed": 1, "running": 1, "waiting": 1})
        waiting.cancel()
        view.wait_for({"cached": 1, "failed": 1, "running": 1, "cancelled": 1})
        gate.open()
        held.result()
    assert view.last == {"cached": 1, "failed": 1, "finished": 1, "cancelled": 1}


def test_after_ctrl_c_what_was_not_done_is_not_counted_as_done(view: View, gate: Gate) -> None:
    with pytest.raises(KeyboardInterrupt), Executor(1, progress=True) as ex:
        ex.submit(abs, -1).result()
        ex.submit(gate.hold)
        for i in range(9):
            ex.submit(abs, i)
        gate.arrived()
        raise KeyboardInterrupt
    assert view.last is not None
    assert view.last["finished"] == 1
    assert sum(view.last.values()) == 11
    assert not {"running", "waiting"} & view.last.keys()


def test_counting_holds_no_lock_while_a_future_is_asked() -> None:
    counts = progress_module.FutureCounts()

    class Slow(Future[Any]):
        """The future of another library, whose lock a thread holds that submits a call."""

        def running(self) -> bool:
            other = threading.Thread(target=counts.follow, args=(Future("other"),))
            other.start()
            other.join(60)
            return not other.is_alive()

    counts.follow(Slow("slow"))
    assert counts() == {"running": 1}


@pytest.mark.once
def test_a_forked_child_draws_while_the_parent_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal_rows.TerminalRow, "_is_in_front", lambda self: True)
    forked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with terminal_rows._lock:
            done.set()
            forked.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    done.wait()
    child = os.fork()
    if not child:
        signal.alarm(60)  # ends it if it waits for the lock
        row = terminal_rows.TerminalRow(io.StringIO())
        row.show("text")
        row.remove("")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    forked.set()
    holder.join()


def test_an_idle_executor_is_followed_again(view: View) -> None:
    with Executor(1, progress=True) as ex:
        for count in range(1, 4):
            ex.submit(abs, count).result()
            view.wait_for({"finished": count})


def test_without_waiting_the_last_counts_come_with_the_last_call(view: View, gate: Gate) -> None:
    ex = Executor(1, progress=True)
    held = ex.submit(gate.hold)
    view.wait_for({"running": 1})
    ex.shutdown(wait=False)
    gate.open()
    held.result()
    ex.shutdown()
    assert view.last == {"finished": 1}


def test_no_calls_no_line(view: View) -> None:
    with Executor(1, progress=True):
        pass
    assert view.last is None


def test_a_view_that_fails_does_not_hurt_the_calls(view: View, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def broken(*_: object) -> None:
        raise OSError("no terminal any more")

    monkeypatch.setattr(view, "show", broken)
    with Executor(1, progress=True) as ex:
        assert ex.submit(abs, -1).result() == 1
    assert "the progress of calls is not shown any more" in caplog.text


def test_it_is_silent_where_there_is_neither_a_terminal_nor_a_notebook(capfd: pytest.CaptureFixture[str]) -> None:
    with Executor(1, progress=True) as ex:
        ex.submit(abs, -1).result()
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------ a terminal

SCRIPT = """
from pathlib import Path
from callyard import Executor
from gate import Gate

gate = Gate(Path({place!r}))

def work(i):
    print(f"worker {{i}}", flush=True)
    if i == 3:
        raise ValueError(i)
    return i

with Executor(2, progress=True) as ex:
    held = ex.submit(gate.hold)
    first = ex.submit(work, 0)
    print("first", first.result())
    last = [ex.submit(work, i) for i in range(1, 5)]
    for future in last:
        future.exception()
    for i in range(30):
        print("line", i)
    name = input("name? ")
    print("hello", name)
    gate.open()
gate.close()
"""


@pytest.fixture
def with_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.path.dirname(__file__)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(here), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.wide
@pytest.mark.needs("pyte", "linux")
@pytest.mark.wide
@pytest.mark.usefixtures("with_gate")
def test_prints_and_a_prompt_are_left_alone(tmp_path: Path) -> None:
    from terminals import ROWS, Terminal

    script = tmp_path / "study.py"
    script.write_text(SCRIPT.format(place=str(tmp_path)))
    with closing(Terminal(tmp_path, str(script))) as terminal:
        terminal.until(lambda: "1 running" in terminal.bottom and "1 failed" in terminal.bottom)
        terminal.until(lambda: terminal.lines[-2] == "name?")
        assert terminal.bottom.startswith("callyard ████████████████░░░░ 5 of 6 calls done")
        assert terminal.lines[:-2] == [f"line {i}" for i in range(30)][-(ROWS - 2) :]
        assert (terminal.screen.cursor.y, terminal.screen.cursor.x) == (ROWS - 2, len("name? "))
        terminal.type("Ada\n")
        assert terminal.end() == 0
        assert terminal.lines[-3:-1] == ["name? Ada", "hello Ada"]
        assert terminal.lines[-1].startswith("callyard: 6 calls in ")
        assert terminal.lines[-1].endswith(": 5 finished, 1 failed")
        assert terminal.screen.margins is None


@pytest.mark.wide
@pytest.mark.needs("pyte", "linux")
@pytest.mark.wide
def test_two_executors_have_a_row_each_and_the_interpreter_gives_them_back(tmp_path: Path) -> None:
    from terminals import Terminal

    script = tmp_path / "study.py"
    script.write_text(
        textwrap.dedent("""
        from callyard import Executor
        one, two = Executor(1, progress=True), Executor(1, progress=True)
        futures = [one.submit(abs, 1), two.submit(abs, 2), two.submit(abs, 3)]
        for future in futures:
            future.result()
        input("wait ")
        """)
    )
    with closing(Terminal(tmp_path, str(script))) as terminal:
        terminal.until(
            lambda: sorted(line.split(" of ")[-1] for line in terminal.lines[-2:]) == ["1 call done", "2 calls done"]
        )
        terminal.type("\n")
        assert terminal.end() == 0
        assert sorted(line.partition(" in ")[0] for line in terminal.lines[-2:]) == [
            "callyard: 1 call",
            "callyard: 2 calls",
        ]
        assert terminal.screen.margins is None


@pytest.mark.wide
@pytest.mark.needs("pyte", "linux")
@pytest.mark.wide
def test_a_program_in_the_background_writes_nothing(tmp_path: Path) -> None:
    from terminals import Terminal

    code = "from callyard import Executor\nwith Executor(1, progress=True) as ex: ex.submit(abs, 1).result()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], process_group=0); print('done')"
    if sys.version_info < (3, 11):
        pytest.skip("subprocess makes process groups from 3.11 on")
    with closing(Terminal(tmp_path, "-c", outer)) as terminal:
        assert terminal.end() == 0
        assert terminal.lines == ["done"]


# ------------------------------------------------------------------ a notebook

CELLS = [
    """
    from callyard import Executor
    ex = Executor(1, progress=True, cache="results")
    futures = [ex.submit(abs, i) for i in range(3)]
    [future.result() for future in futures]
    ex.submit(divmod, 1, 0).exception()
    ex
    """,
    "futures[0]",
    "from callyard import Cache\ncache = Cache('results')\ncache",
    "next(iter(cache))",
    "ex.shutdown()",
]


@pytest.mark.wide
@pytest.mark.needs("nbclient", "ipykernel")
@pytest.mark.filterwarnings("ignore")  # of libraries that are not ours
@pytest.mark.leaves("the client of the notebook keeps threads and sockets of its own")
def test_a_bar_and_cards_in_a_notebook(tmp_path: Path) -> None:
    import nbclient
    import nbformat

    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    bar, executor = (output.data for output in notebook.cells[0].outputs if "data" in output)
    assert bar["text/plain"].startswith("callyard: 4 calls in ")
    assert bar["text/plain"].endswith(": 3 finished, 1 failed")
    assert "<b>4 calls in " in bar["text/html"]
    assert 'aria-label="3 finished, 1 failed"' in bar["text/html"]
    assert "<b>Executor " in executor["text/html"]
    future, cache, entry = (notebook.cells[at].outputs[0].data["text/html"] for at in (1, 2, 3))
    assert "<b>Future of abs</b>" in future
    assert "<dd>finished</dd>" in future
    assert "<dt>Entries</dt><dd>4</dd>" in cache
    assert "<b>Entry of abs</b>" in entry
