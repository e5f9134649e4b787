"""The end of the call of a rank, kept by the rank itself: each signal once, in order, whatever is told when."""

from __future__ import annotations

import signal
from random import Random
from types import SimpleNamespace

import pytest

from callyard.worker import rank_end
from callyard.worker.rank_end import TERM, WARNING, RankEnd

OPTIONS = {"warn_before": 10.0, "warn_signal": signal.SIGUSR2, "grace": 4.0}


class Clock:
    """The time, and the signals that were sent with their times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.sent = 1000.0, list[tuple[int, float]]()
        monkeypatch.setattr(rank_end, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(rank_end, "_send", lambda signum: self.sent.append((signum, self.now)))

    def run(self, end: RankEnd, until: float) -> None:
        """Let the time pass; look when something is due, and at the end."""
        while self.now < until:
            patience = end.patience()
            self.now = until if patience is None else min(until, self.now + patience)
            end.send_due()

    def times(self, signum: int) -> list[float]:
        return [at for sent, at in self.sent if sent == signum]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_end_of_the_run_time(clock: Clock) -> None:
    end = RankEnd(OPTIONS, 1020.0, 1020.0, 30.0)
    clock.run(end, 1100.0)
    assert clock.times(signal.SIGUSR2) == [1010.0]
    assert clock.times(signal.SIGTERM) == [1020.0]
    assert clock.times(signal.SIGKILL) == [1024.0]
    assert [signum for signum, _ in clock.sent if signum == signal.SIGURG]


def test_a_call_without_limits_is_told(clock: Clock) -> None:
    end = RankEnd({}, None, None, 30.0)
    assert end.patience() is None
    end.hear("")
    end.hear(WARNING)
    end.hear(TERM)
    clock.run(end, 1100.0)
    assert clock.times(signal.SIGTERM) == [1000.0]
    assert clock.times(signal.SIGKILL) == [1030.0]
    assert not clock.times(signal.SIGUSR1), "it has not asked for a warning"


def test_the_end_of_the_job_is_its_scheduler_s(clock: Clock) -> None:
    end = RankEnd(OPTIONS, None, 1020.0, 30.0)
    clock.run(end, 1100.0)
    assert [signum for signum, _ in clock.sent] == [signal.SIGUSR2]


@pytest.mark.parametrize("seed", range(50))
def test_each_signal_is_sent_once_and_in_order(clock: Clock, seed: int) -> None:
    choose = Random(seed)
    deadline = choose.choice([None, 1005.0, 1030.0])
    end = RankEnd(OPTIONS, deadline, choose.choice([deadline, 1015.0]), 30.0)
    for _ in range(20):
        clock.run(end, clock.now + choose.uniform(0, 4))
        end.hear(choose.choice(["", "", WARNING, TERM]))
    order = [signum for signum, _ in clock.sent if signum != signal.SIGURG]
    assert order == [each for each in (signal.SIGUSR2, signal.SIGTERM, signal.SIGKILL) if each in order]
