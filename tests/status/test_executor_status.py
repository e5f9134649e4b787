"""The status of an executor as a value: counts, JSON, a screen of text, HTML."""

from __future__ import annotations

import json

import pytest

from callyard.status.ended_calls import EndedCalls, FailedCall
from callyard.status.executor_status import ExecutorStatus, RunningCall

pytestmark = pytest.mark.wide


def filled() -> ExecutorStatus:
    ended = EndedCalls()
    ended.note("relax", "finished", 1200)
    ended.note_failure("<lambda>", ValueError("a < b"))
    status = ExecutorStatus("live on c1: 4 cores")
    status.add_waiting("energy", "for a core")
    status.add_waiting("energy", "for other calls")
    status.add_waiting("energy", "for other calls")
    status.add_running(RunningCall(7, "relax", "c1", "worker 4711", 12.0, "abc"))
    status.add_ended(ended)
    status.capacity, status.used = (
        {"cores": 4, "gpus": 0, "memory": 8 << 30},
        {"cores": 1, "gpus": 0, "memory": 1 << 30},
    )
    return status


def test_a_screen_of_text() -> None:
    assert str(filled()).splitlines() == [
        "live on c1: 4 cores",
        "  3 waiting, 1 running, 1,200 finished, 1 failed",
        "  in use: 1 of 4 cores, 1 of 8 GiB of memory",
        "            waiting  running  finished  failed",
        "  relax                    1     1,200",
        "  energy          3",
        "  <lambda>                                   1",
        "  2 calls wait for other calls",
        "  1 call waits for a core",
        "       7  relax runs on c1 for 12 s (worker 4711)",
        "  <lambda> failed: ValueError: a < b",
    ]


def test_nothing_to_tell() -> None:
    assert str(ExecutorStatus("live on c1")) == "live on c1\n  no calls so far"


def test_many_functions_and_calls_fit_on_a_screen() -> None:
    status = ExecutorStatus("many")
    for number in range(1000):
        status.add_running(RunningCall(number, f"f{number}"))
        status.add_waiting(f"g{number}", f"for {number} cores")
    lines = str(status).splitlines()
    assert len(lines) < 45
    assert "1,988 others" in str(status)
    assert "and 988 more" in str(status)


def test_names_are_shown_in_one_line_each() -> None:
    status = ExecutorStatus("odd")
    status.add("a\n\x1b[31m", "finished")
    status.add_running(RunningCall(1, "n" * 1000))
    status.failures.append(FailedCall("a\nb", "ValueError"))
    assert str(status).splitlines()[2:] == [
        f"{'':62}  running  finished",
        rf"  a \x1b[31m{'1':>69}",
        f"  {'n' * 57}...        1",
        f"       1  {'n' * 57}... runs",
        "  a b failed: ValueError",
    ]


def test_json_and_back() -> None:
    status = filled()
    again = ExecutorStatus.from_dict(json.loads(json.dumps(status.to_dict())))
    assert str(again) == str(status)
    assert again.running == status.running


def test_html_escapes_what_users_wrote() -> None:
    html = filled()._repr_html_()
    assert "<lambda>" not in html
    assert "&lt;lambda&gt; failed: ValueError: a &lt; b" in html


def test_an_error_that_cannot_be_shown() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Packed:
        def load(self) -> BaseException:
            raise RuntimeError("no such class")

    ended = EndedCalls()
    ended.note_failure("odd", Odd())
    ended.note_failure("odd", Packed())
    assert [failure.error for failure in ended.failures()] == [
        "Odd: <exception str() failed>",
        "an error that cannot be shown (RuntimeError)",
    ]
    assert ended.counts() == {("odd", "failed"): 2}


def test_a_failure_whose_class_exits_can_be_shown() -> None:
    class Packed:
        def load(self) -> BaseException:
            raise SystemExit(3)

    ended = EndedCalls()
    ended.note_failure("relax", Packed())
    assert ended.failures() == [("relax", "an error that cannot be shown (SystemExit)")]
