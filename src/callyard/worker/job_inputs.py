"""The inputs of a call in a job: the results of other calls, as futures that have ended."""

from __future__ import annotations

import time

from ..cache.directory import CacheDirectory
from ..errors import JobLost
from ..jobs.batch import CallFile, CallInput, StoredPickle
from ..jobs.call_files import CallFiles, follow_moves
from ..jobs.heartbeats import Heartbeats
from ..serialize.packed import Packed, PackedCall, load_with_inputs
from ..utils.backoff import Backoff
from ..utils.lite_stdlib import TYPE_CHECKING, Any, Callable, Frozen, Sequence, suppress
from .job_outcome import InputFailed, InputMoved, failed, inherited

if TYPE_CHECKING:
    from ..cache.lookup import CachedResult

__all__ = ["StoredInput", "inputs_of", "load_call", "pauses"]

_SOONEST, _LATEST, _SLOWER = 0.1, 5.0, 1.5  # s between two looks at files of others
_DECIDED = 5  # times the grace for late files: then who waits for an input has decided whether it runs again


def pauses() -> Backoff:
    """Return the pauses between two looks at the files of other jobs."""
    return Backoff(_SOONEST, _LATEST, _SLOWER)


def load_call(folder: CallFiles, pickles: Sequence[StoredPickle], inputs: Sequence[Any]) -> Any:
    """Return function, arguments and keywords, with these inputs in the place of futures."""
    opened = ((each.data, [folder.buffer(*place) for place in each.buffers]) for each in pickles)
    return load_with_inputs(PackedCall(opened), inputs)


class StoredInput:
    """A future that has ended, with the result in a file."""

    def __init__(self, given: CallInput, found: CachedResult | None) -> None:
        self._given, self._found = given, found
        self._origins = () if found is None else ((found.key, found.name),)
        self.result_token = None if found is None or given.path else found.token

    def origins(self) -> tuple[tuple[str, str], ...]:
        """Return key and function of the call of which this is the result, or a part of it."""
        return self._origins

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def exception(self) -> BaseException | None:
        return None

    def result(self) -> Any:
        result = Packed(self._given.packed).load() if self._found is None else self._found.load()
        if self._given.path:
            from ..futures import part_of  # here, because this loads much, and few arguments are parts

            for key, length in Packed(self._given.path).load():
                result = part_of(result, key, length)
        return result

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        fn(self)


def inputs_of(folder: CallFiles, call_file: CallFile, number: int | None = None) -> list[StoredInput]:
    """Return the results in the place of futures among the arguments. Each part is taken once, as a check.

    `number`: of the call, which may be ended by others during the wait.

    Raises:
        InputFailed: an input has failed.
        InputMoved: an input goes on in a job for which this one has not waited.
        JobLost: a result is not there.
    """
    found = [StoredInput(given, _find_input(folder, call_file, given, number)) for given in call_file.inputs]
    for given, stored in zip(call_file.inputs, found, strict=True):
        try:
            if given.path:
                stored.result()
        except Exception as error:
            raise InputFailed(inherited(failed(error), call_file.order.name, given.name)) from error
    return found


def _find_input(folder: CallFiles, call_file: CallFile, given: CallInput, number: int | None) -> CachedResult | None:
    """Wait for the result behind an argument: network file systems may show it late."""
    if given.packed is not None:
        return None
    heartbeats, waits = Heartbeats(None, time.monotonic()), pauses()
    while True:
        found = _look_for_input(folder.home, call_file, given)
        if found is not None:
            return found
        source = None if given.key else _unfinished(folder, given)
        heart = None if source is None else source.files.heart(source.number)
        silence = heartbeats.stillness(heart, time.monotonic())  # of a process that lives nobody knows the end
        may_run_again = source is not None and source.may_run_again()
        # Whoever waits for a call lets it fail as soon as an input has failed, and then removes the input's files.
        is_over = number is not None and folder.ended(number) is not None
        if is_over or (silence > call_file.wait and not may_run_again):
            raise JobLost(
                f"the result of {given.name!r}, which {call_file.order.name!r} takes, is not there: run that again"
            )
        if source is not None and silence > _DECIDED * call_file.wait:
            raise InputMoved(source.files.token, source.number)
        time.sleep(waits.next_pause())


class _Unfinished(Frozen):
    """An input without an outcome, in the batch where it goes on."""

    files: CallFiles
    number: int

    def may_run_again(self) -> bool:
        """Return True if the call has asked for another run, or its job may have another one."""
        with suppress(OSError):
            batch = self.files.batch
            may_restart = batch.restart_limit > 0 or batch.has_next_limits
            return may_restart or self.files.again(self.number) is not None
        return False


def _unfinished(folder: CallFiles, given: CallInput) -> _Unfinished | None:
    token, number, end = follow_moves(folder.home, given.token, given.number)
    if end is not None:
        return None
    if token != given.token and token not in folder.batch.waited_for():  # this job has begun too early
        raise InputMoved(token, number)
    return _Unfinished(CallFiles(folder.home, token), number)


def _look_for_input(home: CacheDirectory, call_file: CallFile, given: CallInput) -> CachedResult | None:
    key, directory = given.key, given.directory
    if not key:
        _, _, end = follow_moves(home, given.token, given.number)
        if end is None:
            return None
        if end.state != "finished":
            raise InputFailed(inherited(end, call_file.order.name, given.name))
        key, directory = end.key, end.directory
    from ..cache.lookup import find  # here, because many calls have no inputs

    found = find(CacheDirectory.open(directory, trust="group" if call_file.order.trust else None), key)
    if found is not None and found.failed:
        raise InputFailed(inherited(failed(found.load()), call_file.order.name, given.name))
    return found
