"""One call of a job, in a process of its own: inputs, key, claim, run and result.

A thousand such processes may begin at once, and most calls are short. So only modules for every call are loaded at the
start; inputs, options, initializers and failures load theirs when needed.
"""

from __future__ import annotations

import _pickle as pickle
import os
import sys
import time

from ..cache.claims import Claims
from ..cache.directory import CacheDirectory
from ..cache.format import record_writer  # noqa: F401  # now: all calls of the job share it, whatever they change
from ..cache.messages import RunDeclined, RunRequest
from ..cache.run_call import CachedRun, begin
from ..errors import CacheError, CallyardError, OutOfMemory
from ..hashing import digest  # noqa: F401  # likewise
from ..jobs.batch import CallFile, CallOutcome, CallStart, KeyRecipe, StoredPickle
from ..jobs.call_files import CallFiles
from ..system.processes import leave_quickly
from ..utils.lite_stdlib import TYPE_CHECKING, Any, Callable, NoReturn, Sequence, suppress
from .current_call import Again, running
from .job_log import settle
from .job_outcome import UNWRITTEN, InputFailed, InputMoved, RankLost, failed, moves_on, printed, who, write_down
from .process_state import ProcessState, end_forks
from .usage_meter import UsageMeter

if TYPE_CHECKING:
    from ..events.usage import Usage
    from .job_inputs import StoredInput

_RECONSTRUCT = b"callyard.serialize.reconstruct"  # the name of the module in pickles
_LOG = 1 << 20  # bytes of the log in the record of the result
_CHANGED = (
    "was not run: the code of {} has changed since it was submitted, and the code of then could not be sent with the "
    "job, as it holds an object such as a lock, or is too much for each call; submit it again"
)


def load_for(call_file: CallFile) -> None:
    """Load the modules that functions sent by value need, or imported ones, if the call has such functions.

    The job does this before the fork, because all its calls share the modules then. An import in the child would also
    copy the memory pages of the import system.
    """
    if _RECONSTRUCT in call_file.data:
        from ..serialize import reconstruct  # noqa: F401
    if call_file.order.references:
        from ..hashing import imported_code  # noqa: F401


def make_call(folder: CallFiles, number: int, call_file: CallFile, begun: CallStart) -> NoReturn:
    """Make a call, write down its end, and end this process."""
    end: CallOutcome | None
    try:
        end = _made(folder, number, call_file, begun)
    except InputFailed as inherited:
        end = CallOutcome("failed", failure=inherited.failure, inherited=True)
    except InputMoved as moved:
        from ..jobs.spool import BatchDirectory
        from ..jobs.successor import move_after

        move_after(BatchDirectory(folder.home, folder.token), number, moved.token, moved.number)
        end = None
    except BaseException as error:
        end = failed(error, _trace(error))
    written = True
    # A failure has been written already, before the release of the claim.
    if end is not None and folder.ended(number) is None:
        written = _written(folder, number, _counted(end))
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    leave_quickly()
    os._exit(0 if written else UNWRITTEN)


def _counted(end: CallOutcome) -> CallOutcome:
    """Return the outcome with the number of attempts."""
    return end if running.attempt == 1 else end.replace(attempts=running.attempt)


def _written(folder: CallFiles, number: int, end: CallOutcome) -> bool:
    """Write down the end of the call; if that is impossible, the log perhaps takes the traceback of a failure."""
    settle()  # first: whoever reads the one looks into the other
    if write_down(folder, number, end):
        return True
    if end.failure:
        with suppress(Exception):  # a user may have put any object there
            sys.stderr.write(str(end.error()[1]))
    return False


def _made(folder: CallFiles, number: int, call_file: CallFile, begun: CallStart) -> CallOutcome | None:
    """Return the outcome of the call; None if it is going to run again."""
    inputs = _inputs_of(folder, number, call_file)
    order = call_file.order.replace(job_id=begun.job)
    if not order.key and call_file.meaning is not None:
        order = _with_key(order, call_file.meaning, *_opened(folder, number, call_file.data, inputs))
    try:
        folder.begin(number, begun.replace(key=order.key, ingredients=order.facts.get("ingredients", {})))
    except OSError as error:
        problem = CacheError(f"the call was not run, because nothing can be written to {folder.path}: {error.strerror}")
        raise _told(problem, folder, number) from error
    data, waits = call_file.data, None
    while True:
        run = begin(order, folder.home)
        if not isinstance(run, RunDeclined):
            return _ended_before(folder, number, run) or _ran(folder, number, call_file, run, order, data, inputs)
        if run.reason == "differs":  # the code found here differs from the code of the key: run the sent copy
            if call_file.apart is None:
                raise _told(CallyardError(_CHANGED.format(", ".join(run.modules))), folder, number)
            order, data = order.replace(references=()), call_file.apart
            continue
        claims = Claims(CacheDirectory.open(order.directory, trust=order.trust))
        ended = _end_own_claim(claims, order)
        if run.reason == "stored":
            return CallOutcome("finished", order.key, order.directory)
        if ended:
            continue
        from .job_inputs import pauses

        _say_who_has_it(folder, number, claims, order)
        waits = waits or pauses()
        time.sleep(waits.next_pause())


