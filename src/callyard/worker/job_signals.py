"""The signals of a job: its process gets them, outlives them, and passes them on to the call that runs.

    SIGTERM (scancel, the job's limit, preemption)   the call is told to end; SIGKILL is the scheduler's, or ours
                                                     where the call has a `grace`
    SIGUSR1, SIGHUP and others                       go on to the call as they come

Some ways to send a signal reach all processes of the job (`scancel --full`): then the call gets it twice.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the part in C: `signal` makes enumerations of it
import contextlib
import os
import time

from ..utils.lite_typing import Any
from .current_call import GRACE, WARN_BEFORE, WARN_SIGNAL
from .end_sequence import EndSequence

_PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)
_ALL = (signal.SIGTERM, *_PASSED_ON)
_KILL_WAIT = 30.0  # s of grace at a `run_time`, where the call asks for none: as much as Slurm gives by default


class JobSignals:
    """The signals of the process of a job, and what they mean for the call that it runs."""

    def __init__(self) -> None:
        self.stopped = False  # the job is to end
        self.warned: int | None = None  # the signal that has warned a call of the job's end
        self.end = EndSequence()  # of the call that runs
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
        self._pid, self._options, now = pid, options, time.monotonic()
        before = options.get(WARN_BEFORE)
        warn_at = None if before is None or run_time is None or before >= run_time else now + run_time - before
        self.end = EndSequence(options.get(GRACE, _KILL_WAIT), warn_at, options.get(WARN_SIGNAL, signal.SIGUSR1))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
        return pid

    def ended(self) -> None:
        """The call has ended: its number may be another's soon."""
        self._pid = 0

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakes, 1 << 10)

    def send(self, signum: int) -> None:
        """Send a signal to the call, not to what that has started: its function looks after the rest."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signum)

    def _stop(self, signum: int, frame: object) -> None:
        """End the job for the scheduler, which knows why; nothing is written about that here."""
        self.stopped = True
        if not self._pid:
            os._exit(128 + signum)
        if not self.end.announced:
            self.end = EndSequence(self._options.get(GRACE))  # without one, the scheduler sends SIGKILL
            self.end.announce(time.monotonic())

    def _pass_on(self, signum: int, frame: object) -> None:
        if self._options.get(WARN_SIGNAL) == signum:
            self.warned = signum
        self.send(signum)
