"""The steps of a process that runs a cached call: compare the code with the key, claim, run, store.

Their order keeps a call from running twice. Claim first, then look once more for a result, because the owner of the
claim before may have stored one in between. Store first, then release the claim.
"""

from __future__ import annotations

import os
import sys
import time

from ..errors import CacheError, CallyardError
from ..utils.lite_stdlib import Any, Callable, Mapping, suppress
from .claims import Claim, Claims
from .directory import CacheDirectory
from .messages import Reference, RunDeclined, RunOutcome, RunReport, RunRequest, arguments_in

Arguments = Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]
RunFacts = Mapping[str, Any]  # what is known of one run: "log", "usage", "host", "pid"
_NO_FACTS: RunFacts = {}


def _log() -> Any:
    import logging  # here, because a call that goes well logs nothing

    return logging.getLogger("callyard")


_with_output: set[str] = set()  # directories that have a subdirectory for output


class CachedRun:
    """A call that this process has claimed and runs."""

    def __init__(
        self,
        request: RunRequest,
        directory: CacheDirectory | None,
        claim: Claim | None,
        started: float | None = None,
    ) -> None:
        self._request, self._directory, self._claim = request, directory, claim
        self._started = time.time() if started is None else started  # s since 1970

    def age(self) -> float:
        """Return the time since the begin of the run (s)."""
        return max(0.0, time.time() - self._started)

    def log(self) -> str | None:
        """Return the path of the call's output while it runs; None where it is not kept."""
        directory = self._directory
        if directory is None or self._claim is None or self._request.check_only:
            return None
        if directory.path not in _with_output:
            try:
                directory.subdirectory("output")
            except (OSError, CacheError):  # the disk is full, or write-protected
                return None
            _with_output.add(directory.path)
        return directory.log(self._request.key)

    def finished(
        self,
        value: Any,
        seconds: float,
        arguments: Arguments,
        pickled: bytes | None = None,
        facts: RunFacts = _NO_FACTS,
    ) -> RunReport:
        """Store the result and release the claim. An error in storing is reported, and does not fail the call."""
        if self._request.check_only:
            return RunReport()
        token = result_token(self._request.key, value)
        if self._directory is None:
            return RunReport(token)
        try:
            files = self._store(self._directory, "finished", token.hex(), value, seconds, arguments(), pickled, facts)
            self._directory.remove_failure(self._request.key)
        except Exception as error:
            return RunReport(token, f"{type(error).__name__}: {error}")
        finally:
            self.release()
        return RunReport(token, stored=True, files=files)

    def failed(
        self, error: BaseException, text: str, seconds: float, arguments: Arguments, facts: RunFacts = _NO_FACTS
    ) -> RunReport:
        """Store the failure and release the claim; `text` is the traceback."""
        try:
            return self.keep_failure(error, text, seconds, arguments, facts)
        finally:
            self.release()

    def keep_failure(
        self, error: BaseException, text: str, seconds: float, arguments: Arguments, facts: RunFacts = _NO_FACTS
    ) -> RunReport:
        """Store the failure.

        It answers later calls only if the request says so, and the function raised it, not a limit or the transport.
        All others are kept to be looked at.
        """
        directory = self._directory
        if self._request.check_only or directory is None:
            return RunReport()
        answers = (
            self._request.failures
            and isinstance(error, Exception)
            and not isinstance(error, (CallyardError, MemoryError))
        )
        try:
            self._store_failure(directory, answers, error, text, seconds, arguments, facts)
        except (Exception, SystemExit) as problem:
            words = f"{type(problem).__name__}: {problem}"
            _log().warning("the failure of %r was not stored in %s: %s", self._request.name, directory.path, words)
            return RunReport(problem=words)
        return RunReport(stored=True)

    def release(self) -> None:
        if self._claim is not None:
            # On an error the claim ends with this process, because an owner that is gone holds no claim.
            with suppress(OSError):
                self._claim.release()

    def _store_failure(
        self,
        directory: CacheDirectory,
        answers: bool,
        error: BaseException,
        text: str,
        seconds: float,
        arguments: Arguments,
        facts: RunFacts,
    ) -> None:
        from ..utils.shown_text import kept_traceback  # here and below, because most calls do not fail
        from .failures import describe, sweep_once

        told = describe(error)
        facts = {**facts, "failure": {**told, "traceback": kept_traceback(text)}}
        try:
            given = arguments()
        except (Exception, SystemExit):  # from the user's code: perhaps the reason of the failure
            given = (), {}
        try:
            place = directory if answers else directory.failures
            self._store(place, "failed", "", (error, text), seconds, given, None, facts)
        except OSError:
            raise
        except (Exception, SystemExit):  # an exception that cannot be pickled
            words = f"the call raised {told['error']}, which cannot be pickled itself: {told['message']}"
            self._store(directory.failures, "failed", "", (CallyardError(words), text), seconds, given, None, facts)
        sweep_once(directory)

    def _store(
        self,
        directory: CacheDirectory,
        state: str,
        token: str,
        output: Any,
        seconds: float,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        pickled: bytes | None,
        facts: RunFacts,
    ) -> bool:
        """Publish the record; return True if its result names files."""
        from .format.record_writer import Record, write  # here, because not every process that loads this stores

        request = self._request
        args, kwargs = arguments
        made = Record(
            key=request.key, name=request.name, state=state, token=token, output=output, args=args, kwargs=kwargs,
            source=request.source, pickled=pickled, created=self._started, seconds=seconds,
            facts={
                **request.facts,
                **({"job": request.job_id} if request.job_id else {}),
                "host": os.uname().nodename,
                "pid": os.getpid(),
                "python": sys.version.split()[0],
                **facts,
            },
        )  # fmt: skip
        files = _KeptFiles(request, directory, state)
        directory.publish(request.key, lambda fd: write(fd, made, files.keep_file), sync=request.job_id is not None)
        return files.any


