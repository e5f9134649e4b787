"""The call that this process makes: its resources, the time left, and the signals of an end.

`current`, `ending` and `Again` are for the user's functions. The rest is for the processes that run functions: a
worker, a rank of an MPI call, a job. The main thread runs the function, so that signals about an end interrupt the
function.

    IDLE ---- begin ----> FUNCTION ---- hand_over ----> HANDOVER ---- end ----> IDLE

SIGTERM raises SystemExit in the FUNCTION, once, so that `finally` and `with` blocks run. In HANDOVER the function has
returned, so the result is first stored and sent. An IDLE process ends at once, as without a handler. The sender of the
signal tells the driver the reason for the end, not this process; so the process ends by SIGTERM, as without a handler,
and prints the exception of the function to stderr.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident

from ..schedulers.job_environment import current_job
from ..system.run_clock import StoppedTime
from ..utils.lite_stdlib import Any, Frozen, NoReturn, signal, suppress

_IDLE, _FUNCTION, _HANDOVER = range(3)
_NO_OPTIONS: dict[str, Any] = {}
_GIB = 1 << 30
_TERM_LATE, _TERM_LOOK = 1.0, 0.002  # s to wait for SIGTERM after the deadline, and between two looks
_GPUS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")

# The options of a call that count here, besides "memory" (bytes).
DEADLINE = "deadline"  # the end of the `run_time` (s of the monotonic clock, which all processes of a machine share)
GRACE = "grace"  # s, for the sender of SIGTERM
UNTIL = "until"  # the end of the `run_time` or of the job, whichever comes first
CORES = "cores"
WARN_BEFORE = "warn_before"  # s
WARN_SIGNAL = "warn_signal"  # the number of the signal
# Variable with the signal's number for a worker, which must listen before the first call begins.
WARNED_BY = "CALLYARD_WARNED_BY"
ATTEMPT = "attempt"
LOG = "log"  # the path of a file for the output of a call without a cache
AGAIN = "again"  # the call has raised `Again`; the new arguments come last
MORE_MEMORY = "more_memory"  # there is a next limit of memory, with which the call runs again


class Again(BaseException):
    """Raise this in a call to have it run again, later, with other arguments to go on from.

    The call keeps its future, its key in the cache, and the calls that wait for it. The next run comes at the end of
    the queue. The number of runs has no limit; `Future.attempts` and `current().attempt` tell the number. A call on
    several MPI ranks raises it on all of them, and each rank goes on with its own arguments.

    Not an `Exception`, so that `except Exception` in the function does not catch it.

    Args:
        *args: the positional arguments of the next run.
        **kwargs: the keyword arguments of the next run.

    Examples:
        >>> def train(state, steps):
        ...     while steps:
        ...         state, steps = step(state), steps - 1
        ...         if callyard.ending():
        ...             raise callyard.Again(state, steps)
        ...     return state
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args)
        self.kwargs = kwargs

    def __str__(self) -> str:
        shown = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"run again with ({', '.join(shown)})"

    def __reduce__(self) -> Any:
        return _again, (self.args, self.kwargs)


