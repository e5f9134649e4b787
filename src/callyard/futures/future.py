"""The class `Future`: a `concurrent.futures.Future` that costs little until a thread waits for the result.

Users see the standard library's future. Two things differ inside, because a program may have a hundred thousand:

* A future has no condition variable of its own; see `future_state`.
* A result stays packed, as received from a worker (`Lazy`), until a thread asks for the value. The asking thread then
  opens the result. A result that only feeds another call is never opened in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, InvalidStateError
from concurrent.futures import Future as StandardFuture
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UnreadableCall
from ..events.usage import Usage
from ..status.call_status import PENDING_STATUS, CallStatus, ended_status, sentence
from ..utils.error_words import error_words
from ..utils.locks import let_go, under
from ..utils.public_names import public_names
from ..utils.shown_text import one_line
from . import unasked
from .future_state import ENDED, FutureState
from .lazy import DerivedResult, Lazy
from .waiting import endless_wait, futures_lock, log_broken_callback

T = TypeVar("T")

_log = logging.getLogger("callyard")
_LOOKS = 3  # at a call that other threads move meanwhile
_PUBLIC_STATES = {
    PENDING: "pending",
    RUNNING: "running",
    CANCELLED: "cancelled",
    CANCELLED_AND_NOTIFIED: "cancelled",
    FINISHED: "finished",
}
_STILL_PACKED: BaseException = Exception("this error is still packed")  # in the place of an error not yet opened

# The names in `dir()`, without the methods and attributes for the rest of this package.
_OURS = {"attempts", "cached", "explain", "job_id", "key", "name"}
_PUBLIC = {name for name in dir(StandardFuture) if not name.startswith("_")} | _OURS


class Future(FutureState[T]):
    """The result of a call, perhaps still to come: a `concurrent.futures.Future`.

    A future works with `wait`, `as_completed` and `asyncio.wrap_future`, and can be awaited. As an argument of another
    call, a future stands for its result, and the other call waits for the end of this one.

    Attributes:
        name: the name of the called function.
        key: the call's key in the cache, 40 hexadecimal digits or the user's `cache_key`; None without a cache, or
            while the key is unknown.
        cached: True if the call was answered from the cache; None without a cache.
        job_id: the scheduler's id of the job that runs the call; None where no scheduler does.
        attempts: the number of this run of the call: 1, and one more each time that it is run again, because it has
            raised `Again`, has gone beyond a limit of a list, or has lost its worker and has a `restart_limit`.

    Examples:
        >>> future = executor.submit(pow, 2, 10)
        >>> future.result()
        1024
    """

    attempts = 1
    passes_again_on = False  # a call that raises `Again` goes back to another process, see `AgentReply`

    __slots__ = ()

    @property
    def key(self) -> str | None:
        """The call's key in the cache; None without a cache, or while the key is unknown."""
        return None

    @property
    def cached(self) -> bool | None:
        """True if the call was answered from the cache; None without a cache."""
        return None

    @property
    def job_id(self) -> str | None:
        """The scheduler's id of the job that runs this call; None where no scheduler does."""
        return None

    def origins(self) -> tuple[tuple[str, str], ...]:
        """Return key and function of each stored call of which this is the result, or a part of it."""
        key = self.key
        return () if key is None else ((key, self.name),)

    @property
    def usage(self) -> Usage | None:
        """What the last run of the call has used; None if that was not measured. For the rest of this package."""
        return getattr(self, "_usage", None)

    def note_usage(self, usage: Usage) -> None:
        """Note what the call has used, before its end."""
        self._usage = usage

    def explain(self) -> str:
        """Return in a sentence what the call waits for, or where it runs, or how it has ended.

        The call is the subject: "waits for `relax` (running for 12 s on c3)", "waits for 2 GPUs; 3 calls are before
        it", "runs on c3 for 12 s (worker 4711)", "has ended: returned float". Any thread may ask at any moment, and
        nothing is raised. On another computer the question takes a round trip, a second at most.

        Examples:
            >>> future = executor.submit(pow, 2, 10)
            >>> future.result()
            1024
            >>> future.explain()
            'has ended: returned int'
        """
        return sentence(self.call_status)

    # -- for executors ---------------------------------------------------------------------------------

    @property
    def call_status(self) -> CallStatus:
        """The status of the call at this moment."""
        for _ in range(_LOOKS):
            if self._state in ENDED:
                return self._ended_status()
            try:
                status = self._present_status()
            except Exception:  # another thread has changed what was being read
                _log.debug("the status of %r could not be read", self.name, exc_info=True)
                status = None
            if status is not None:
                return status
        return CallStatus("running") if self.running() else PENDING_STATUS

    def _ended_status(self) -> CallStatus:
        if self.cancelled():
            return ended_status("cancelled")
        if self._exception is _STILL_PACKED:
            self._open()
        if self._exception is not None:
            return ended_status("failed", error=self._exception)
        if self.cached:
            return ended_status("cached")
        if self._packed is not None:  # not opened for this, as it may be large, and opening runs the user's code
            return CallStatus("finished", "returned a result, which nobody has opened yet")
        return ended_status("finished", self._result)

    def set_running_or_notify_cancel(self) -> bool:
        """Mark the call as running; return False if the call was cancelled. Only executors and tests call this.

        Raises:
            InvalidStateError: the call runs or has ended already.
        """
        nested = futures_lock._is_owned()
        try:
            with futures_lock:
                if self._state is PENDING:
                    self._state = RUNNING
                    return True
        except BaseException:  # as in `under`
            if not nested:
                let_go(futures_lock)
            raise
        if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
            return False
        raise InvalidStateError(f"{self!r} is running or has ended already")

    def set_result(self, result: T) -> None:
        """End with a result. Only executors and tests call this.

        Args:
            result: the value for `result()` to return from now on.

        Raises:
            InvalidStateError: the future has ended already.
        """
        if not self._end(FINISHED, None, result, None):
            raise InvalidStateError(f"{self!r} has ended already")

    def set_exception(self, exception: BaseException | None) -> None:
        """End with an exception. Only executors and tests call this.

        Args:
            exception: the exception for `result()` to raise from now on.

        Raises:
            InvalidStateError: the future has ended already.
        """
        if not self._end(FINISHED, None, None, exception):
            raise InvalidStateError(f"{self!r} has ended already")

    def finish(self, packed: Lazy) -> bool:
        """End with a packed result, to be opened on demand; return False if the future had ended."""
        return self._end(FINISHED, packed, None, None)

    def fail(self, packed: Lazy) -> bool:
        """End with a packed error, to be opened on demand; return False if the future had ended."""
        is_new, accounts = self._note(packed), self._accounts()
        if self._end(FINISHED, packed, None, _STILL_PACKED):
            return accounts is None or accounts.note_failure(self.name, packed)
        return self._had_ended(is_new)

    def pass_again_on(self, packed: Lazy, failed: bool) -> None:
        raise NotImplementedError

    def fail_with(self, error: BaseException) -> bool:
        """End with an error of this process; return False if the future had ended."""
        is_new, accounts = self._note(error), self._accounts()
        if self._end(FINISHED, None, None, error):
            return accounts is None or accounts.note_failure(self.name, error)
        return self._had_ended(is_new)

    def _note(self, failure: Lazy | BaseException) -> bool:
        """Note a failure before the end, as a waiting thread asks at once; return False if it was noted before."""
        if hasattr(self, "_failure"):
            return False
        self._failure = unasked.note(self.name, failure)
        return True

    def _had_ended(self, is_new: bool) -> bool:
        """Take back the note of a failure that does not count, as the future has another end; return False."""
        if is_new and not self.failed():
            self.asked()
        return False

    def fails_because_of(self, source: object) -> None:
        """Give this future, which is about to fail, the failure of `source`: to ask for one is to ask for both."""
        number = getattr(source, "_failure", None)
        if number is not None and not hasattr(self, "_failure"):
            self._failure = number

    def failure_is_kept(self, directory: str) -> None:
        """Note the cache that keeps the failure of this future."""
        number = getattr(self, "_failure", None)
        if number is not None:
            unasked.kept(number, directory)

    def asked(self) -> None:
        """Declare that the user has the failure of this future, or never will have the future."""
        number = getattr(self, "_failure", None)
        if number is not None:
            unasked.asked(number)

    def again(self) -> None:
        """Go back from running to pending, because the call is going to run once more."""
        under(futures_lock, self._reset_to_pending)

    def _reset_to_pending(self) -> None:
        if self._state is RUNNING:
            self._state = PENDING

    def take(self) -> None:
        """Load a result derived from other futures, because only loading shows a failure."""
        if isinstance(self._packed, DerivedResult):
            self._open()

    def packed_failure(self) -> Lazy | None:
        """Return the packed error of the future; None without an error, or after the error was opened."""
        packed = self._packed  # read first: another thread may be opening the error now
        return packed if self._exception is _STILL_PACKED else None

    def peek_exception(self) -> BaseException | None:
        """Return what `exception()` does, for the rest of the package: the user has not asked."""
        self._wait(None)
        return self._exception

    # -- for users -------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Cancel the call, unless the call has begun; return True if the call is cancelled."""
        on_cancel, accounts = self.on_cancel, self._accounts()
        try:
            if self._end(CANCELLED_AND_NOTIFIED, None, None, None):
                if on_cancel is not None:
                    on_cancel()
                if accounts is not None:
                    accounts.note(self.name, "cancelled")
                return True
        except BaseException:
            if on_cancel is not None and self.cancelled():
                on_cancel()
            raise
        return self.cancelled()

    def cancelled(self) -> bool:
        """Return True if the call was cancelled."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Return True while the call runs."""
        return self._state is RUNNING

    def done(self) -> bool:
        """Return True if the call has ended: with a result, with an exception, or cancelled."""
        return self._state in ENDED

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(future)` when the call has ended; at once, in this thread, if the call has ended already.

        Callbacks run in the order of their registration, in the thread that ended the future. A callback should be
        short, and must not wait for other futures. An exception from a callback is logged and has no other effect.

        Args:
            fn: a callable with one parameter, the future.
        """
        if not under(futures_lock, self._add_callback, fn):
            try:
                fn(self)
            except Exception:
                log_broken_callback(self)

    def result(self, timeout: float | None = None) -> T:
        """Return the result of the call; wait for the end of the call if need be.

        Args:
            timeout: the longest wait (s); default: no limit.

        Raises:
            TimeoutError: the call has not ended in this time.
            concurrent.futures.CancelledError: the call was cancelled.
            RuntimeError: a callback waits for a future that only its own thread could end.
            Exception: the exception of the function, with the worker's traceback as its cause; or an error of
                Callyard, as `WorkerLost`.
        """
        try:
            self._wait(timeout)
            if self._exception is not None:
                self.asked()
                raise self._exception
            return self._result  # type: ignore[return-value]  # `cast` would be a call
        finally:
            self = None  # type: ignore[assignment]  # the traceback must not keep this future alive

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception of the call, None if the function returned; wait for the end of the call if need be.

        Args:
            timeout: the longest wait (s); default: no limit.

        Raises:
            TimeoutError: the call has not ended in this time.
            concurrent.futures.CancelledError: the call was cancelled.
            RuntimeError: a callback waits for a future that only its own thread could end.
        """
        self._wait(timeout)
        if self._exception is not None:
            self.asked()
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        if self._state not in ENDED:
            if timeout is None and self.ends_here():
                raise endless_wait(self.name)
            self._sleep(timeout)
        if self._packed is not None:
            self._open()
        if self._state is not FINISHED:
            late = "" if self._state in ENDED else f"{self.name!r} has not ended after {timeout:g} s"
            self = None  # type: ignore[assignment]  # as in `result`
            raise FutureTimeout(late) if late else CancelledError

    def __await__(self) -> Generator[Any, None, T]:
        """Wait in a coroutine, as `asyncio.wrap_future` does: cancelling the coroutine cancels the call too."""
        import asyncio  # here, because a program with coroutines has loaded the module, and most others need none

        return asyncio.wrap_future(self, loop=asyncio.get_running_loop()).__await__()

    if not TYPE_CHECKING:  # to mypy a future has neither items nor iteration

        def __getitem__(self, key: object) -> Any:
            """Refuse `future[key]`, and iteration, which Python tries by index; the result may not be there yet."""
            raise TypeError(
                f"the future of {self.name!r} is not its result: callyard.item(future, {key!r}) is the future of a "
                "part, and callyard.unzip(future, n) gives those of n parts"
            )

    def _get_snapshot(self) -> Any:
        """Return state, result and exception at once, for asyncio of Python 3.15, which calls this for `result()`."""
        if self._packed is not None:
            self._open()
        self.asked()
        return super()._get_snapshot()  # type: ignore[misc]

    def _open(self) -> None:
        """Replace the packed value or error by the opened one; of two threads the first wins."""
        packed = self._packed
        if packed is None:
            return
        result, error = None, None
        try:
            loaded = packed.load()  # without the lock: unpickling runs user code, and may take long
        except (Exception, SystemExit) as failure:  # from user code
            error = failure if isinstance(packed, DerivedResult) else self._unreadable(failure)
        else:
            if self._exception is None:
                result = loaded
            else:
                error = loaded
        nested = futures_lock._is_owned()
        try:
            with futures_lock:
                if self._packed is packed:
                    self._result, self._exception, self._packed = result, error, None
        except BaseException:  # as in `under`
            if not nested:
                let_go(futures_lock)
            raise
        self = error = None  # type: ignore[assignment]  # no cycle from the error's traceback through this frame

    def _unreadable(self, failure: BaseException) -> BaseException:
        error = UnreadableCall(f"the result of {self.name!r} cannot be opened here: {failure}")
        error.__cause__ = failure
        return error

    def __reduce__(self) -> Any:
        raise TypeError("a future cannot be pickled; as an argument of a call it stands for its result")

    def __dir__(self) -> list[str]:
        return public_names(super().__dir__(), _PUBLIC)

    def _state_word(self) -> str:
        return "running" if self.running() else _PUBLIC_STATES.get(self._state, self._state)

    def _repr_html_(self) -> str:
        from ..display.notebook_html import card

        state = self._state_word()
        if self.done() and not self.cancelled():
            state = "failed" if self.failed() else "remembered" if self.cached else state
        facts = [("State", state), ("Key", self.key or ""), ("Job", self.job_id or "")]
        error = self._exception
        if error is not None and error is not _STILL_PACKED:
            facts.insert(1, ("Error", one_line(error_words(error), 300)))
        return card(f"Future of {self.name}", facts)

    def __repr__(self) -> str:
        head = f"<Future at {id(self):#x} {self.name!r} state={self._state_word()}"
        if self._state is not FINISHED:
            return head + ">"
        if self._exception is not None:
            raised = "" if self._packed is not None else " " + type(self._exception).__name__
            return f"{head} raised{raised}>"
        return head + (">" if self._packed is not None else f" returned {type(self._result).__name__}>")
