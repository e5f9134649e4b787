"""One remembered call on its way: the futures on board, and for the backend that runs it the ticket.

    boards ------> takes off ------> lands
    futures join   the backend has   once, by whoever is first: the call has ended, is answered from
    and leave      given its future  the cache, has failed, or nobody is left on board

What the key stands for is fixed at `submit`: the arguments are packed then, and the function's part of the key is
made just before. If futures among the arguments are not done, the rest follows when they are (`admit`). The lock is
the front's. Under it only lists and flags change; futures end, and others' callbacks run, after it was let go.
To land may be done twice: should an exception interrupt it, it is done again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ...cache.claims import ClaimOwner
from ...cache.lookup import CachedResult, tell
from ...cache.messages import KeyInputs, RunDeclined, RunReport, RunRequest
from ...cache.run_call import CachedRun, begin
from ...dependencies.find_futures import replace_futures
from ...errors import CacheError, CallyardError
from ...futures import Future, when_ended
from ...hashing.call_key import CallKey, FunctionPart, call_key, function_part, identity_of
from ...jobs.batch import KeyRecipe
from ...serialize import object_identity
from ...serialize.function_registry import resend_by_value
from ...utils.locks import under
from ...version import VERSION
from .future import Arguments, CachedFuture
from .settings import CallSettings, source_of

if TYPE_CHECKING:
    from .backend import CachedBackend

_log = logging.getLogger("callyard")


class SharedCall:
    """See above. `held`: its result is put together in this process (the list of several ranks), and stored here."""

    def __init__(self, front: CachedBackend, fn: Callable[..., Any], place: CallSettings) -> None:
        self.front, self.fn, self.place = front, fn, place
        self.name = getattr(fn, "__name__", None) or type(fn).__name__
        self.inner: Future[Any] | None = None
        self.where = ""  # who else runs it, for people
        self.key = place.own_key or ""
        self.has_key = place.own_key is not None
        self.held = place.several_ranks and place.cache.mode != "read-only" and not front.detached
        self._identity = ""
        self.arguments: Arguments | None = None  # where this process may have to store the result
        self.landed = False
        self.ignores_file = False  # one that can be neither used nor moved away
        self._part: FunctionPart | None = None  # None with a key of the user's own that says it all
        self._call: CallKey | None = None  # until there is an order: it holds the arguments
        self._ordered: RunRequest | None = None
        self._note: RunReport | None = None
        self._run: CachedRun | None = None  # the claim, where it is this process's
        self._boarding = True
        self._sent_again = False  # so the future that the backend gave first counts no more, if it is not known yet
        self._on_board: list[CachedFuture] = []

    @property
    def place_and_key(self) -> tuple[str, str]:
        return self.place.cache.path, self.key

    def prepare(self, args: tuple[Any, ...], kwargs: Any) -> None:
        """Make the key, or that part of it which does not wait for futures; raises Pending then."""
        self._part = function_part(self.fn, self.front.code_only)
        if self.front.detached and self.place.own_key is None:
            self._identity = identity_of(self.fn, args, kwargs, self.place.around, self._part)
        self._is_called(call_key(self.fn, args, kwargs, self.place.around, self._part))

    def identity(self) -> str:
        return self._identity or self.key

    def modules(self) -> frozenset[str]:
        known = self._call or self._part
        return frozenset(module for module, _, _ in known.references) if known is not None else frozenset()

    def meaning(self) -> KeyRecipe | None:
        return None if self.has_key else KeyRecipe(self._part, self.place.around)

    def named(self, key: str) -> None:
        under(self.front.lock, self._named, key)

    def _named(self, key: str) -> None:
        self.key, self.has_key = key, True
        for future in self._on_board:
            future.known_as(key, False)

    def _is_called(self, call: CallKey) -> None:
        self._call = call
        self.key = self.place.own_key or call.hex
        self.has_key = True

    # -- the futures on board --------------------------------------------------------------------------

    def board(self, future: CachedFuture) -> bool:
        """Whether there was room; not once the call has landed, or is being cancelled."""
        return under(self.front.lock, self._board, future)

    def _board(self, future: CachedFuture) -> bool:
        if not self._boarding:
            return False
        self._on_board.append(future)
        future.joins(self)
        future.identity = self.identity()
        if self.has_key:
            future.known_as(self.key, False)
        return True

    def lands(self) -> list[CachedFuture]:
        """Those on board, who are ended by the caller. Under the lock; from now on nobody boards."""
        self._boarding, self.landed = False, True
        return self.passengers()

    def disembark(self) -> None:
        """They have been ended, or are on board of another."""
        self._on_board = []

    def passengers(self) -> list[CachedFuture]:
        return list(self._on_board)

    def takes(self, futures: list[CachedFuture]) -> bool:
        """Board all of them, or none. Under the lock."""
        return self._boarding and all([self._board(future) for future in futures])  # noqa: C419

    def leave(self, future: CachedFuture) -> bool:
        """Cancel one future; with the last one the call. Whether the future is cancelled now."""
        try:
            inner = under(self.front.lock, self._call_to_cancel, future)
            if future not in self._on_board:
                return future.left() if not self.landed else future.cancelled()
            if inner is not None:
                inner.cancel()  # its end ends the future
                under(self.front.lock, self._reopen, inner)
        except BaseException:
            if future not in self._on_board and not self.landed:  # nobody else is going to end it
                future.left()
            raise
        return future.cancelled()

    def _call_to_cancel(self, future: CachedFuture) -> Future[Any] | None:
        """The call, if nobody else is on board; otherwise let the future go, unless the call runs."""
        inner, alone = self.inner, self._on_board == [future]
        if future not in self._on_board or inner is None or (not alone and inner.running()):
            return None
        if alone:
            self._boarding = False  # nobody shall board what is being cancelled
            return inner
        self._on_board.remove(future)
        return None

    def _reopen(self, inner: Future[Any]) -> None:
        self._boarding = not (self.landed or inner.cancelled())

    def takes_off(self, inner: Future[Any], again: bool = False) -> None:
        """The backend has given this future, unless the call landed or was sent again before it was known here."""
        late, old = under(self.front.lock, self._takes, inner, again)
        if late:
            inner.cancel()
            return
        when_ended(inner, self._inner_ended)
        if old is not None:
            old.cancel()

    def _takes(self, inner: Future[Any], again: bool) -> tuple[bool, Future[Any] | None]:
        late = self.landed or (self._sent_again and not again)
        self._sent_again |= again
        old = None if late else self.inner
        if not late:
            self.inner = inner
        return late, old

    # -- for the backend -------------------------------------------------------------------------------

    def order(self) -> RunRequest | None:
        return None if self.place.cache.mode == "read-only" else self._order().replace(check_only=self.held)

    def _order(self) -> RunRequest:
        if self._ordered is None:
            self._ordered, self._call = self._make_order(), None
        known, inode = self._ordered, self._inode()
        if known.inode != inode or (self.ignores_file and not known.afresh):
            self._ordered = known.replace(inode=inode, afresh=known.afresh or self.ignores_file)
        return self._ordered

    def _inode(self) -> int:
        """The directory's; 0 where there is none any more, which no runner finds: this process says what is wrong."""
        try:
            return self.place.cache.home.inode()
        except (OSError, CacheError):
            return 0

    def _make_order(self) -> RunRequest:
        call, cache = self._call, self.place.cache
        part = self._part
        references = part.references if call is None and part is not None else ()
        facts = {"ingredients": {} if call is None else call.ingredients(), "resources": self.place.asked}
        if "error_log_file" in self.place.asked:
            facts["log"] = os.path.abspath(self.place.asked["error_log_file"])
        return RunRequest(
            directory=cache.path,
            inode=self._inode(),
            trust=cache.trust,
            key=self.key,
            name=self.name,
            afresh=cache.mode == "refresh",
            failures=cache.failures,
            references=references if call is None else call.references,
            code_only=self.front.code_only,
            source=source_of(self.fn),
            meant=self._meant(),
            facts={**facts, "submitted_from": platform.node(), "callyard": VERSION},
        )

    def _meant(self) -> KeyInputs | None:
        call = self._call
        if call is None or self.place.own_key is not None or self.front.sends_copies:
            return None
        arguments = call.arguments_token if call.plain else None
        return KeyInputs(object_identity.token, call.function_token, arguments, self.place.around)

    def noted(self, note: RunReport) -> None:
        self._note = note

    def admit(self, known: Callable[[], Arguments], go: Callable[[], None]) -> None:
        self._later(partial(self._admit, known, go))

    def declined(self, why: RunDeclined, again: Callable[[], None], load: Callable[[], Arguments]) -> None:
        if why.reason == "differs":
            self._later(partial(self._resend, why.modules, load))
        elif why.reason == "stored":
            self._later(partial(self._look_again, again))
        else:
            self._wait(why.where, again)

    # -- what is done by the thread for tasks ----------------------------------------------------------

    def _later(self, errand: Callable[[], object]) -> None:
        self.front.tasks.submit(partial(self._or_fail, errand))

    def _or_fail(self, errand: Callable[[], object]) -> bool:
        """What it says. Whatever goes wrong, nobody shall wait for ever."""
        if self.landed:
            return True
        try:
            return bool(errand())
        except BaseException as error:
            self.fail(error)
            return True

    def _admit(self, known: Callable[[], Arguments], go: Callable[[], None]) -> None:
        """The futures among the arguments are done."""
        if not self.has_key:
            args, kwargs = known()
            self._is_called(call_key(self.fn, args, kwargs, self.place.around, self._part))
            if self.front.join(self):
                self._drop_inner()
                return
        found = self.front.look_up(self)
        if found is not None:
            self._answer(found)
        elif self._may_begin(go):
            go()

    def _may_begin(self, go: Callable[[], None]) -> bool:
        """Of a call whose result is put together here: claim it here too."""
        if not self.held or self._run is not None:
            return True
        begun = begin(self._order())
        if isinstance(begun, RunDeclined):
            self.declined(begun, partial(self.admit, _nothing, go), _nothing)
            return False
        if not under(self.front.lock, self._holds, begun):
            begun.release()
            return False
        return True

    def _holds(self, run: CachedRun) -> bool:
        self._run = run
        return not self.landed

    def _look_again(self, again: Callable[[], None]) -> None:
        found = self.front.look_up(self)
        if found is not None:
            self._answer(found)
            return
        # Removed meanwhile, or a network file system does not show it yet: not at once, so not in a circle.
        self._ask_later(partial(self._then, again))

    def _then(self, again: Callable[[], None]) -> bool:
        again()
        return True

    def _wait(self, where: str, again: Callable[[], None]) -> None:
        """Until whoever has claimed the call has stored a result, has let go of it, or is provably gone."""
        self.where = where
        self._ask_later(partial(self._ask, again))
        _log.info("%r is run by %s; waiting for its result", self.name, where)

    def _ask_later(self, question: Callable[[], bool]) -> None:
        self.front.tasks.poll(partial(self._or_fail, question))

    def _ask(self, again: Callable[[], None]) -> bool:
        cache = self.place.cache
        if cache.mode == "refresh" or not cache.home.exists(self.key):
            holder = self._holder()
            if holder is not None and holder.state() != "gone":
                self.where = holder.awaited(self.key, cache.path)
                return False
        self.where = ""
        found = self.front.look_up(self)
        if found is None:
            again()
        else:
            self._answer(found)
        return True

    def _holder(self) -> ClaimOwner | None:
        try:
            return self.place.cache.claims.holder(self.key)
        except OSError as error:
            tell(f"{self.name!r} runs, as nobody can tell who has claimed it: {error.strerror}")
            return None

    def _resend(self, modules: tuple[str, ...], load: Callable[[], Arguments]) -> None:
        """Send the code itself: what the worker imports under its name is another version."""
        resend_by_value(modules)
        args, kwargs = load()
        part = function_part(self.fn, self.front.code_only)  # what is imported there has changed
        if self._part is None or part.token != self._part.token:
            raise CallyardError(
                f"{self.name!r} was not run: its code was changed after it was submitted, in this process and where "
                f"its worker finds {', '.join(modules)}; submit it again"
            )
        with contextlib.suppress(CacheError):  # an argument that has no meaning but that of the call it came from
            part = replace(part, references=call_key(self.fn, args, kwargs, self.place.around, part).references)
        self._part, self._ordered = part, self._order().replace(references=part.references)
        self.takes_off(self.front.inner.submit(self.fn, args, kwargs, self.place.resources, self), again=True)

    # -- landing ---------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # it was meant for the thread that it has interrupted
            error = CallyardError(f"{self.name!r}: {error!r} interrupted its submission; submit it again")
        self._land(lambda future: future.answered(None, None, error, failed=True))

    def _answer(self, found: CachedResult) -> None:
        self._land(lambda future: self._stored_in(future).answered(found, found.token, failed=found.failed))

    def _stored_in(self, future: CachedFuture) -> CachedFuture:
        future.stored = self.place_and_key
        return future

    def _inner_ended(self, inner: Future[Any]) -> None:
        if inner is not self.inner:  # it was sent again, or answered from elsewhere
            return
        note = self._note
        here = self._run is not None or (note is not None and not note.stored and note.problem is None)
        if here and not inner.cancelled():
            self._later(partial(self._store_here, inner))
        else:
            self._land_like(inner, note)

    def _store_here(self, inner: Future[Any]) -> None:
        """The runner could not, as it does not see the directory, or has only a part of the result."""
        note = self._note or RunReport()
        run = self._run or CachedRun(self._order(), self.place.cache.home, None)
        if inner.failed():
            if self.place.cache.failures:  # only then: it need not be opened here
                error: Any = inner.exception()
                run.failed(error, str(error.__cause__ or error), 0.0, self._arguments_with_results)
            run.release()
        else:
            note = run.finished(inner.result(), 0.0, self._arguments_with_results)
        self._land_like(inner, note)

    def _arguments_with_results(self) -> Arguments:
        arguments: Arguments = replace_futures(self.arguments or ((), {}), lambda future: future.result())
        return arguments

    def _land_like(self, inner: Future[Any], note: RunReport | None) -> None:
        if note is not None and note.problem is not None:
            tell(f"the result of {self.name!r} was not stored in {self.place.cache.path}: {note.problem}")
        if note is not None and note.stored:
            self.front.was_made(self)
        token = None if note is None else note.token
        stored = note is not None and note.stored
        self._land(lambda future: _end_like(self._stored_in(future) if stored else future, inner, token))

    def _land(self, end: Callable[[CachedFuture], object]) -> None:
        """The only way out: end those on board; let go of the claim and of the backend's future."""
        futures = self.front.forget(self)
        interruptions = [error for future in futures if (error := _interruption(end, future)) is not None]
        self.disembark()
        if self._run is not None:
            self._run.release()
        self._drop_inner()
        if interruptions and threading.current_thread() is threading.main_thread():  # Ctrl-C
            raise interruptions[0]

    def _drop_inner(self) -> None:
        """Last, so that what an exception interrupts is done again at the end of the backend's future."""
        inner = self.inner
        if inner is not None:
            inner.cancel()
        self.arguments = self._call = None
        self.front.over(self)
        self.inner = None


def _nothing() -> Arguments:
    """A call of several ranks that waits here has not been started, and is not sent again."""
    return (), {}


def _interruption(end: Callable[[CachedFuture], object], future: CachedFuture) -> BaseException | None:
    """End one, and return what has interrupted that; a callback that exits must not keep the others from ending."""
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
        packed = inner.packed_failure()
        future.answered(packed, None, None if packed is not None else inner.exception(), failed=True)
    else:
        packed = inner._packed
        future.answered(packed, token, None if packed is not None else inner.result())
