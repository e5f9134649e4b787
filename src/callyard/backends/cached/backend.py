"""The cached backend: calls are answered from the cache, or go to the backend behind it.

    submit --> key known? --> the same call on its way: share it
                          --> a result in the cache:    done
                          --> otherwise: the other backend, whose worker claims, runs and stores
    futures not done yet: the other backend waits for them, and asks (`SharedCall.admit`) before it starts the call

The worker may decline: another process has stored a result, or is running the call, or the imported code differs from
the code of the key. The next step may take long then, and is a task of a thread.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ...errors import CacheError
from ...futures import Future, ends_futures
from ...hashing.digest import PendingFuture
from ...resources import Resources
from ...result_cache import Cache
from ...status.executor_status import FOR_OTHER_CALLS, ExecutorStatus
from ...utils import interpreter_exit
from ...utils.threads import TaskThread
from ..base import Backend, Settings, status_of
from ..live_base import FORKED, LiveBackend
from ..unfinished_calls import UnfinishedCall, unfinished_of
from .cached_future import CachedCall, CachedFuture, CallName
from .pending import PendingCalls
from .settings import SettingsByResources
from .shared_call import ExecutorContext, SharedCall

_backends: weakref.WeakSet[CachedBackend] = weakref.WeakSet()


class CachedBackend:
    """A backend in front of another, for the calls of one executor with a cache.

    The backend has the calls (`SharedCall`). A call refers neither to the backend nor to other calls; their common
    parts are in an `ExecutorContext`.
    """

    def __init__(self, inner: Backend, cache: Cache, settings: Settings) -> None:
        self.inner = inner
        self.detached = inner.detached
        self._cache = cache
        self._settings = SettingsByResources(cache, settings)
        self._pending = PendingCalls(after_each=self._end_if_over)
        self._tasks = TaskThread("callyard-cache")
        self.elsewhere = elsewhere = bool(getattr(inner, "elsewhere", False))  # few backends have that
        self._context = ExecutorContext(
            inner,
            self._pending,
            self._tasks,
            sends_copies=inner.detached or elsewhere or isinstance(inner, LiveBackend),
            elsewhere=elsewhere,
            code_only=settings.changes_data,
            recorder=settings.recorder,
        )
        self._closing = False
        self._forked = False
        _backends.add(self)
        interpreter_exit.register(self)

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        resources: Resources,
        ticket: CachedCall | None = None,
        name: CallName | None = None,
    ) -> Future[Any]:
        """Answer a call from the cache, or run it; with `name`, under the names that its submitter has made."""
        if self._forked:
            raise RuntimeError(FORKED)
        call = SharedCall(self._context, fn, self._settings.of(resources))
        future = CachedFuture(call.name)
        future.home = call.settings.cache._directory
        try:
            if name is None:
                call.prepare(args, kwargs)
            else:
                call.take(name, args, kwargs)
        except (PendingFuture, CacheError) as reason:
            # With a key of the user's own, the call does not depend on the failed part.
            if type(reason) is not PendingFuture and not call.has_key:
                raise
        # Without a key the call waits for futures; `admit` looks into the cache then.
        if not (call.has_key and self._answer(call, future)):
            self._start(call, future, args, kwargs)
        return future

    def _answer(self, call: SharedCall, future: CachedFuture) -> bool:
        """Let the future share a call on its way, or answer from the cache; return False if there is neither."""
        if self._pending.join(call.id, future):
            self._record_inner_of(future)
            return True
        found = call.look_up()
        if found is None:
            return False
        self._context.ended_calls.note(call.name, "cached")
        # Before the end, because a callback may ask for the key.
        future.known_as(call.key, True)
        future.identity, future.stored = call.identity(), call.id
        future.answered(found, found.token, failed=found.failed)
        return True

    def _start(self, call: SharedCall, future: CachedFuture, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Submit the call, unless another thread has submitted the same one meanwhile."""
        on_cancel = getattr(self.inner, "on_cancel", None)
        if self._context.elsewhere and on_cancel is not None:  # then the thread that stores results ends the futures
            self._tasks.submit(partial(ends_futures, on_cancel))
        try:
            # False: another thread was faster, and the future has joined that call.
            if self._pending.add(call, future):
                call.submit(args, kwargs)
            else:
                self._record_inner_of(future)
        except BaseException as error:
            call.fail(error)  # for the futures that have joined since
            future.asked()  # the submitter has the error instead
            raise

    def _record_inner_of(self, future: CachedFuture) -> None:
        """Let what happens to the shared call that a future has joined happen to this future, too."""
        inner = future.inner
        if self._context.recorder is not None and inner is not None:
            self._context.recorder.stands_for(inner, future)

    # -- the end ---------------------------------------------------------------------------------------

    def _end_if_over(self) -> None:
        """End once no call is left.

        A repetition is harmless: after an exception, the caller that waits for the end repeats an interrupted one.
        """
        if self._closing and self._pending.are_over():
            self._tasks.close()
            self.inner.close(False)

    def status(self, ask: bool = True) -> ExecutorStatus:
        """Return the status of the inner backend, with the calls that were answered from the cache."""
        status = status_of(self.inner, ask)
        elsewhere = self._pending.run_elsewhere()
        if elsewhere:
            status.waiting["for the same call in another process"] = elsewhere
            status.waiting[FOR_OTHER_CALLS] -= elsewhere
            status.waiting = +status.waiting
        status.add_ended(self._context.ended_calls)
        return status

    def unfinished(self) -> list[UnfinishedCall]:
        """Return the calls of the inner backend that have not ended, with their keys."""
        keys = self._pending.keys_by_future()
        return [call._replace(key=keys.get(id(call.future), call.key)) for call in unfinished_of(self.inner)]

    def cancel_pending(self) -> None:
        self.inner.cancel_pending()

    def kill(self, signum: int) -> None:
        self._closing = True
        self.inner.kill(signum)
        self._end_if_over()

    def interrupt(self) -> None:
        self._closing = True
        self.inner.interrupt()
        self._end_if_over()

    def close(self, wait: bool) -> None:
        # Before the check: the end of a last call between the two then ends this backend.
        self._closing = True
        self._end_if_over()
        # A callback of a call cannot wait for the end of this same call.
        if wait and not self._forked and not self._pending.end_here():
            # In this order: a call's end may need the inner backend, and a task may submit a call once more.
            self._pending.over.result()
            self.inner.close(True)
            self._tasks.join()

    def begin_end(self) -> None:
        self._closing = True
        self._end_if_over()

    def wait_for_end(self) -> None:
        self._pending.over.result()
        self._tasks.join()

    @property
    def cache_path(self) -> str:
        """The directory of the results."""
        return self._cache.path

    @property
    def description(self) -> str:
        mode = "" if self._cache.mode == "use" else f" ({self._cache.mode})"
        return f"{self.inner.description}, cache in {self._cache.path}{mode}"

    def after_fork(self) -> None:
        """Accept no more calls in a forked child: pending calls are the parent's, and so is the thread."""
        self._forked = True
        self._pending.after_fork()


def _in_forked_child() -> None:
    for backend in list(_backends):
        backend.after_fork()


os.register_at_fork(after_in_child=_in_forked_child)
