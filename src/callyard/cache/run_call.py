"""What the process that runs a remembered call does around it: is it the keyed code, claim, run, store.

The order of steps is the promise that no call runs twice: claim first, then look once more whether a result is there,
because whoever held the claim before may have stored one in between; store first, then release the claim.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable

from ..errors import CacheError, CallyardError
from ..utils.lite_typing import Any
from .claims import Claim, Claims
from .directory import CacheDirectory
from .messages import RunDeclined, RunOutcome, RunReport, RunRequest

Arguments = Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]


def _log() -> Any:
    import logging  # here, because a call that goes well has nothing to say

    return logging.getLogger("callyard")


class CachedRun:
    """A call that this process has claimed and runs."""

    def __init__(self, order: RunRequest, home: CacheDirectory | None, claim: Claim | None) -> None:
        self._order, self._home, self._claim = order, home, claim
        self._started = time.time()

    def finished(self, value: Any, seconds: float, arguments: Arguments, pickled: bytes | None = None) -> RunReport:
        """Store the result and let go of the claim. What goes wrong here is not the call's fault."""
        if self._order.check_only:
            return RunReport()
        token = result_token(self._order.key, value)
        return self._store("finished", token, value, seconds, arguments, pickled)

    def failed(self, error: BaseException, text: str, seconds: float, arguments: Arguments) -> None:
        """Store the function's own failure, if asked for. What a limit or a transport did is not the call's meaning."""
        if (
            self._order.failures
            and isinstance(error, Exception)
            and not isinstance(error, (CallyardError, MemoryError))
        ):
            problem = self._store("failed", b"", (error, text), seconds, arguments, None).problem
            if problem is not None:
                _log().warning(
                    "the failure of %r was not stored in %s: %s", self._order.name, self._order.directory, problem
                )
        self.release()

    def release(self) -> None:
        if self._claim is not None:
            with contextlib.suppress(OSError):  # it ends with this process at the latest
                self._claim.release()

    def _store(
        self, state: str, token: bytes, output: Any, seconds: float, arguments: Arguments, pickled: bytes | None
    ) -> RunReport:
        if self._home is None:
            return RunReport(token)
        try:
            from .format.record_file import Record, write  # here, because a call that fails needs none of it

            order = self._order
            args, kwargs = arguments()
            facts = {
                **order.facts,
                **({"job": order.job_id} if order.job_id else {}),
                "host": os.uname().nodename,
                "pid": os.getpid(),
                "python": sys.version.split()[0],
            }
            made = Record(
                key=order.key, name=order.name, state=state, token=token.hex(), output=output, args=args, kwargs=kwargs,
                source=order.source, pickled=pickled, facts=facts, created=self._started, seconds=seconds,
            )  # fmt: skip
            self._home.publish(order.key, lambda fd: write(fd, made), sync=order.job_id is not None)
        except Exception as error:
            return RunReport(token, f"{type(error).__name__}: {error}")
        finally:
            self.release()
        return RunReport(token, stored=True)


def begin(order: RunRequest) -> CachedRun | RunDeclined:
    """Claim the call, or say why it is not to be run."""
    differing = tuple(
        dict.fromkeys(module for module, name, token in order.references if not _is(module, name, token, order))
    )
    if differing:
        return RunDeclined("differs", modules=differing)
    if order.check_only:
        return CachedRun(order, None, None)
    home = _home(order)
    if home is None:
        return CachedRun(order, None, None)
    if _stored(order, home):
        return RunDeclined("stored")
    try:
        claim = Claims(home).take(order.key, order.name, job_id=order.job_id)
    except OSError as error:  # a full disk, a directory that is only read: not the call's fault
        _log().info("%r runs without a claim, as none can be made in %s: %s", order.name, home.path, error)
        return CachedRun(order, home, None)
    if not isinstance(claim, Claim):
        return RunDeclined("claimed", where=claim.awaited(order.key, home.path))
    run = CachedRun(order, home, claim)
    if _stored(order, home):
        run.release()
        return RunDeclined("stored")
    return run


