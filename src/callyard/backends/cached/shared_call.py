"""A cached call on its way, and the call's side of the conversation with the backend.

    joined ------> submitted -------> ended
    futures join   the backend has    once, by the first of these: the call has ended, is answered from
    and leave      given a future     the cache, has failed, or the last of the futures was cancelled

The meaning of the key is fixed at `submit`: the arguments are packed then, and the function's part of the key is made
just before. If futures among the arguments are not done, the rest follows after their ends (`admit`). After an
exception in the middle of an end, the end is repeated without harm.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ...cache.claims import ClaimOwner
from ...cache.lookup import CachedResult, look_up, tell
from ...cache.messages import KeyInputs, RunDeclined, RunReport, RunRequest
from ...cache.run_call import CachedRun, begin
from ...dependencies.replace_futures import replace_futures
from ...errors import CacheError, CallyardError
from ...events.recorder import Recorder
from ...futures import Future, when_ended
from ...hashing.call_key import CallKey, FunctionPart, Reach, call_key, function_part, identity_of
from ...hashing.sources import pack, source_of
from ...jobs.batch import KeyRecipe
from ...serialize import definition_identity
from ...serialize.function_registry import resend_by_value
from ...status.ended_calls import EndedCalls
from ...utils.locks import under
from ...utils.paths import expand
from ...utils.threads import TaskThread
from ...version import VERSION
from ..base import Backend
from .cached_future import Arguments, CachedFuture, CallName, PartialKey
from .kept_failures import is_end_of_process, is_inherited, keep_lost_call
from .pending import CallId, PendingCall, PendingCalls
from .settings import CallSettings

_log = logging.getLogger("callyard")


@dataclass(frozen=True)
class ExecutorContext:  # The common parts of the cached calls of one executor.
    """What the cached calls of one executor have in common."""

    inner: Backend  # the backend that runs the calls
    pending: PendingCalls
    tasks: TaskThread  # for slow steps: looking at files, and waiting for calls of other processes
    sends_copies: bool  # arguments are copied at `submit`, and workers see the directory, too
    elsewhere: bool  # calls run on another computer, beside a cache of its own; this process stores their results here
    code_only: bool  # an initializer may change data, so only code is compared
    recorder: Recorder | None = None
    fresh: set[CallId] = field(default_factory=set)  # results made again by this executor
    ended_calls: EndedCalls = field(default_factory=EndedCalls)  # those that did not end in the inner backend


class SharedCall(PendingCall):
    """One call for all futures with the same key.

    A call is `held` if this process puts the result together (the list of several ranks), and stores the list.
    """

    def __init__(self, context: ExecutorContext, fn: Callable[..., Any], settings: CallSettings) -> None:
        super().__init__(context.pending, settings.cache.path, settings.own_key)
        self._context, self.fn, self.settings = context, fn, settings
        self.name = getattr(fn, "__name__", None) or type(fn).__name__
        alone = context.inner.detached or context.elsewhere  # the runner puts the results of ranks together
        self.held = settings.several_ranks and settings.cache.mode != "read-only" and not alone
        self._around = settings.context
        self._identity = ""
        self.arguments: Arguments | None = None  # kept if this process may have to store the result
        self._ignores_file = False  # a file that can be neither used nor moved away
        self._part: FunctionPart | None = None  # None if the user's own key is the whole key
        self._call: CallKey | None = None  # until the request is made, because it holds the arguments
        self._requested: RunRequest | None = None
        self._report: RunReport | None = None
        self._run: CachedRun | None = None  # the claim, if this process has it

    def prepare(self, args: tuple[Any, ...], kwargs: Any) -> None:
        """Make the key, or the part that needs no futures; raise PendingFuture in the second case."""
        self._part = function_part(self.fn, self._context.code_only)
        if (self._context.inner.detached or self._context.elsewhere) and self.settings.own_key is None:
            self._identity = identity_of(self.fn, args, kwargs, self._around, self._part)
        self._set_key(call_key(self.fn, args, kwargs, self._around, self._part))

    def take(self, name: CallName, args: tuple[Any, ...], kwargs: Any) -> None:
        """Take the names made by the submitter, in the place of `prepare`: the code of the key is the code sent.

        Raises:
            PendingFuture: the key depends on results to come, here too.
        """
        self._identity = name.identity
        if name.recipe is not None:
            self._part, self._around = name.recipe.part, name.recipe.around
        if name.key:
            self.key, self.has_key = name.key, True
        else:
            self._set_key(call_key(self.fn, args, kwargs, self._around, self._part))

    def _set_key(self, call: CallKey) -> None:
        self._call = call
        self.key = self.settings.own_key or call.hex
        self.has_key = True

    def look_up(self) -> CachedResult | None:
        """Return the result in the cache; None if there is none, or none that may answer this call."""
        cache = self.settings.cache
        if cache.mode == "refresh" and self.id not in self._context.fresh:
            return None
        found, self._ignores_file = look_up(cache._directory, self.key)
        return None if found is None or (found.failed and not cache.failures) else found

    def submit(self, args: tuple[Any, ...], kwargs: Any) -> None:
        """Give the call to its backend."""
        # Before the call: a task may come at the interpreter's end, when some Pythons start no thread any more.
        self._context.tasks.prepare()
        if self.held or not self._context.sends_copies:  # workers may see neither the directory nor the whole result
            self.arguments = args, dict(kwargs)
        self._submitted(self._context.inner.submit(self.fn, args, kwargs, self.settings.resources, self))

    def _submitted(self, inner: Future[Any], again: bool = False) -> None:
        """Take the backend's future, unless the call has ended or was sent again before that future was known here."""
        late, old = self._context.pending.set_inner(self, inner, again)
        if late:
            inner.cancel()
            return
        if self._context.recorder is not None:
            for future in tuple(self._futures):
                self._context.recorder.stands_for(inner, future)
        # Outside of the lock: the future may have ended, and then this call ends at once.
        when_ended(inner, self._inner_ended)
        if old is not None:
            old.cancel()

    # -- for the backend -------------------------------------------------------------------------------

    def identity(self) -> str:
        return self._identity or self.key

    def partial_key(self) -> PartialKey:
        known = self._call or self._part
        imported = frozenset(reference[0] for reference in known.references) if known is not None else frozenset()
        reach = Reach() if known is None else known.reach
        part = None if self._part is None else self._part.for_key()
        recipe = None if self.has_key else KeyRecipe(part, self._around)
        return PartialKey(self.identity(), imported, reach, recipe, self.key)

    def order(self) -> RunRequest | None:
        return None if self.settings.cache.mode == "read-only" else self._request().replace(check_only=self.held)

    def _request(self) -> RunRequest:
        if self._requested is None:
            # From here on the arguments inside `_call` can be freed.
            self._requested, self._call = self._make_request(), None
        known, inode = self._requested, self._inode()
        if known.inode != inode or (self._ignores_file and not known.afresh):
            self._requested = known.replace(inode=inode, afresh=known.afresh or self._ignores_file)
        return self._requested

    def _inode(self) -> int:
        """Return the inode of the directory; 0 without a directory, which no worker finds and this process reports."""
        try:
            return self.settings.cache._directory.inode()
        except (OSError, CacheError):
            return 0

    def _make_request(self) -> RunRequest:
        call, cache = self._call, self.settings.cache
        part = self._part
        references = part.references if call is None and part is not None else ()
        return RunRequest(
            directory=cache.path,
            inode=self._inode(),
            trust=cache.trust,
            key=self.key,
            name=self.name,
            afresh=cache.mode == "refresh",
            failures=cache.failures,
            references=references if call is None else call.references,
            code_only=self._context.code_only,
            source=source_of(self.fn),
            meant=self._meant(),
            facts=self._facts(),
        )

    def _facts(self) -> dict[str, Any]:
        """Return what is stored beside the values, for people."""
        call, part, asked = self._call, self._part, self.settings.asked
        facts = {"ingredients": {} if call is None else call.ingredients(), "resources": asked}
        sources = "" if part is None else pack(part.sources, source_of(self.fn))
        more = {"sources": sources} if sources else {}
        if call is not None and call.inputs:
            facts["inputs"] = dict(call.inputs)
        if "error_log_file" in asked:
            more["log"] = os.path.abspath(expand(os.fspath(asked["error_log_file"])))
        return {**facts, **more, "submitted_from": platform.node(), "callyard": VERSION}

    def _meant(self) -> KeyInputs | None:
        call = self._call
        if call is None or self.settings.own_key is not None or self._context.sends_copies:
            return None
        arguments = call.arguments_token if call.plain else None
        return KeyInputs(definition_identity.process_name, call.function_token, arguments, self._around)

    def noted(self, note: RunReport, key: str | None = None) -> None:
        if key is not None:
            self.named(key)
        self._report = note

    def admit(self, known: Callable[[], Arguments], go: Callable[[], None]) -> None:
        self._later(partial(self._admit, known, go))

    def declined(self, why: RunDeclined, again: Callable[[], None], load: Callable[[], Arguments]) -> None:
        if why.reason == "differs":
            self._later(partial(self._resend, why.modules, load))
        elif why.reason == "stored":
            self._later(partial(self._look_again, again))
        else:
            self._wait(why.where, again)

    # -- steps of the thread for tasks -----------------------------------------------------------------

    def _later(self, task: Callable[[], object]) -> None:
        self._context.tasks.submit(partial(self._or_fail, task))

    def _or_fail(self, task: Callable[[], object]) -> bool:
        """Return the result of a task. Any error ends the call, because otherwise its users might wait for ever."""
        if self.ended:
            return True
        try:
            return bool(task())
        except BaseException as error:
            self.fail(error)
            return True

    def _admit(self, known: Callable[[], Arguments], go: Callable[[], None]) -> None:
        """Make the key of a call after the ends of its inputs; answer the call from the cache, or start it."""
        if not self.has_key:
            args, kwargs = known()
            self._set_key(call_key(self.fn, args, kwargs, self._around, self._part))
            if self._context.pending.merge(self):
                self._drop_inner()
                return
        found = self.look_up()
        if found is not None:
            self._answer(found)
        elif self._may_begin(go):
            go()

    def _may_begin(self, go: Callable[[], None]) -> bool:
        """Claim a held call in this process; return False if it must not start now."""
        if not self.held or self._run is not None:
            return True
        begun = begin(self._request())
        if isinstance(begun, RunDeclined):
            self.declined(begun, partial(self.admit, _nothing, go), _nothing)
            return False
        # The call may have ended during the claim: an end releases only a known claim.
        if not under(self._context.pending.lock, self._holds, begun):
            begun.release()
            return False
        return True

    def _holds(self, run: CachedRun) -> bool:
        self._run = run
        return not self.ended

    def _look_again(self, again: Callable[[], None]) -> None:
        found = self.look_up()
        if found is not None:
            self._answer(found)
            return
        # Removed meanwhile, or not shown yet by a network file system. Ask later, and not in a busy circle.
        self._ask_later(partial(self._then, again))

    def _then(self, again: Callable[[], None]) -> bool:
        again()
        return True

    def _wait(self, where: str, again: Callable[[], None]) -> None:
        """Wait until the process with the claim has stored a result, has released the claim, or is gone."""
        self.where = where
        self._ask_later(partial(self._ask, again))
        _log.info("%r is run by %s; waiting for its result", self.name, where)

    def _ask_later(self, question: Callable[[], bool]) -> None:
        self._context.tasks.poll(partial(self._or_fail, question))

    def _ask(self, again: Callable[[], None]) -> bool:
        cache = self.settings.cache
        if cache.mode == "refresh" or not cache._directory.exists(self.key):
            holder = self._holder()
            if holder is not None and holder.state() != "gone":
                self.where = holder.awaited(self.key, cache.path)
                return False
        self.where = ""
        found = self.look_up()
        if found is None:
            again()
        else:
            self._answer(found)
        return True

    def _holder(self) -> ClaimOwner | None:
        try:
            return self.settings.cache._claims.holder(self.key)
        except OSError as error:
            tell(f"{self.name!r} runs, as nobody can tell who has claimed it: {error.strerror}")
            return None

    def _resend(self, modules: tuple[str, ...], load: Callable[[], Arguments]) -> None:
        """Send the code itself: the worker imports another version under its name."""
        resend_by_value(modules)
        args, kwargs = load()
        part = function_part(self.fn, self._context.code_only)  # the code imported there has changed
        if self._part is None or part.token != self._part.token:
            raise CallyardError(
                f"{self.name!r} was not run: its code was changed after it was submitted, in this process and where "
                f"its worker finds {', '.join(modules)}; submit it again"
            )
        with contextlib.suppress(CacheError):  # an argument without a meaning outside of its own call
            part = replace(part, references=call_key(self.fn, args, kwargs, self._around, part).references)
        self._part, self._requested = part, self._request().replace(references=part.references)
        self._submitted(self._context.inner.submit(self.fn, args, kwargs, self.settings.resources, self), again=True)

    # -- the end ---------------------------------------------------------------------------------------

    def _ended_apart(self) -> EndedCalls:
        """Return the accounts for an end that is not the inner backend's, whose future is cancelled because of it."""
        accounts, inner = self._context.ended_calls, self.inner
        if inner is not None and not inner.done() and not inner.running():
            accounts.note(self.name, "cancelled", -1)
        return accounts

    def fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # meant for the interrupted thread
            error = CallyardError(f"{self.name!r}: {error!r} interrupted its submission; submit it again")
        self._ended_apart().note_failure(self.name, error)
        self._finish(lambda future: future.answered(None, None, error, failed=True))

    def _answer(self, found: CachedResult) -> None:
        self._ended_apart().note(self.name, "cached")
        self._hand_out(found)

    def _hand_out(self, found: CachedResult) -> None:
        self._finish(lambda future: self._stored_in(future).answered(found, found.token, failed=found.failed))

    def _stored_in(self, future: CachedFuture) -> CachedFuture:
        future.stored = self.id
        return future

    def _inner_ended(self, inner: Future[Any]) -> None:
        if inner is not self.inner:  # sent again, or answered from elsewhere
            return
        note = self._report
        # A task, because this may be the I/O thread of the backend, and storing may take long.
        if not inner.cancelled() and self._stores_here(inner, note):
            self._later(partial(self._store_here, inner))
        elif note is not None and note.files:  # to be looked at, which may take long
            self._later(partial(self._end_like, inner, note))
        else:
            self._end_like(inner, note)

    def _stores_here(self, inner: Future[Any], note: RunReport | None) -> bool:
        """Return True if this process has to store the end of the call, or to look whether it has to."""
        if self.settings.cache.mode == "read-only":
            return False
        if note is not None:
            return not note.stored and note.problem is None
        if self._run is not None or not inner.failed():
            return self._run is not None
        # A worker tells of each failure, unless it is gone. A job stores its failure and tells nothing.
        begun = self._requested is not None or self._context.elsewhere
        told = self._context.inner.detached and not self._context.elsewhere and inner.packed_failure() is not None
        return begun and not told and self.has_key

    def _store_here(self, inner: Future[Any]) -> None:
        """Store the result in this process: the worker does not see the directory, has only a part, or is gone."""
        note, directory = self._report or RunReport(), self.settings.cache._directory
        facts = dict(note.run or {})
        run = self._run or CachedRun(self._request(), directory, None, facts.pop("began", None))
        seconds = facts.pop("seconds", None) or (run.age() if inner.usage is None else inner.usage.wall)
        if inner.usage is not None:
            facts["usage"] = inner.usage.known()
        if not inner.failed():
            note = run.finished(inner.result(), seconds, self._arguments_with_results, None, facts)
        else:
            error: Any = inner.peek_exception()
            if is_end_of_process(error) and note.run is None:
                run.release()
                keep_lost_call(self._request(), directory, error, self._arguments_with_results, inner.usage)
            elif self._run is not None or self._is_kept_here(error):
                run.failed(error, str(error.__cause__ or error), seconds, self._arguments_with_results, facts)
        self._end_like(inner, note)

    def _is_kept_here(self, error: BaseException) -> bool:
        """Return True for a failure that no process of the call has stored, and that is the call's own."""
        context = self._context
        if self._report is not None or not context.elsewhere:  # another library's executor stores where it runs
            return self._report is not None or (context.sends_copies and not context.inner.detached)
        return not is_inherited(error, self.name)

    def _arguments_with_results(self) -> Arguments:
        kept = getattr(self.inner, "sent_arguments", None)  # by a backend elsewhere
        if kept is not None:
            return kept()  # type: ignore[no-any-return]
        arguments: Arguments = replace_futures(self.arguments or ((), {}), lambda future: future.result())
        return arguments

    def _end_like(self, inner: Future[Any], note: RunReport | None) -> None:
        if note is not None and note.problem is not None:
            tell(f"the result of {self.name!r} was not stored in {self.settings.cache.path}: {note.problem}")
        token = None if note is None else note.token
        stored = note is not None and note.stored and (not inner.failed() or self.settings.cache.failures)
        if stored and self.settings.cache.mode == "refresh":
            self._context.fresh.add(self.id)  # made again now, so it answers further calls
        # The stored result names the kept files, not those that the function has written.
        found = self.look_up() if note is not None and note.files else None
        if found is not None:
            self._hand_out(found)
            return
        self._finish(lambda future: _end_like(self._stored_in(future) if stored else future, inner, token))

    def _finish(self, end: Callable[[CachedFuture], object]) -> None:
        """End the futures, the only way to an end; let go of the claim and of the backend's future."""
        futures = self._context.pending.end(self)
        if not futures and self.inner is not None:  # all have left: no user can ask for its failure
            self.inner.asked()
        interruptions = [error for future in futures if (error := _interruption(end, future)) is not None]
        self.drop_futures()
        if self._run is not None:
            self._run.release()
        self._drop_inner()
        if interruptions and threading.current_thread() is threading.main_thread():  # Ctrl-C
            raise interruptions[0]

    def _drop_inner(self) -> None:
        """Cancel the backend's future. Last: after an interruption, the end of that future repeats this."""
        inner = self.inner
        if inner is not None:
            inner.cancel()
            let_go = getattr(inner, "let_go", None)  # of a backend elsewhere, which keeps the data of the call
            if let_go is not None:
                let_go()
        self.arguments = self._call = None
        self._context.pending.discard(self)
        self.inner = None


def _nothing() -> Arguments:
    """Return no arguments, for a call of several ranks that has not been started and is not sent again."""
    return (), {}


def _interruption(end: Callable[[CachedFuture], object], future: CachedFuture) -> BaseException | None:
    """End one future; return the interruption, if any. A callback that exits must not keep the others from ending."""
    try:
        end(future)
    except BaseException as error:
        _log.debug("a callback of %r ended in a way that callbacks cannot", future, exc_info=True)
        end(future)
        return error
    return None


def _end_like(future: CachedFuture, inner: Future[Any], token: bytes | None) -> None:
    if inner.cancelled():
        future.left()
    elif inner.failed():
        future.fails_because_of(inner)
        if future.home is not None and future.home.writable:
            future.failure_is_kept(future.home.path)
        packed = inner.packed_failure()
        future.answered(packed, None, None if packed is not None else inner.peek_exception(), failed=True)
    else:
        packed = inner._packed
        future.answered(packed, token, None if packed is not None else inner.result())