class _KeptFiles:
    """The files that one result names, kept beside it; loaded for the first of them."""

    def __init__(self, request: RunRequest, directory: CacheDirectory, state: str) -> None:
        self._directory, self._sync = directory, request.job_id is not None
        self.keep_file = self._keep if request.keeps_files and state == "finished" else None
        self.any = False

    def _keep(self, file: Any) -> tuple[str, str]:
        from .kept_files import KeptFiles  # here, because few results name files

        self.any = True
        return KeptFiles(self._directory).keep(file, self._sync)


def begin(request: RunRequest, opened: CacheDirectory | None = None) -> CachedRun | RunDeclined:
    """Claim the call, or return the reason for not running it. `opened`: perhaps the directory of the request."""
    differing = tuple(dict.fromkeys(reference[0] for reference in request.references if not _is(reference, request)))
    if differing:
        return RunDeclined("differs", modules=differing)
    if request.check_only:
        return CachedRun(request, None, None)
    directory = _directory(request, opened)
    if directory is None:
        return CachedRun(request, None, None)
    if _stored(request, directory):
        return RunDeclined("stored")
    try:
        arguments = arguments_in(request.facts.get("ingredients", {}))
        claim = Claims(directory).take(request.key, request.name, job_id=request.job_id, arguments=arguments)
    except OSError as error:  # a full or write-protected disk must not fail the call
        _log().info("%r runs without a claim, as none can be made in %s: %s", request.name, directory.path, error)
        return CachedRun(request, directory, None)
    if not isinstance(claim, Claim):
        return RunDeclined("claimed", where=claim.awaited(request.key, directory.path))
    run = CachedRun(request, directory, claim)
    if _stored(request, directory):
        run.release()
        return RunDeclined("stored")
    return run


def _stored(request: RunRequest, directory: CacheDirectory) -> bool:
    """Return True if a result is stored, even an unreadable one: the submitter handles that."""
    if request.afresh or not directory.exists(request.key):
        return False
    return request.failures or not _is_failure(request, directory)


def _is_failure(request: RunRequest, directory: CacheDirectory) -> bool:
    from .format.record_file import FAILED, read_head  # here, because most calls have no result yet

    try:
        descriptor = directory.open_record(request.key, is_use=False)
        try:
            return read_head(descriptor).state == FAILED
        finally:
            os.close(descriptor)
    except Exception:
        return False


