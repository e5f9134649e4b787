"""The signals of an end: which are sent, when, and in which order, whatever happens in between."""

from __future__ import annotations

import signal

import hypothesis.strategies as st
import pytest
from hypothesis import given

from callyard.worker.end_sequence import EndSequence

TERM, KILL, USR1, URG = int(signal.SIGTERM), int(signal.SIGKILL), int(signal.SIGUSR1), int(signal.SIGURG)


def test_a_warning_then_sigterm_then_sigkill() -> None:
    end = EndSequence(2.0, warn_at=5.0)
    assert end.next_at == 5.0
    assert end.due(4.9) == []
    assert end.due(5.0) == [USR1]
    assert end.next_at is None
    end.announce(7.0)
    assert end.due(7.0) == [TERM]
    assert end.next_at == 7.05
    assert end.due(7.05) == [URG]
    assert end.next_at == 7.5
    assert end.due(8.0) == [URG]
    assert end.next_at == 9.0
    end.announce(8.0)  # a second reason delays nothing
    assert end.due(9.0) == [KILL]
    assert end.next_at is None
    assert end.due(99.0) == []


@pytest.mark.parametrize(("grace", "signals"), [(0.0, [KILL]), (None, [TERM]), (1e-9, [TERM, KILL])])
def test_graces_without_time(grace: float | None, signals: list[int]) -> None:
    end = EndSequence(grace)
    end.announce(1.0)
    assert end.due(2.0) == signals


TIMES = st.floats(0, 20, allow_nan=False)


@given(
    grace=st.one_of(st.none(), st.floats(0, 10)),
    warn_at=st.one_of(st.none(), TIMES),
    events=st.lists(st.tuples(TIMES, st.booleans()), max_size=20),
)
def test_each_once_and_in_order(grace: float | None, warn_at: float | None, events: list[tuple[float, bool]]) -> None:
    end, sent, announced = EndSequence(grace, warn_at), list[tuple[float, int]](), None
    for now, announces in [*sorted(events), (100.0, False)]:
        if announces:
            announced = now if announced is None else announced
            end.announce(now)
        sent += [(now, signum) for signum in end.due(now)]
        assert end.next_at is None or end.next_at > now
    signals = [signum for _, signum in sent if signum != URG]
    wakes = [now for now, signum in sent if signum == URG]
    assert len(wakes) <= 2
    assert all(now < wake for now, signum in sent if signum == TERM for wake in wakes)
    assert TERM in signals or not wakes
    assert signals == sorted(set(signals), key=[USR1, TERM, KILL].index), "each at most once, in this order"
    assert KILL not in signals or sent[-1][1] == KILL
    assert (TERM in signals) == (announced is not None and grace != 0)
    assert (KILL in signals) == (announced is not None and grace is not None)
    assert warn_at is not None or USR1 not in signals
    for now, signum in sent:
        if signum == TERM:
            assert now == announced
        if signum == KILL and announced is not None and grace is not None:
            assert now >= announced + grace
        if signum == USR1 and warn_at is not None:
            assert now >= warn_at
