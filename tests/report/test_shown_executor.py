"""What an executor shows of its calls: its report and its graph, while it runs and afterwards, and its cards."""

from __future__ import annotations

import operator
from pathlib import Path

import pytest
from gate import Gate

from callyard import Cache, CallyardError, Executor
from callyard.cli import main


def test_a_report_during_the_run_and_after_it(tmp_path: Path, gate: Gate) -> None:
    path = tmp_path / "run.html"
    with Executor(1, events=True) as ex:
        held = ex.submit(gate.hold, 3)
        ex.submit(operator.mul, held, 2)
        gate.arrived()
        ex.report(path)
        during = path.read_text(encoding="utf-8")
        gate.open()
    ex.report(path)
    after = path.read_text(encoding="utf-8")
    assert 'aria-label="1 running, 1 waiting"' in during
    assert 'aria-label="2 finished"' in after
    assert "2 not ended" in during
    assert "all ended" in after
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_same_report_from_the_file_of_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Executor(1, events="events.jsonl") as ex:
        ex.submit(operator.truediv, 1, 0).exception()
    ex.report("one.html")
    assert main(["report", "events.jsonl", "-o", "two.html"]) == 0
    one, two = (Path(name).read_text(encoding="utf-8") for name in ("one.html", "two.html"))
    assert one.partition("<footer")[0] == two.partition("<footer")[0]
    assert "<b>truediv</b>: ZeroDivisionError: division by zero" in one


def test_a_graph_of_the_calls() -> None:
    with Executor(1, events=True) as ex:
        first = ex.submit(abs, -2)
        ex.with_resources(run_time=60).submit(operator.mul, first, first).result()
        assert [node.name for node in ex.graph().nodes.values()] == ["abs", "mul"]
    graph = ex.graph()
    assert [node.state for node in graph.nodes.values()] == ["finished", "finished"]
    assert graph.edges == {(0, 1): 1}


def test_without_a_record_a_cache_has_some_of_the_calls(results: Path) -> None:
    with Executor(1, cache=results) as ex, pytest.raises(CallyardError, match=f"`callyard report {results}` shows"):
        ex.report()


def test_without_a_record_it_is_told_how_to_have_one() -> None:
    with Executor(1) as ex:
        for show in (ex.report, ex.graph):
            with pytest.raises(CallyardError, match="make it with events=True"):
                show()


def test_cards(results: Path) -> None:
    with Executor(1, cache=results) as ex:
        good, bad = ex.submit(abs, -1), ex.submit(operator.truediv, 1, 0)
        good.result()
        bad.exception()
        again = ex.submit(abs, -1)
        again.result()
        card = ex.with_resources(memory=0.5)._repr_html_()
    assert "memory=0.5" in card
    assert 'aria-label="1 finished, 1 remembered, 1 failed"' in card
    assert "shut down" in ex._repr_html_()
    assert "<dd>finished</dd>" in good._repr_html_()
    assert "<dd>remembered</dd>" in again._repr_html_()
    assert "<dd>ZeroDivisionError: division by zero</dd>" in bad._repr_html_()
    assert "<dd>ZeroDivisionError: division by zero</dd>" in Cache(results)[str(bad.key)]._repr_html_()