_directories: dict[tuple[str, int], CacheDirectory] = {}


def _directory(request: RunRequest, opened: CacheDirectory | None) -> CacheDirectory | None:
    """Return the directory of the request, checked once; None if this machine has another one, or none, at its path."""
    location = request.directory, request.inode
    if location not in _directories:
        try:
            if os.stat(request.directory).st_ino != request.inode:
                return None
            if opened is None or (opened.path, opened.trust) != (request.directory, request.trust):
                opened = CacheDirectory.open(request.directory, trust=request.trust)
            _directories[location] = opened
        except (OSError, CacheError):
            return None
    return _directories[location]


_same: set[tuple[str, str, bytes, bool]] = set()  # references found to be the keyed code


def _is(wanted: Reference, request: RunRequest) -> bool:
    """Return True if this process imports the keyed code. Checked once, because calls may change modules later."""
    module, name, token, places = wanted
    reference = module, name, token, request.code_only
    if reference in _same:
        return True
    if places is not None:
        from ..hashing.imported_code import is_imported  # here, because many calls refer to no code of the user's

        if is_imported(places):
            _same.add(reference)
            return True
    from ..hashing.definition_tokens import has_metadata, token_at  # here, because this loads much

    try:
        same = token_at(module, name, request.code_only, with_metadata=has_metadata(token)) == token
    except Exception:  # the import fails, or the object has no token
        return False
    if same:
        _same.add(reference)
    return same


def result_token(key: str, value: Any) -> bytes:
    """Return the token of a result as an argument of calls: of the value, or else of the key of the call."""
    from ..hashing.digest import ATOMS, text

    atom = ATOMS.get(type(value))
    if atom is not None:
        return atom(value)
    from ..hashing.values import value_token  # here, because this import is slow

    try:
        return value_token(value)
    except Exception:  # a value without a token
        return text(b"=", key)


# -- through an executor of another library ----------------------------------------------------------------


def run(
    request: RunRequest,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    run_args: tuple[Any, ...],
    run_kwargs: dict[str, Any],
) -> RunOutcome:
    """Run the call, if it is to be run here, with `run_args` and `run_kwargs`; `args` and `kwargs` are the keyed ones.

    They differ where the call has raised `Again`.
    """
    begun = begin(request)
    if isinstance(begun, RunDeclined):
        return RunOutcome(begun)
    if not _is_still_meant(request, fn, args, kwargs):
        begun.release()
        return RunOutcome(
            RunReport(problem="its arguments or its code were changed before it began"), fn(*run_args, **run_kwargs)
        )
    again = _kept(args, kwargs)
    started = time.perf_counter()
    try:
        value = fn(*run_args, **run_kwargs)
    except BaseException as error:
        import traceback

        trace = error.__traceback__ and error.__traceback__.tb_next  # without this function
        text = "".join(traceback.format_exception(type(error), error, trace))
        begun.failed(error, text, time.perf_counter() - started, again)
        raise
    return RunOutcome(begun.finished(value, time.perf_counter() - started, again), value)


def _is_still_meant(request: RunRequest, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return True if the call still has its key.

    Threads share the objects of the call, and pools of processes pickle late.
    """
    meant = request.meant
    if meant is None:
        return True
    from ..hashing.call_key import FunctionPart, call_key
    from ..serialize import definition_identity

    try:
        if meant.process == definition_identity.process_name:
            return call_key(fn, args, kwargs, meant.around).hex == request.key
        call = call_key(fn, args, kwargs, meant.around, FunctionPart(meant.function, (), {}, {}))
        return meant.arguments is None or not call.plain or call.arguments_token == meant.arguments
    except Exception:  # a value without a token, so nothing can be compared
        return True


def _kept(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Return a function for copies of the arguments in their present state, because the call may change them."""
    import pickle

    from ..serialize.function_registry import dumps

    try:
        packed = dumps((args, kwargs))
    except Exception:  # not picklable, which a pool of threads does not need
        return lambda: (args, kwargs)
    return lambda: pickle.loads(packed)
