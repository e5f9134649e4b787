"""Live calls: packed at `submit`, started once their futures are done, and streamed to workers on any machine."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from ..cache.messages import RunDeclined, RunReport
from ..dependencies.wait import when_done
from ..errors import CallyardError, UnpicklableCall
from ..events.recorder import Recorder
from ..futures import Future, when_ended
from ..pool.call import Call, CallDurations, CallPlan
from ..pool.threaded_runner import ThreadedRunner
from ..resources import LIMITS, Resources
from ..serialize.function_registry import FunctionDefinition, FunctionRegistry, dumps
from ..serialize.packer import Packed, Packer, load_with_inputs
from ..serialize.shared_memory import SegmentPool
from ..serialize.unpicklable import UnsendableGlobal, culprit, instead, place
from ..status.executor_status import FOR_OTHER_CALLS, ExecutorStatus
from ..utils.identity_cache import IdentityCache
from ..worker.current_call import MORE_MEMORY
from .base import Settings
from .cached.cached_future import Arguments, CachedCall, KeyedResult
from .call_logs import CallLogs
from .unfinished_calls import UnfinishedCall

FORKED = "this executor belongs to the process that forked this one, and cannot be used here; make a new one"

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class _Expected(NamedTuple):
    """A call whose futures are not done: its number, and these futures until its start."""

    order: int
    sources: list[Any]


class LiveBackend:
    """The live calls of one executor. Subclasses give resources a meaning, and make the runner."""

    detached = False

    def __init__(
        self,
        make_runner: Callable[[SegmentPool, Packer, Callable[[], bool]], ThreadedRunner],
        recorder: Recorder | None = None,
    ) -> None:
        segments = SegmentPool()
        self._packer = Packer(segments)
        self._functions = FunctionRegistry()
        self._killed = False
        # Calls whose futures are not done, and these futures; each change is atomic, so there is no lock.
        self._waiting: dict[Future[Any], _Expected] = {}
        waiting = self._waiting  # not self: an executor without references is closed by a finalizer
        self._runner = make_runner(segments, self._packer, lambda: bool(waiting))

        def inputs_of(future: Future[Any]) -> list[Any] | None:
            expected = waiting.get(future)
            return None if expected is None else expected.sources

        self._runner.inputs_of = inputs_of
        if recorder is not None:
            self._runner.record_in(recorder)
        self._on_cancel = self._runner.look_again  # one bound method for all futures
        self._order = count()
        self._paces: dict[Any, CallDurations] = {}
        self._plans: IdentityCache[Resources, CallPlan] = IdentityCache()
        self._logs: CallLogs | None = None

    def _make_plan(self, resources: Resources) -> CallPlan:
        """Return the plan of the first attempt, with those of all others: limits never to be had are refused now."""
        attempts = resources.attempts()
        plans = [self.make_plan(each) for each in attempts]
        for each, plan in zip(attempts, plans, strict=True):
            following = {error: each.after(error) for error in LIMITS}
            plan.after = {error: plans[attempts.index(more)] for error, more in following.items() if more is not None}
            plan.measured = self._runner.recorder is not None
            if each.next_memory:
                plan.options = {**plan.options, MORE_MEMORY: True}
        return plans[0]

    def make_plan(self, resources: Resources) -> CallPlan:
        """Return the meaning of these resources.

        Raises:
            ResourceError: these resources can never be had.
        """
        raise NotImplementedError

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        resources: Resources,
        ticket: CachedCall | None = None,
    ) -> Future[Any]:
        if self._runner.forked:
            raise RuntimeError(FORKED)
        plan = self._plans.of(resources, self._make_plan)
        name = getattr(fn, "__name__", None) or type(fn).__name__
        future: Future[Any] = Future(name, self._on_cancel)
        sources: list[Any] = []
        # Now, in the user's thread: the call gets the arguments as they are at this moment.
        try:
            definition, packed = self._pack(fn, args, kwargs, sources)
        except Exception as error:
            future.fail_with(unpicklable(fn, args, kwargs, error))
            return future
        key = definition.id if definition is not None else (type(fn), name)
        pace = self._paces.get(key) or self._new_pace(key, name)
        call = Call(future, definition, packed, plan, pace, next(self._order))
        if self._logs is not None:
            call.log = self._logs.follow(future)
        self._begin(call, sources, ticket)
        return future

    def _pack(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], sources: list[Any]
    ) -> tuple[FunctionDefinition | None, Packed]:
        """Return the function and the packed arguments, or None and all packed as one; add futures to `sources`."""
        definition = self._functions.definition(fn)
        packed = None if definition is None else self._packer.pack_arguments(args, kwargs, sources, definition)
        if packed is not None:
            return definition, packed
        sources.clear()
        return None, self._packer.pack((fn, args, kwargs), sources)

    def _begin(self, call: Call, sources: list[Any], ticket: CachedCall | None) -> None:
        """Start the call now, or once its futures are done."""
        if ticket is not None:
            call.noted = partial(self._noted, ticket)
        try:
            if sources or (ticket is not None and ticket.held):
                self._wait(call, sources, ticket)
            else:
                self._start(call, ticket)
        except BaseException:  # no user is going to have this future, so the call must not begin
            self._waiting.pop(call.future, None)
            call.future.cancel()
            raise

    def _start(self, call: Call, ticket: CachedCall | None) -> None:
        if ticket is not None:
            call.remember = ticket.order()
        self._runner.start(call)
        self._waiting.pop(call.future, None)  # after its entry into the runner's inbox: `close` looks at both

    def _new_pace(self, key: Any, name: str) -> CallDurations:
        """Return the durations, none so far, of a function that was not called before."""
        while self._functions.dead:
            gone = self._paces.pop(self._functions.dead.popleft(), None)
            if gone is not None:
                self._runner.ended_calls.note(gone.name, "finished", gone.finished)
        return self._paces.setdefault(key, CallDurations(name))

    # -- calls that wait for others --------------------------------------------------------------------

    def _wait(self, call: Call, sources: list[Any], ticket: CachedCall | None) -> None:
        future = call.future
        self._expect(call, sources)  # first: a thread that waits for the last call looks for expected ones
        self._runner.prepare()

        def go() -> None:
            known = list(map(KeyedResult, sources))  # before: a user may change an opened result
            try:
                call.inputs = tuple(map(self._packed, sources, known))
            except Exception as error:
                message = f"a result that {future.name!r} waited for cannot be sent to it: {error}"
                future.fail_with(_caused(UnpicklableCall(message), error))
                return
            if ticket is None:
                self._start(call, None)
            else:
                ticket.admit(lambda: _arguments(call, known), partial(self._start, call, ticket))
            sources.clear()

        if sources:
            when_done(tuple(sources), future, go)
        else:
            go()

    def _expect(self, call: Call, sources: list[Any]) -> None:
        self._waiting[call.future] = _Expected(call.order, sources)
        when_ended(call.future, self._no_longer_waiting)

    def _noted(self, ticket: CachedCall, call: Call, note: RunReport | RunDeclined) -> bool:
        """Take a worker's note; return True if the worker did not run the call, which may then have to start again."""
        if not isinstance(note, RunDeclined):
            ticket.noted(note)
            return False
        call.note = None
        # Expected before it is pending again: otherwise the executor might end in between.
        self._expect(call, [])
        call.future.again()
        if self._killed:
            call.future.cancel()
            return True
        loaded = partial(_arguments_as_they_were, call)
        ticket.declined(note, partial(self._start, call, ticket), loaded)
        return True

    def _packed(self, source: Any, known: KeyedResult) -> Packed:
        """Return the packed result of a finished future: the worker's bytes, unless the result has been opened."""
        packed = known.packed
        if isinstance(packed, Packed):
            return packed
        made = self._packer.pack(source.result() if packed is None else packed.load())
        if packed is None:
            known.opened = made.load  # the copy that is sent is the one with a meaning
        return made

    def _no_longer_waiting(self, future: Future[Any]) -> None:
        if future in self._waiting:
            try:
                self._waiting.pop(future, None)
                self._runner.look_again()
            # Without the repetition, the next call here would find the future gone and do nothing.
            except BaseException:
                self._runner.look_again()
                raise

    # -- questions -------------------------------------------------------------------------------------

    def status(self, ask: bool = True) -> ExecutorStatus:  # all is known here
        status = ExecutorStatus()
        self._runner.add_status(status)
        for future, expected in tuple(self._waiting.items()):
            if not future.done() and self._runner.placed(future) is None:
                status.add_next(expected.order, future.name, FOR_OTHER_CALLS)
        for pace in tuple(self._paces.values()):
            status.add(pace.name, "finished", pace.finished)
        status.add_ended(self._runner.ended_calls)
        return status

    def unfinished(self) -> list[UnfinishedCall]:
        """Return the calls that have not ended."""
        found = [UnfinishedCall(each.order, future) for future, each in tuple(self._waiting.items())]
        for call in self._runner.placed_calls():
            end = partial(self._runner.end_call, call) if self._runner.can_end(call) else None
            found.append(UnfinishedCall(call.order, call.future, _key_of(call), end))
        return found

    # -- the end ---------------------------------------------------------------------------------------

    def cancel_pending(self) -> None:
        self._cancel(all_of_them=False)

    def kill(self, signum: int) -> None:
        self._killed = True  # first: a call that comes back from a worker now is cancelled there
        self._cancel(all_of_them=True)
        self._runner.kill(signum)

    def _cancel(self, all_of_them: bool) -> None:
        for future in tuple(self._waiting):
            future.cancel()
        self._runner.cancel_waiting(all_of_them)

    def interrupt(self) -> None:
        """End the running calls; at a second Ctrl-C without a grace for their clean-up."""
        self.kill(signal.SIGKILL if self._killed else signal.SIGTERM)

    def close(self, wait: bool) -> None:
        self._runner.close()
        if wait:
            self._runner.join()


