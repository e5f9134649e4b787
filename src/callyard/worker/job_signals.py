"""The signals of a job: they are received, outlived, and passed on to the running call."""

from __future__ import annotations

import os
import select
import time

from ..schedulers.job_environment import current_job
from ..utils.lite_stdlib import TYPE_CHECKING, Any, Callable, signal, suppress
from .current_call import GRACE, WARN_BEFORE, WARN_SIGNAL

if TYPE_CHECKING:
    from ..system.run_clock import RunClock
    from .end_sequence import EndSequence

__all__ = ["JobSignals"]

_PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)
_ALL = (signal.SIGTERM, *_PASSED_ON)
_KILL_WAIT = 30.0  # s of grace after a `run_time`, if the call has none: Slurm's default


class JobSignals:
    """The receiver of a job's signals.

    SIGTERM (scancel, the job's limit, preemption) tells the call to end, as does the signal that some schedulers send
    at the limit. SIGKILL is then sent by the scheduler, or by this process if the call has a `grace`. Other signals are
    passed on unchanged. Some ways of sending reach all processes of a job (`scancel --full`): then the call gets a
    signal several times, because the shell of the job's script passes signals on, too.
    """

    def __init__(self, clock: RunClock, on_stop: Callable[[], object]) -> None:
        self._clock, self._on_stop = clock, on_stop
        self.stopped = False  # the job must end
        self.warned: int | None = None  # the signal that has warned a call of the job's end
        self._end: EndSequence | None = None  # of the running call, once it may need one
        self._announcing = False
        self._pid = 0  # of the running call's process
        self._options: dict[str, Any] = {}
        self.wakes, self._wake = os.pipe()  # readable after a signal
        for descriptor in (self.wakes, self._wake):
            os.set_blocking(descriptor, False)

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        limit = getattr(signal, current_job().time_limit_signal or "SIGTERM")
        for signum in _PASSED_ON:
            signal.signal(signum, self._stop if signum == limit else self._pass_on)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def fork(self, options: dict[str, Any], run_time: float | None) -> int:
        """Fork the process of a call.

        No signal is handled before the child listens, nor before its number is known here.

        In the child signals stay blocked until the call of `Running.listen`.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
        try:
            pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
            raise
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for signum in (*_ALL, signal.SIGCHLD):
                signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
            if current_job().signals_all:  # the call hears of its end by SIGTERM, from this process
                signal.signal(getattr(signal, current_job().time_limit_signal), signal.SIG_IGN)
            os.close(self.wakes)
            os.close(self._wake)
            return 0
        self._pid, self._options, self._end, self._announcing = pid, options, None, False
        if run_time is not None:
            before, now = options.get(WARN_BEFORE, run_time), self._clock()
            # Otherwise the call sees the coming end from the time.
            warn_at = None if before >= run_time else now + run_time - before
            self._end = _sequence(options.get(GRACE, _KILL_WAIT), warn_at, options.get(WARN_SIGNAL, signal.SIGUSR1))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
        return pid

    def ended(self) -> None:
        """Forget the call's process after the end: another process may soon have the number."""
        self._pid = 0

    @property
    def next_at(self) -> float | None:
        """The time of the next signal for the call's end (s of the monotonic clock)."""
        return None if self._end is None else self._end.next_at

    def due(self, now: float) -> list[int]:
        return [] if self._end is None else self._end.due(now)

    def announce(self, now: float) -> None:
        """Begin the end of the call, whose `run_time` is over."""
        if self._end is not None:
            self._end.announce(now)

    def await_stop(self, seconds: float) -> None:
        """Wait until the job is told to end, at most for so long."""
        until = time.monotonic() + seconds
        while not self.stopped and (left := until - time.monotonic()) > 0:
            select.select([self.wakes], [], [], left)
            self.drain()

    def drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.wakes, 1 << 10)

    def send(self, signum: int) -> None:
        """Send a signal to the call's process alone: the function looks after its own children."""
        if self._pid:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signum)

    def _stop(self, signum: int, frame: object) -> None:
        """End the job for the scheduler, which knows the reason; only the fact is written, for an early question."""
        if not self.stopped:
            self.stopped = True
            self._on_stop()
        if not self._pid:
            os._exit(128 + signum)
        if (self._end is None or not self._end.announced) and not self._announcing:
            self._announcing = True  # the next signal may come in the middle, while the module is being imported
            self._end = _sequence(self._options.get(GRACE))  # without one, the scheduler sends SIGKILL
            self._end.announce(self._clock())

    def _pass_on(self, signum: int, frame: object) -> None:
        if self._options.get(WARN_SIGNAL) == signum:
            self.warned = signum
        self.send(signum)


def _sequence(grace: float | None, warn_at: float | None = None, warning: int = signal.SIGUSR1) -> EndSequence:
    from .end_sequence import EndSequence  # here, because few calls need this

    return EndSequence(grace, warn_at, warning)
