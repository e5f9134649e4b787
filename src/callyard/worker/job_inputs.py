"""The inputs of a call in a job: the results of other calls, as futures that have ended."""

from __future__ import annotations

import time

from ..cache.directory import CacheDirectory
from ..errors import JobLost
from ..jobs.batch import CallFile, CallInput, StoredPickle
from ..jobs.call_files import CallFiles, follow_moves
from ..serialize.packed import Packed, PackedCall, load_with_inputs
from ..utils.backoff import Backoff
from ..utils.lite_stdlib import TYPE_CHECKING, Any, Callable, Sequence
from .job_outcome import InputFailed, failed, inherited

if TYPE_CHECKING:
    from ..cache.lookup import CachedResult

__all__ = ["MovedAfterInputs", "StoredInput", "inputs_of", "load_call", "pauses"]

_SOONEST, _LATEST, _SLOWER = 0.1, 5.0, 1.5  # s between two looks at files of others


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
        self.result_token = None if found is None or given.path else found.token

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


class MovedAfterInputs(Exception):  # not an error: the call goes on elsewhere
    """The end of the wait for an input: the call has moved to a batch after the one in which the input goes on."""


def inputs_of(
    home: CacheDirectory, call_file: CallFile, has_moved: Callable[[], bool] = lambda: False
) -> list[StoredInput]:
    """Return the results in the place of futures among the arguments. Each part is taken once, as a check.

    `has_moved` is asked while an input is not there.

    Raises:
        MovedAfterInputs: it has returned True.
    """
    found = [StoredInput(given, _find_input(home, call_file, given, has_moved)) for given in call_file.inputs]
    for given, stored in zip(call_file.inputs, found, strict=True):
        try:
            if given.path:
                stored.result()
        except Exception as error:
            raise InputFailed(inherited(failed(error), call_file.order.name, given.name)) from error
    return found


def _find_input(
    home: CacheDirectory, call_file: CallFile, given: CallInput, has_moved: Callable[[], bool]
) -> CachedResult | None:
    """Wait for the result behind an argument: network file systems may show it late."""
    if given.packed is not None:
        return None
    until = time.monotonic() + call_file.wait
    waits = pauses()
    while True:
        found = _look_for_input(home, call_file, given)
        if found is not None:
            return found
        if has_moved():
            raise MovedAfterInputs
        if time.monotonic() > until:
            raise JobLost(
                f"the result of {given.name!r}, which {call_file.order.name!r} takes, is not there: run that again"
            )
        time.sleep(waits.next_pause())


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