def _key_of(call: Call) -> str:
    return "" if call.remember is None else call.remember.key


def _arguments(call: Call, inputs: Sequence[Any]) -> Arguments:
    """Return the arguments packed at `submit`, without the function."""
    return load_with_inputs(call.arguments, inputs)[-2:]  # type: ignore[no-any-return]


def _arguments_as_they_were(call: Call) -> Arguments:
    return _arguments(call, [packed.load() for packed in call.inputs])


def pack_initializer(settings: Settings) -> bytes | None:
    if settings.initializer is None and settings.init_function is None:
        return None
    try:
        return dumps((settings.initializer, settings.initargs, settings.init_function))
    except Exception as error:
        raise _caused(UnpicklableCall(f"the initializer cannot be sent to a worker: {error}"), error) from error


def unpicklable(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception) -> CallyardError:
    """Return an error with the name of the unpicklable part of the call."""
    name = getattr(fn, "__name__", type(fn).__name__)
    parameters = (*_positional_parameters(fn), *(["argument"] * len(args)))
    parts = [("the function", name, fn), *((f"argument {i + 1}", parameters[i], a) for i, a in enumerate(args))]
    for what, path, value in (*parts, *((f"argument {key!r}", key, value) for key, value in kwargs.items())):
        reason = _why_unpicklable(value)
        if reason is not None:
            found = (path, value) if isinstance(reason, UnsendableGlobal) else culprit(value, path, _is_unpicklable)
            why = f"{place(value, *found)}{reason}{instead(found[1])}"
            text = f"{what} of {name!r}, of type {type(value).__qualname__}, cannot be sent: {why}"
            return _caused(UnpicklableCall(text), error)
    return _caused(UnpicklableCall(f"{name!r} cannot be sent to a worker: {error}"), error)


def _positional_parameters(fn: Any) -> list[str]:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # a function of an extension without a text signature
        return []
    return [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL]


def _is_unpicklable(value: Any) -> bool:
    return _why_unpicklable(value) is not None


def _why_unpicklable(value: Any) -> Exception | None:
    try:
        Packer(SegmentPool()).pack(value, [])
    except Exception as error:
        return error
    return None


def _caused(error: CallyardError, cause: BaseException) -> CallyardError:
    error.__cause__ = cause
    return error
