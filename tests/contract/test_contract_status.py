"""What executors tell about their calls at a moment: `future.explain()` and `executor.status()`."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import contract_calls as calls
import pytest
from gate import Gate, until

from callyard import Again, Executor, batched, item
from callyard.backends.unfinished_calls import unfinished_of

Make = Callable[..., Executor]


@pytest.mark.core
@pytest.mark.smoke
def test_explain_says_what_a_call_waits_for_where_it_runs_and_how_it_has_ended(ex: Executor, gate: Gate) -> None:
    held = ex.submit(gate.hold, [1])
    after = ex.submit(calls.same, held)
    last = ex.submit(calls.both, after, 2)
    part, batch = item(last, 0), batched([last], 1)[0]
    gate.arrived()
    until(lambda: held.running() and held.explain() != "runs")
    assert re.fullmatch(r"runs( on [\w.-]+)?( for .+)?( \(.+\))?", held.explain())
    assert re.match(r"waits for `hold` \(running( for .+)?( on .+)?\)", after.explain())
    assert re.match(r"waits for `same`, which waits for `hold` \(running", last.explain())
    for derived in part, batch:
        assert re.match(r"waits for `both`, which waits, through 1 other call, for `hold` \(running", derived.explain())
    status = ex.status()
    assert (status.count("running"), status.count("waiting")) == (1, 2)
    assert status.waiting.total() == 2
    assert [call.name for call in status.running] == ["hold"]
    assert "1 running" in repr(ex)
    gate.open()
    assert part.result() == [1]
    assert part.explain() == "has ended: returned list"
    assert last.result() == ([1], 2)
    assert last.explain() == "has ended: returned tuple"
    until(lambda: not ex.status().count("running"))
    assert ex.status().count("finished") == 3, ex.status()


@pytest.mark.feature("kill")
@pytest.mark.core
@pytest.mark.smoke
def test_a_running_call_is_ended_alone_by_a_persons_word(make: Make, gate: Gate) -> None:
    ex = make()
    held, other = ex.submit(gate.hold, 1), ex.submit(gate.hold, 2)
    gate.arrived(2)
    until(lambda: held.running() and other.running())
    number = min(call.number for call in unfinished_of(ex._running.backend))
    (words,) = ex._running.cancel_call(number, "")
    assert words.startswith("ended 'hold'")
    assert words.endswith(", which was running")
    until(held.done)
    assert held.cancelled()
    assert not other.done()
    assert ex.submit(calls.same, 3).result() == 3
    gate.open()
    assert other.result() == 2


@pytest.mark.feature("kill", "again", "any function")
@pytest.mark.core
def test_a_call_that_is_ended_by_a_persons_word_does_not_run_again(make: Make, gate: Gate) -> None:
    """Though it saves its state at SIGTERM, to go on from there."""

    def go_on(runs: int) -> None:
        class Told(Exception):
            pass

        def told(*_: object) -> None:
            raise Told

        signal.signal(signal.SIGTERM, told)
        try:
            gate.hold()
        except Told:
            raise Again(runs + 1) from None

    ex = make(1)
    held = ex.submit(go_on, 1)
    gate.arrived()
    until(held.running)
    (call,) = unfinished_of(ex._running.backend)
    ex._running.cancel_call(call.number, "")
    until(held.done)
    assert held.cancelled()


@pytest.mark.core
def test_explain_tells_of_failures_and_cancellations(make: Make, gate: Gate) -> None:
    ex = make(1)
    failed, held, waiting = (
        ex.submit(calls.raised, ValueError("no good")),
        ex.submit(gate.hold),
        ex.submit(calls.same, 1),
    )
    gate.arrived()
    assert waiting.explain().startswith("waits ")
    assert waiting.cancel()
    assert waiting.explain() == "has ended: was cancelled"
    failed.exception()
    assert failed.explain() == "has ended: raised ValueError: no good"
    status = ex.status()
    assert (status.calls["raised"]["failed"], status.calls["same"]["cancelled"]) == (1, 1)
    assert [(failure.name, failure.error) for failure in status.failures] == [("raised", "ValueError: no good")]
    assert "raised failed: ValueError: no good" in str(status)
    gate.open()
    held.result()
