"""Events as lines: what was written is read, whatever the values; and the records made from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.events.call_record import CallRecord, RunRecord
from callyard.events.event import (
    Ended,
    Event,
    Failure,
    RunBegan,
    RunEnded,
    Started,
    Submitted,
    Usage,
    Waiting,
    from_line,
    to_line,
)

_texts = st.text(max_size=20)
_times = st.floats(0, 4e9)
_numbers = st.integers(0, 1000)
_failures = st.builds(Failure, _texts, _texts, _texts, st.none() | _numbers, st.none() | _texts)
_usages = st.builds(
    Usage, _times, st.none() | _times, st.none() | _numbers, st.none() | _numbers, st.none() | _numbers,
    st.lists(_texts, max_size=2).map(tuple),
)  # fmt: skip
_asked = st.dictionaries(_texts, _numbers | _texts, max_size=3)
_inputs = st.lists(_numbers, max_size=3).map(tuple)
_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(RunBegan, _times, _texts, _texts, _numbers, _texts, _texts, st.dictionaries(_texts, _numbers)),
    st.builds(Submitted, _times, _numbers, _texts, _texts, _asked, _inputs, st.none() | _texts),
    st.builds(Waiting, _times, _numbers, _texts, st.none() | _texts),
    st.builds(Started, _times, _numbers, _texts, _texts, _numbers, st.none() | _texts),
    st.builds(
        Ended, _times, _numbers, st.sampled_from(["finished", "failed", "cancelled", "cached"]), st.none() | _texts,
        st.none() | _failures, st.none() | _usages,
    ),
    st.builds(RunEnded, _times),
)  # fmt: skip


@given(_events)
def test_an_event_is_read_as_it_was_written(event):
    assert from_line(to_line(event)) == event


def test_what_a_later_version_adds_is_left_out():
    assert from_line('{"event": "paused", "time": 1.0, "call": 3}') is None
    assert from_line('{"event": "waiting", "time": 1.0, "call": 3, "reason": "", "mood": 2}') == Waiting(1.0, 3, "")


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"event": "waiting"}', "no json"])
def test_other_lines_are_refused(line):
    with pytest.raises(ValueError, match="no line of events"):
        from_line(line)


def test_a_record_follows_its_events():
    events = [
        RunBegan(1.0, "ab", "c1", 7, "study.py"),
        Submitted(2.0, 0, "relax", "study.py:3"),
        Submitted(2.5, 1, "energy", inputs=(0,)),
        Waiting(2.6, 1, "for relax"),
        Started(3.0, 0, "c1", "worker 9"),
        Ended(4.0, 0, "finished", usage=Usage(1.0)),
        Started(4.0, 1, "c1", "worker 9"),
        Waiting(5.0, 1, "for a node"),
        Started(6.0, 1, "c2", "worker 1", attempt=2),
    ]
    run = RunRecord.of(events)
    assert run.counts() == {"finished": 1, "running": 1}
    assert run.calls[0] == CallRecord(
        0,
        "relax",
        2.0,
        "finished",
        "",
        "study.py:3",
        {},
        (),
        None,
        None,
        "c1",
        "worker 9",
        1,
        3.0,
        4.0,
        None,
        Usage(1.0),
    )
    assert (run.calls[1].host, run.calls[1].attempt, run.calls[1].started) == ("c2", 2, 6.0)
    run.apply(Ended(7.0, 1, "cancelled"))
    run.apply(Waiting(8.0, 1, "for nothing"))
    assert (run.calls[1].state, run.calls[1].ended) == ("cancelled", 7.0)


def test_a_file_holds_several_runs_and_perhaps_half_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    one = [RunBegan(1.0, "a", "h", 1, "x.py"), Submitted(1.0, 0, "f"), RunEnded(2.0)]
    two = [RunBegan(3.0, "b", "h", 2, "x.py"), Submitted(3.0, 0, "g")]
    path.write_text("".join(to_line(event) + "\n" for event in one + two) + '{"event": "sta')
    runs = RunRecord.read(path)
    assert [run.calls[0].name for run in runs] == ["f", "g"]
    assert [run.ended for run in runs] == [2.0, None]
    path.write_text("something else\n")
    with pytest.raises(ValueError, match=r"events\.jsonl is no file of events: line 1"):
        RunRecord.read(path)