def _inputs_of(folder: CallFiles, number: int, call_file: CallFile) -> Sequence[StoredInput]:
    if not call_file.inputs:
        return ()
    from .job_inputs import inputs_of

    return inputs_of(folder, call_file, number)


def _ended_before(folder: CallFiles, number: int, run: CachedRun) -> CallOutcome | None:
    """Return the outcome from another job of the same batch, submitted twice by a killed process.

    A batch that was removed meanwhile counts as withdrawn.
    """
    end = folder.ended(number)
    if end is not None or not os.path.exists(folder.path):
        run.release()
        return end or CallOutcome("withdrawn")
    return None


def _say_who_has_it(folder: CallFiles, number: int, claims: Claims, order: RunRequest) -> None:
    """Write down the job with the claim, so that waiting processes can ask the scheduler about this job."""
    holder = claims.holder(order.key)
    if holder is not None and holder.job_id:
        folder.wait_for(number, holder.job_id)


def _end_own_claim(claims: Claims, order: RunRequest) -> bool:
    """Release the claim of this same job from before it was started again on another node; return if there was one.

    Only a declined call can meet it: this process claims nothing before `begin` has gone well.
    """
    holder = claims.holder(order.key)
    return holder is not None and holder.job_id == order.job_id and claims.force(order.key)


def _with_key(order: RunRequest, meaning: KeyRecipe, fn: Any, args: Any, kwargs: Any) -> RunRequest:
    """Return the order with a key that depends on the inputs; their tokens suffice for the key."""
    import warnings

    from ..hashing.call_key import call_key

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the submitting process has warned already
        call = call_key(fn, args, kwargs, meaning.around, meaning.part)
    facts = {**order.facts, "ingredients": call.ingredients(), "inputs": dict(call.inputs)}
    return order.replace(key=call.hex, references=call.references, facts=facts)


# -- the run -----------------------------------------------------------------------------------------------


def _ran(
    folder: CallFiles,
    number: int,
    call_file: CallFile,
    run: CachedRun,
    order: RunRequest,
    data: Sequence[StoredPickle],
    inputs: Sequence[StoredInput],
) -> CallOutcome | None:
    def load() -> Any:
        return _opened(folder, number, data, [given.result() for given in inputs])

    def arguments() -> Any:
        """Return the arguments to store with the result: none where no other process looks for them."""
        return ((), {}) if call_file.private else load()[1:]

    def start() -> Any:
        """Return the function and the arguments of this attempt."""
        function, *first = load()
        return (function, *(pickle.loads(kept.arguments) if kept is not None and kept.arguments else first))

    kept = folder.again(number) if running.attempt > 1 else None
    state, pid = ProcessState(), os.getpid()
    meter = UsageMeter(call_file.size)
    started = time.perf_counter()
    try:
        running.begin_in_job(call_file.options, order.key, order.name, number if len(folder.batch.calls) > 1 else None)
        value = _value_within(folder, number, call_file, data is not call_file.data, start)
        running.hand_over()
    except BaseException as error:
        running.hand_over()
        end_forks(pid)
        state.restore()
        meter.stop()  # only now: the call may have left no room for it
        seconds = time.perf_counter() - started
        return _raised(folder, number, call_file, run, order.key, error, seconds, arguments, meter.usage())
    end_forks(pid)
    seconds = time.perf_counter() - started
    state.restore()
    meter.stop()
    return _stored(folder, number, run, order, value, seconds, arguments, meter.usage())


def _raised(
    folder: CallFiles,
    number: int,
    call_file: CallFile,
    run: CachedRun,
    key: str,
    error: BaseException,
    seconds: float,
    arguments: Callable[[], Any],
    usage: Usage,
) -> CallOutcome | None:
    """Return the outcome of a call that has raised an exception; None if it asks for another attempt."""
    if isinstance(error, Again):
        return _again(folder, number, run, error)
    if isinstance(error, RankLost):
        if not running.ended_from_outside and _makes_up(folder, number):
            run.release()  # last: its next owner looks for the next attempt first
            return None
        error = error.error
    text = _trace(error)
    if running.ended_from_outside:  # the process of the job, or the scheduler, knows the reason
        run.release()
        running.die("" if type(error) is SystemExit else text)
    named = _named(error, folder, number, call_file)
    if isinstance(named, OutOfMemory) and _moves_on(folder, number, error, named):
        run.release()
        return None
    end = _counted(failed(named, text, key, usage))
    if not call_file.private:  # nobody looks into a directory that goes with its executor
        # Before the outcome, as who waits for that may look into the cache at once.
        run.keep_failure(named, text, seconds, arguments, {"log": _log(folder, number), "usage": usage.known()})
    settle()
    write_down(folder, number, end)  # before the release of the claim: its next owner looks for an outcome first
    run.release()
    return end