def _stored(order: RunRequest, home: CacheDirectory) -> bool:
    """Whether there is a result; what is not readable is for who ordered to look at."""
    if order.afresh or not home.exists(order.key):
        return False
    return order.failures or not _is_failure(order, home)


def _is_failure(order: RunRequest, home: CacheDirectory) -> bool:
    from .format.record_file import FAILED, read_head  # here, because most often there is none

    try:
        descriptor = home.open_record(order.key)
        try:
            return read_head(descriptor).state == FAILED
        finally:
            os.close(descriptor)
    except Exception:
        return False


_homes: dict[tuple[str, int], CacheDirectory] = {}


def _home(order: RunRequest) -> CacheDirectory | None:
    """The directory, if it is the one that the order means; looked at once."""
    place = order.directory, order.inode
    if place not in _homes:
        try:
            if os.stat(order.directory).st_ino != order.inode:
                return None
            _homes[place] = CacheDirectory.open(order.directory, trust=order.trust)
        except (OSError, CacheError):
            return None
    return _homes[place]


_same: set[tuple[str, str, bytes, bool]] = set()  # what was found to be what was keyed


def _is(module: str, name: str, token: bytes, order: RunRequest) -> bool:
    """Whether this process imports what was keyed. Asked once: what calls do to their modules is not the code."""
    reference = module, name, token, order.code_only
    if reference in _same:
        return True
    from ..hashing.call_key import has_metadata, token_at  # here, because most calls refer to nothing of the user's

    try:
        same = token_at(module, name, order.code_only, with_metadata=has_metadata(token)) == token
    except Exception:  # it is not there, or means nothing
        return False
    if same:
        _same.add(reference)
    return same


def result_token(key: str, value: Any) -> bytes:
    """What a result counts as where it is an argument: its meaning, or if it has none, that it is this call's."""
    from ..hashing.digest import ATOMS, text

    atom = ATOMS.get(type(value))
    if atom is not None:
        return atom(value)
    from ..hashing.values import meaning  # here, because it loads much

    try:
        return meaning(value)
    except Exception:  # nothing in it is the key's business
        return text(b"=", key)


# -- through an executor that knows nothing of this --------------------------------------------------------


def run(order: RunRequest, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> RunOutcome:
    begun = begin(order)
    if isinstance(begun, RunDeclined):
        return RunOutcome(begun)
    if not _is_still_meant(order, fn, args, kwargs):
        begun.release()
        return RunOutcome(
            RunReport(problem="its arguments or its code were changed before it began"), fn(*args, **kwargs)
        )
    again = _kept(args, kwargs)
    started = time.perf_counter()
    try:
        value = fn(*args, **kwargs)
    except BaseException as error:
        import traceback

        begun.failed(error, "".join(traceback.format_exception(error)), time.perf_counter() - started, again)
        raise
    return RunOutcome(begun.finished(value, time.perf_counter() - started, again), value)


def _is_still_meant(order: RunRequest, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the call is the one that was keyed: threads get the very objects, pools of processes send them late."""
    meant = order.meant
    if meant is None:
        return True
    from ..hashing.call_key import FunctionPart, call_key
    from ..serialize import object_identity

    try:
        if meant.process == object_identity.token:
            return call_key(fn, args, kwargs, meant.around).hex == order.key
        call = call_key(fn, args, kwargs, meant.around, FunctionPart(meant.function, (), {}, {}))
        return meant.arguments is None or not call.plain or call.arguments_token == meant.arguments
    except Exception:  # a value that has no meaning but that of the call it came from
        return True


def _kept(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The arguments as they are before the function sees them: it may change them."""
    import pickle

    from ..serialize.function_registry import dumps

    try:
        packed = dumps((args, kwargs))
    except Exception:  # they are used here only, and need not be picklable
        return lambda: (args, kwargs)
    return lambda: pickle.loads(packed)