def _again(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Again:
    return Again(*args, **kwargs)


class CurrentCall(Frozen):
    """The resources of the call that runs here.

    Attributes:
        attempt: the number of this run of the call (count, the first is 1).
        key: the call's key in the cache, 40 hexadecimal digits or the user's `cache_key`; None without a cache.
        name: the name of the function.
        number: the number among the calls of one job array, from 0; None for a call alone.
        cores: the cores of this process (count).
        gpus: the GPUs of this process, by their names in CUDA_VISIBLE_DEVICES or ROCR_VISIBLE_DEVICES.
        memory: the limit of the call's memory (GiB); None for no limit.
    """

    attempt: int
    key: str | None
    name: str
    number: int | None
    cores: int
    gpus: tuple[str, ...]
    memory: float | None
    _deadline: float | None

    def time_left(self) -> float | None:
        """Return the time left to the call (s, 0 or more); None for no limit.

        Time in which the call was suspended with its job does not count.
        """
        return None if self._deadline is None else max(0.0, self._deadline - running.now())


class Running:
    """The state of the one running call of this process. Only the main thread changes it."""

    def __init__(self) -> None:
        self.cores = 1
        self.options = _NO_OPTIONS
        self.key: str | None = None
        self.name = ""  # of a call in a job; else its function has one
        self.number: int | None = None
        self.function: Any = None
        self.announced = False  # a signal has said that the end is near
        self.terminated = False  # the signal was SIGTERM
        self._phase = _IDLE
        self.attempt = 1  # of the call, in a job
        self._limits: dict[str, Any] = {}
        self._warned = False
        self._masks: dict[int, Any] = {}  # of the threads that fork just now: their usual blocked signals
        self._signals: tuple[int, ...] = (signal.SIGTERM,)  # the signals with handlers
        self._stopped: StoppedTime | None = None  # of the running call
        self._job_ends: float | None = None  # s of the monotonic clock, in a worker
        self._hands_over_later = False  # another thread of this process sends the result on

    # -- for the process ---------------------------------------------------------------------------------

    def listen(self, warning: int | None = None) -> None:
        """Handle SIGTERM and the warning signal; once for each process, in the main thread, before the first call."""
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGURG, self._on_wake)
        if warning is not None:
            signal.signal(warning, self._on_warning)
            self._signals = (signal.SIGTERM, warning)
        os.register_at_fork(before=self._block, after_in_parent=self._unblock, after_in_child=self._be_plain)

    def listen_in_worker(self, stopped: StoppedTime | None = None, *, hands_over_later: bool = False) -> None:
        """Handle the signals in a process that serves a driver.

        `hands_over_later`: another thread sends the results on, and this process makes one call only.
        """
        self._stopped, self._hands_over_later = stopped, hands_over_later
        ends = current_job().ends
        self._job_ends = None if ends is None else ends - time.time() + time.monotonic()
        warning = os.environ.pop(WARNED_BY, None)  # not for the workers of an executor that a call makes
        self.listen(None if warning is None else int(warning))

    def listen_in_job(
        self,
        options: dict[str, Any],
        deadline: float | None,
        ends: float | None,
        warned: int | None,
        stopped: StoppedTime | None,
    ) -> None:
        """Handle the signals in the process of a job's call, which were held back until now.

        Args:
            options: the options of the call.
            deadline: the end of the `run_time` (s of the monotonic clock); None for no limit.
            ends: the end of the job (s since 1970); None if unknown.
            warned: the signal that has already warned an earlier call of the same job of the job's end.
        """
        self._stopped = stopped
        self.listen(options.get(WARN_SIGNAL))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        job_ends = None if ends is None else ends - time.time() + time.monotonic()
        times = [at for at in (deadline, job_ends) if at is not None]
        self._limits = {DEADLINE: deadline, UNTIL: min(times, default=None)}
        self._warned = warned is not None and options.get(WARN_SIGNAL) == warned

    def begin_in_job(self, options: dict[str, Any], key: str, name: str, number: int | None) -> None:
        """Begin the function of a job's call."""
        self.key, self.name, self.number = key, name, number
        self.cores, self.announced = options.get(CORES, 1), self._warned
        self.begin({**options, **self._limits, ATTEMPT: self.attempt})

    def begin(self, options: dict[str, Any]) -> None:
        """Begin the function of a call: from here on SIGTERM interrupts it."""
        self.options, self._phase = options, _FUNCTION

    def hand_over(self) -> None:
        """Begin the handover: the function has ended, and its result is to be stored and sent."""
        self._phase = _HANDOVER

    def end(self) -> None:
        """End the handover: everything due before the end of this process has been sent."""
        if self._hands_over_later:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif self.terminated:
            self.die()
        self.options, self.key, self.announced, self._phase = _NO_OPTIONS, None, False, _IDLE
        self.function = None

    @property
    def ended_from_outside(self) -> bool:
        """True if the end of the call was told or is due, so that an exception of the function is a consequence."""
        return self.terminated or self._passed(self.options.get(DEADLINE), 0.0)

    def await_term(self) -> None:
        """Wait a moment for the SIGTERM due at the deadline: its sender notes the reason for the end before."""
        until = time.monotonic() + _TERM_LATE
        while not self.terminated and time.monotonic() < until:
            if signal.getsignal(signal.SIGTERM) != self._on_term:  # a handler of the function's has taken the signal
                return
            time.sleep(_TERM_LOOK)

    def die(self, words: str = "") -> NoReturn:
        """End by SIGTERM, as a process without a handler does, after writing the printed output."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # a user may have put any object there
                stream.write(words if stream is sys.stderr else "")
                stream.flush()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(128 + signal.SIGTERM)  # if SIGTERM is blocked

    # -- for the function ----------------------------------------------------------------------------------

    @property
    def is_ending(self) -> bool:
        if self._phase == _IDLE:
            return False
        return self.announced or self._passed(self._until, self.options.get(WARN_BEFORE) or 0.0)

    def described(self) -> CurrentCall | None:
        if self._phase == _IDLE:
            return None
        options = self.options
        memory = options.get("memory")
        return CurrentCall(
            options.get(ATTEMPT, 1),
            self.key,
            self.name or name_of(self.function),
            self.number,
            self.cores or all_cores(),
            own_gpus(),
            None if memory is None else memory / _GIB,
            self._until,
        )

    @property
    def _until(self) -> float | None:
        """The latest end of the call."""
        until: float | None = self.options.get(UNTIL, self.options.get(DEADLINE))
        if until is None or self._job_ends is None:
            return self._job_ends if until is None else until
        return min(until, self._job_ends)

    def now(self) -> float:
        """Return the time of the monotonic clock, without the time in which the call was stopped."""
        now = time.monotonic()
        return now if self._stopped is None else now - self._stopped.read(now)

    def _passed(self, at: float | None, before: float) -> bool:
        """Return True from `before` s before that time on. Most calls ask long before, and read one clock only."""
        return at is not None and time.monotonic() >= at - before and self.now() >= at - before

    # -- signals -------------------------------------------------------------------------------------------

    def _on_term(self, signum: int, frame: object) -> None:
        if self._phase == _IDLE:
            self.die()
        first, self.announced, self.terminated = not self.terminated, True, True
        # A second one would interrupt the `finally` blocks that the first has started.
        if first and self._phase == _FUNCTION:
            raise SystemExit(128 + signum)

    def _on_wake(self, signum: int, frame: object) -> None:
        """Do nothing: any handler ends a waiting call of the system, and then Python handles SIGTERM.

        SIGTERM may have come just before the call began to wait; see `end_sequence`.
        """

    def _on_warning(self, signum: int, frame: object) -> None:
        self.announced = self._phase != _IDLE  # in an idle process the warning comes too late

    def _block(self) -> None:
        """Hold signals back during a fork: Python drops signals that reach a child before it is ready."""
        self._masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(get_ident(), ()))

    def _be_plain(self) -> None:
        """Give signals their usual effect, in a child that the function has forked."""
        for signum in self._signals:
            if signal.getsignal(signum) in (self._on_term, self._on_warning):
                signal.signal(signum, signal.SIG_DFL)
        self._unblock()


def name_of(function: Any) -> str:
    """Return the name of a function as messages have it."""
    return getattr(function, "__name__", None) or type(function).__name__


def own_gpus() -> tuple[str, ...]:
    """Return the GPUs of this process, by their names in the variables for them."""
    gpus = next((os.environ[name] for name in _GPUS if os.environ.get(name)), "")
    return tuple(gpus.split(",")) if gpus else ()


def all_cores() -> int:
    """Return the number of cores this process may use, for a call with a node to itself."""
    from ..system.machine import find_cores

    return find_cores()[0]


running = Running()


def ending() -> bool:
    """Tell a call whether its end is near: it was warned (`warn_before`), or told to end by SIGTERM.

    False outside of a call. Costs about 0.1 us, so that loops may ask often.

    Examples:
        >>> executor.submit(ending).result()
        False
    """
    return running.is_ending


def current() -> CurrentCall | None:
    """Return the resources of the running call, and the time left; None outside of a call.

    Examples:
        >>> executor.submit(lambda: current().attempt).result()
        1
    """
    return running.described()