def _moves_on(folder: CallFiles, number: int, error: BaseException, named: BaseException) -> bool:
    from traceback import clear_frames

    clear_frames(error.__traceback__)  # what the function held there may be all the memory that the call may have
    return moves_on(folder, number, named)


def _stored(
    folder: CallFiles,
    number: int,
    run: CachedRun,
    order: RunRequest,
    value: Any,
    seconds: float,
    arguments: Callable[[], Any],
    usage: Usage,
) -> CallOutcome:
    order.facts.setdefault("log", _log(folder, number))
    note = run.finished(value, seconds, arguments, None, {"usage": usage.known()})
    if note.problem is not None:
        raise _told(_why_not_stored(value, order, note.problem), folder, number)
    return CallOutcome("finished", order.key, order.directory, usage=usage)


def _again(folder: CallFiles, number: int, run: CachedRun, error: Again) -> CallOutcome | None:
    from .job_again import keep_arguments

    end = None
    try:
        keep_arguments(folder, number, error, running.attempt)
    except CallyardError as problem:
        end = _counted(failed(_told(problem, folder, number)))
        write_down(folder, number, end)
    run.release()  # last: its next owner looks for the arguments, or for an outcome, first
    return end


def _makes_up(folder: CallFiles, number: int) -> bool:
    """Return True if a call that has lost a rank runs again, as its `restart_limit` says."""
    from .job_again import keep_loss

    return keep_loss(folder, number, running.attempt)


def _trace(error: BaseException) -> str:
    from .exceptions import traceback_text

    return traceback_text(error)


def _named(error: BaseException, folder: CallFiles, number: int, call_file: CallFile) -> BaseException:
    """Return OutOfMemory in the place of a MemoryError at the call's own limit, and any other error unchanged."""
    if isinstance(error, MemoryError) and call_file.memory and not isinstance(error, OutOfMemory):
        from ..system.exit_status import too_much_memory

        words = too_much_memory(who(call_file.order.name), call_file.memory)
        return OutOfMemory(words + folder.batch.tried + printed(folder, number))
    return error


def _told(error: Exception, folder: CallFiles, number: int) -> Exception:
    """Return an error of ours with the name of the call, the job and the log."""
    call = who(folder.batch.calls[number].name).removesuffix(",")
    return type(error)(f"{call}: {error}{printed(folder, number)}")


def _opened(folder: CallFiles, number: int, data: Sequence[StoredPickle], inputs: Sequence[Any]) -> Any:
    """Return function, arguments and keywords, with these inputs in the place of futures."""
    try:
        if not inputs and len(data) == 1 and not data[0].buffers:
            return pickle.loads(data[0].data)
        from .job_inputs import load_call

        return load_call(folder, data, inputs)
    except MemoryError:  # a limit of the call's own counts for its arguments, too
        raise
    except BaseException as error:
        from .exceptions import unreadable_call

        raise _told(unreadable_call(error), folder, number) from error


def _value_within(folder: CallFiles, number: int, call_file: CallFile, apart: bool, load: Callable[[], Any]) -> Any:
    """Return the value of the call, run with the directory, the limits and the error log of its options."""
    if not call_file.options:
        return _value(folder, number, call_file, apart, load)
    from .call_context import arranged

    with arranged(call_file.options):
        return _value(folder, number, call_file, apart, load)


def _value(folder: CallFiles, number: int, call_file: CallFile, apart: bool, load: Callable[[], Any]) -> Any:
    if call_file.ranks > 1:
        from .mpi_job_rank import value_of_ranks

        return value_of_ranks(folder, number, call_file, apart)
    if call_file.initializer is None:
        function, args, kwargs = load()
        return function(*args, **kwargs)
    from .initializer import Initialized

    return Initialized.load(call_file.initializer).apply(*load())


def _why_not_stored(value: Any, order: RunRequest, problem: str) -> CallyardError:
    from ..serialize.function_registry import dumps
    from .exceptions import unpicklable_result

    try:
        dumps(value)
    except Exception as error:
        return unpicklable_result(order.name, value, error)  # type: ignore[return-value]
    return CacheError(f"the result of {order.name!r} could not be stored in {order.directory}: {problem}")


def _log(folder: CallFiles, number: int) -> str:
    """Return the output of the call, or the last part of it."""
    settle()
    try:
        with open(folder.log(number), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
