"""The call that this process makes: what it was given, how much time it has left, and the news of its end.

`current`, `ending` and `Again` are for the user's functions. The rest is for the processes that run them: a worker, a
rank of an MPI call, a job. Their main thread runs the function, so the signals that tell of its end arrive there.

    IDLE ---- begin ----> FUNCTION ---- hand_over ----> HANDOVER ---- end ----> IDLE

SIGTERM raises SystemExit in the FUNCTION, once, so that `finally` and `with` blocks run. In HANDOVER the call has
returned, so its result is first stored and sent. An IDLE process ends at once, as it would without a handler. Why the
call was ended is not told here, but by whoever has sent the signal; so the process ends by SIGTERM, as if it had no
handler, and what the function raised goes to stderr.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the part in C: `signal` makes enumerations of it
import os
import sys
import time
from _thread import get_ident

from ..utils.lite_stdlib import Any, Frozen, NoReturn, suppress

_IDLE, _FUNCTION, _HANDOVER = range(3)
_GIB = 1 << 30
_GPUS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")

# The options of a call that are of interest here, beside "memory" (bytes).
DEADLINE = "deadline"  # when its `run_time` is over (s of the monotonic clock, which all processes of a machine share)
GRACE = "grace"  # s, for who ends it
UNTIL = "until"  # the same of the call and of its job, whichever comes first
CORES = "cores"
WARN_BEFORE = "warn_before"  # s
WARN_SIGNAL = "warn_signal"  # its number
WARNED_BY = "CALLYARD_WARNED_BY"  # variable with the same, of a worker: it must listen before its first call begins
ATTEMPT = "attempt"
AGAIN = "again"  # it has raised `Again`; the arguments come last


class Again(BaseException):
    """Raise this in a call to have it run again, later, with other arguments: those from which it can go on.

    The call stays what it is: its future, its key in the cache, and the calls that wait for it. It goes to the end of
    the queue. There is no limit to the number of times; `Future.attempts` and `current().attempt` tell it.

    Not an `Exception`, so that `except Exception` in the function does not catch it.

    Args:
        *args: the positional arguments of the next run.
        **kwargs: its keyword arguments.

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
    """What the call that runs here was given.

    Attributes:
        attempt: which run of the call this is (count, the first is 1).
        key: its key in the cache, 40 hexadecimal digits or the user's `cache_key`; None without a cache.
        cores: the cores of this process (count).
        gpus: the GPUs that it sees, as CUDA_VISIBLE_DEVICES or ROCR_VISIBLE_DEVICES name them.
        memory: the most that the call may take (GiB); None for no limit.
    """

    attempt: int
    key: str | None
    cores: int
    gpus: tuple[str, ...]
    memory: float | None
    _deadline: float | None

    def time_left(self) -> float | None:
        """Return for how long the call may still run (s, 0 or more); None if nothing limits it."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())


class Running:
    """The state of the one call that runs in this process. Only its main thread changes it."""

    def __init__(self) -> None:
        self.cores = 1
        self.options: dict[str, Any] = {}
        self.key: str | None = None
        self.announced = False  # a signal has said that the end is near
        self.terminated = False  # the signal was SIGTERM
        self._phase = _IDLE
        self.attempt = 1  # of the call, in a job
        self._limits: dict[str, Any] = {}
        self._warned = False
        self._masks: dict[int, Any] = {}  # of the threads that fork just now: the signals that they block otherwise
        self._signals: tuple[int, ...] = (signal.SIGTERM,)  # to which it listens

    # -- for the process ---------------------------------------------------------------------------------

    def listen(self, warning: int | None = None) -> None:
        """Take SIGTERM, and the signal that warns; once for each process, in its main thread, before its first call."""
        signal.signal(signal.SIGTERM, self._on_term)
        if warning is not None:
            signal.signal(warning, self._on_warning)
            self._signals = (signal.SIGTERM, warning)
        os.register_at_fork(before=self._block, after_in_parent=self._unblock, after_in_child=self._be_plain)

    def listen_in_worker(self) -> None:
        warning = os.environ.pop(WARNED_BY, None)  # not for the workers of an executor that a call makes
        self.listen(None if warning is None else int(warning))

    def listen_in_job(
        self, options: dict[str, Any], deadline: float | None, ends: float | None, warned: int | None
    ) -> None:
        """Take the signals in the process of a job's call, which were held back until now.

        `deadline`: when its `run_time` is over (s of the monotonic clock); `ends`: when the job does (s since 1970);
        `warned`: the signal that has warned an earlier call of the same job of that.
        """
        self.listen(options.get(WARN_SIGNAL))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        job_ends = None if ends is None else ends - time.time() + time.monotonic()
        times = [at for at in (deadline, job_ends) if at is not None]
        self._limits = {DEADLINE: deadline, UNTIL: min(times, default=None)}
        self._warned = warned is not None and options.get(WARN_SIGNAL) == warned

    def begin_in_job(self, options: dict[str, Any], key: str) -> None:
        """The function of a job's call begins."""
        self.key, self.cores, self.announced = key, options.get(CORES, 1), self._warned
        self.begin({**options, **self._limits, ATTEMPT: self.attempt})

    def begin(self, options: dict[str, Any]) -> None:
        """The function of a call begins."""
        self.options, self._phase = options, _FUNCTION

    def hand_over(self) -> None:
        """The function has ended; what it returned is to be stored and sent."""
        self._phase = _HANDOVER

    def end(self) -> None:
        """All is sent, as far as it must be before this process ends."""
        if self.terminated:
            self.die()
        self.options, self.key, self.announced, self._phase = {}, None, False, _IDLE

    @property
    def ended_from_outside(self) -> bool:
        """Whether the end of the call was told or is due, so that what it raises now is a consequence of that."""
        return self.terminated or _passed(self.options.get(DEADLINE), 0.0)

    def die(self, words: str = "") -> NoReturn:
        """End as a process without a handler for SIGTERM does, after what was printed."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # a user may have put anything there
                stream.write(words if stream is sys.stderr else "")
                stream.flush()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(128 + signal.SIGTERM)  # if it is blocked

    # -- for the function ----------------------------------------------------------------------------------

    @property
    def is_ending(self) -> bool:
        if self._phase == _IDLE:
            return False
        return self.announced or _passed(self._until, self.options.get(WARN_BEFORE) or 0.0)

    def described(self) -> CurrentCall | None:
        if self._phase == _IDLE:
            return None
        options = self.options
        gpus = next((os.environ[name] for name in _GPUS if os.environ.get(name)), "")
        memory = options.get("memory")
        return CurrentCall(
            options.get(ATTEMPT, 1),
            self.key,
            self.cores,
            tuple(gpus.split(",")) if gpus else (),
            None if memory is None else memory / _GIB,
            self._until,
        )

    @property
    def _until(self) -> float | None:
        """When the call must have ended."""
        return self.options.get(UNTIL, self.options.get(DEADLINE))

    # -- signals -------------------------------------------------------------------------------------------

    def _on_term(self, signum: int, frame: object) -> None:
        if self._phase == _IDLE:
            self.die()
        first, self.announced, self.terminated = not self.terminated, True, True
        if first and self._phase == _FUNCTION:  # a second one would interrupt what the first has set going
            raise SystemExit(128 + signum)

    def _on_warning(self, signum: int, frame: object) -> None:
        self.announced = self._phase != _IDLE  # idle: it comes too late

    def _block(self) -> None:
        """Hold signals back during a fork: Python forgets those that a child gets before it is ready."""
        self._masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(get_ident(), ()))

    def _be_plain(self) -> None:
        """In a child that the function has forked: signals do what they do in any process."""
        for signum in self._signals:
            if signal.getsignal(signum) in (self._on_term, self._on_warning):
                signal.signal(signum, signal.SIG_DFL)
        self._unblock()


def _passed(at: float | None, before: float) -> bool:
    return at is not None and time.monotonic() >= at - before


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
    """Return what the call that runs here was given, and how much time it has left; None outside of a call.

    Examples:
        >>> executor.submit(lambda: current().attempt).result()
        1
    """
    return running.described()
