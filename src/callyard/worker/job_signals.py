"""The signals of a job: its process gets them, outlives them, and passes them on to the call that runs."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the part in C: `signal` makes enumerations of it
import os
import select
import time

from ..utils.lite_stdlib import TYPE_CHECKING, Any, suppress
from .current_call import GRACE, WARN_BEFORE, WARN_SIGNAL

if TYPE_CHECKING:
    from .end_sequence import EndSequence

__all__ = ["JobSignals"]

_PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)
_ALL = (signal.SIGTERM, *_PASSED_ON)
_KILL_WAIT = 30.0  # s of grace at a `run_time`, where the call asks for none: as much as Slurm gives by default


class JobSignals:
    """The receiver of the signals.

    SIGTERM (scancel, the job's limit, preemption) tells the call to end; SIGKILL is then the scheduler's, or ours where
    the call has a `grace`. Others go on as they come. Some ways to send one reach all processes of the job
    (`scancel --full`): then the call gets it twice.
    """

    def __init__(self) -> None:
        self.stopped = False  # the job is to end
        self.warned: int | None = None  # the signal that has warned a call of the job's end
        self._end: EndSequence | None = None  # of the call that runs, once it may need one
        self._pid = 0  # of that call
        self._options: dict[str, Any] = {}
        self.wakes, self._wake = os.pipe()  # readable when a signal has come
        for descriptor in (self.wakes, self._wake):
            os.set_blocking(descriptor, False)

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        for signum in _PASSED_ON:
            signal.signal(signum, self._pass_on)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def fork(self, options: dict[str, Any], run_time: float | None) -> int:
        """Fork the process of a call; no signal arrives before that listens, or after its number is known here.

        In the child signals stay blocked until `Running.listen` was called.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for signum in (*_ALL, signal.SIGCHLD):
                signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
            os.close(self.wakes)
            os.close(self._wake)
            return 0
        self._pid, self._options, self._end = pid, options, None
        if run_time is not None:
            before, now = options.get(WARN_BEFORE, run_time), time.monotonic()
            warn_at = None if before >= run_time else now + run_time - before  # else it knows from the time
            self._end = _sequence(options.get(GRACE, _KILL_WAIT), warn_at, options.get(WARN_SIGNAL, signal.SIGUSR1))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
        return pid

    def ended(self) -> None:
        """The call has ended: its number may be another's soon."""
        self._pid = 0

    @property
    def next_at(self) -> float | None:
        """When something is due of the end of the call (s of the monotonic clock)."""
        return None if self._end is None else self._end.next_at

    def due(self, now: float) -> list[int]:
        return [] if self._end is None else self._end.due(now)

    def announce(self, now: float) -> None:
        """The `run_time` of the call is over."""
        if self._end is not None:
            self._end.announce(now)

    def await_stop(self, seconds: float) -> None:
        """Wait until the job is told to end, no longer than this."""
        until = time.monotonic() + seconds
        while not self.stopped and (left := until - time.monotonic()) > 0:
            select.select([self.wakes], [], [], left)
            self.drain()

    def drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.wakes, 1 << 10)

    def send(self, signum: int) -> None:
        """Send a signal to the call, not to what that has started: its function looks after the rest."""
        if self._pid:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signum)

    def _stop(self, signum: int, frame: object) -> None:
        """End the job for the scheduler, which knows why; nothing is written about that here."""
        self.stopped = True
        if not self._pid:
            os._exit(128 + signum)
        if self._end is None or not self._end.announced:
            self._end = _sequence(self._options.get(GRACE))  # without one, the scheduler sends SIGKILL
            self._end.announce(time.monotonic())

    def _pass_on(self, signum: int, frame: object) -> None:
        if self._options.get(WARN_SIGNAL) == signum:
            self.warned = signum
        self.send(signum)


def _sequence(grace: float | None, warn_at: float | None = None, warning: int = signal.SIGUSR1) -> EndSequence:
    from .end_sequence import EndSequence  # here, because few calls need it

    return EndSequence(grace, warn_at, warning)
