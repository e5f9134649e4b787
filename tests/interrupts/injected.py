"""Exceptions between any two steps of public methods: a process of its own that raises them, and looks what is left.

    python -m interrupts.injected WAY BACKEND METHOD STRIDE [DIRECTORY]

WAY is "line" or "opcode", METHOD a name in METHODS. The n-th step raises, for each STRIDE-th n; after each the
executor must be usable, or shut down, every future must have ended, and no lock may be held. With "random" the other
thread raises, STRIDE times, while METHOD is called again and again.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import faulthandler
import gc
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import callyard
from callyard import Executor, batched, item, unzip

PACKAGE = str(Path(callyard.__file__).parent)
PATIENCE = 30.0  # s, after which something hangs


class Injected(BaseException):
    """Like Ctrl-C, at a moment of our choice."""


class Injector:
    """Raises `Injected` at the n-th step of the package's code in this thread, once."""

    def __init__(self, way: str, number: int) -> None:
        self.way, self.left = way, number
        self.raised = False
        self.where = "not at all"

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = self.way == "opcode"
        frame.f_trace_lines = self.way == "line"
        return self.step

    def step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == self.way and not self.raised:
            self.left -= 1
            if self.left < 0:
                self.raised = True
                raise Injected(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        return self.step


def interrupted(injector: Injector, method: Callable[[], object]) -> None:
    sys.settrace(injector)
    try:
        method()
    except Injected as error:
        injector.where = str(error)
    finally:
        sys.settrace(None)


# -- what is interrupted ---------------------------------------------------------------------------------


class Scene:
    """An executor, and the futures that it gave."""

    def __init__(self, make: Callable[[], Executor]) -> None:
        self.make = make
        self.executor = make()
        self.futures: list[Any] = []
        self.numbers = count()

    def call(self, *arguments: Any) -> Any:
        future = self.executor.submit(max, next(self.numbers), *arguments)
        self.futures.append(future)
        return future

    def renewed(self) -> None:
        if self.executor._running.closed:
            self.executor = self.make()


def submit(scene: Scene) -> Any:
    return lambda: scene.call(0)


def submit_several(scene: Scene) -> Any:
    return lambda: [scene.call(0) for _ in range(3)]


def submit_dependent(scene: Scene) -> Any:
    first, done = scene.call(0), scene.call(0)
    done.result()
    return lambda: (scene.call(first), scene.call(done), scene.call(scene.call(first)))


def cancel(scene: Scene) -> Any:
    sources = [concurrent.futures.Future[int]() for _ in range(2)]
    calls = [scene.call(source) for source in sources]
    after = [scene.call(call) for call in calls] + [item(calls[0], 0), *batched(calls, 2)]
    scene.futures.extend(after)

    def end() -> None:
        for source in sources:
            source.set_result(0)

    scene.executor.at_end = end
    return lambda: [call.cancel() for call in calls]


def result(scene: Scene) -> Any:
    call, failing = scene.call(0), scene.executor.submit(divmod, 1, 0)

    def ask() -> None:
        call.result()
        with suppress(concurrent.futures.TimeoutError):
            scene.call(1).result(timeout=0)
        failing.exception()
        call.add_done_callback(id)
        scene.call(2).add_done_callback(id)

    return ask


def derived(scene: Scene) -> Any:
    call = scene.executor.submit(divmod, 7, 2)

    def derive() -> None:
        scene.futures += [item(call, 0), *unzip(call, 2), *batched([call, scene.call(0)], 2)]
        for future in scene.futures[-5:]:
            future.exception()

    return derive


def wait(scene: Scene) -> Any:
    calls = [scene.call(0) for _ in range(4)]
    return lambda: (concurrent.futures.wait(calls), list(concurrent.futures.as_completed(calls)))


def map_(scene: Scene) -> Any:
    return lambda: list(scene.executor.map(abs, range(4), buffersize=2 if sys.version_info < (3, 14) else None))


def with_resources(scene: Scene) -> Any:
    return lambda: scene.futures.append(scene.executor.with_resources(priority=1).submit(abs, 1))


def shutdown(scene: Scene) -> Any:
    scene.call(scene.call(0))
    return lambda: scene.executor.shutdown(cancel_futures=True)


def first_call(scene: Scene) -> Any:
    """What starts the threads and the processes."""
    scene.executor.shutdown()
    scene.executor = scene.make()
    return lambda: scene.call(0)


def block(scene: Scene) -> Any:
    scene.executor.shutdown()
    scene.executor = scene.make()

    def leave() -> None:
        with scene.executor:
            scene.call(scene.call(0))

    return leave


def kill(scene: Scene) -> Any:
    scene.call(scene.call(0))
    return scene.executor.kill_workers


def everything(scene: Scene) -> Any:
    """What uses no lock but ours: those of the standard library may be left held."""

    def do() -> None:
        first = scene.call(0)
        after = scene.call(first)
        scene.futures += [item(after, 0), *unzip(first, 2), *batched([first, after], 1)]
        after.cancel()
        first.result()
        scene.futures += [scene.call(first), scene.executor.with_resources().submit(abs, 1)]

    return do


METHODS = {
    "submit": submit,
    "submit several": submit_several,
    "submit dependent": submit_dependent,
    "cancel": cancel,
    "result": result,
    "derived": derived,
    "wait": wait,
    "map": map_,
    "with_resources": with_resources,
    "shutdown": shutdown,
    "first call": first_call,
    "block": block,
    "kill": kill,
    "everything": everything,
}


def executors(backend: str, directory: str) -> Callable[[], Executor]:
    if backend == "local":
        return lambda: Executor(max_workers=2)
    if backend == "cached":
        return lambda: Executor(max_workers=2, cache=directory)
    if backend == "wrapped":
        return lambda: Executor(max_workers=2, backend=ThreadPoolExecutor(2))
    if backend == "live":
        from cluster.pretended import Nodes  # here, because the others need no more than the package

        return lambda: Executor(backend=Nodes(count=2))
    raise ValueError(backend)


# -- what must hold afterwards ---------------------------------------------------------------------------


def held_locks() -> list[str]:
    """The locks of the package that another thread cannot have."""
    known = list(locks())
    held: list[str] = []

    def look() -> None:
        for name, lock in known:
            if not lock.acquire(timeout=PATIENCE):
                held.append(name)
            else:
                lock.release()

    assert known
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return held


def locks() -> Iterator[tuple[str, Any]]:
    kinds = (type(threading.Lock()), type(threading.RLock()))
    owners = [(name, vars(module)) for name, module in sys.modules.items() if name.startswith("callyard")]
    owners += [(type(thing).__name__, getattr(thing, "__dict__", {})) for thing in FROZEN + ours()]
    for owner, names in owners:
        for name, value in list(names.items()):
            if isinstance(value, kinds):
                yield f"{owner}.{name}", value


def ours() -> list[object]:
    """Objects of the package's classes, without frozen ones."""
    return [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("callyard")]


FROZEN: list[object] = []  # of the package, and there before the first step


def freeze() -> None:
    """Make the looks after each step short: nearly all objects are there from the imports on, and are not ours."""
    gc.collect()
    FROZEN.extend(ours())
    gc.freeze()


def look_around(scene: Scene) -> None:
    end = getattr(scene.executor, "at_end", None)
    if end is not None:
        end()
        del scene.executor.at_end
    if scene.executor._running.closed:
        scene.executor.shutdown()
    else:
        assert scene.executor.submit(pow, 2, 10).result(PATIENCE) == 1024
    for future in scene.futures:
        try:
            future.exception(PATIENCE)
        except CancelledError:
            pass
    scene.futures.clear()
    held = held_locks()  # now: who only tries a lock relies on it that whoever has it does the work
    assert not held, f"held: {held}"
    scene.renewed()


def at_random(scene: Scene, method: str, times: int) -> None:
    """Raise in the main thread from another, at moments that a seed decides as far as the machine lets it."""
    main_thread, moments = threading.get_ident(), random.Random(7)
    for _ in range(times):
        fired: list[int] = []

        def fire(fired: list[int] = fired, pause: float = moments.uniform(0.0, 0.01)) -> None:
            time.sleep(pause)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main_thread), ctypes.py_object(Injected))
            fired.append(1)

        thread = threading.Thread(target=fire)
        with suppress(Injected):
            thread.start()
            while not fired:
                METHODS[method](scene)()
            for _ in range(1000):  # it arrives here at the latest
                pass
        thread.join()
        look_around(scene)


def main() -> None:
    way, backend, method, stride, directory = sys.argv[1:]
    scene = Scene(executors(backend, directory))
    assert scene.call(0).result(PATIENCE) == 0
    freeze()
    if way == "random":
        faulthandler.dump_traceback_later(8 * PATIENCE, exit=True)
        at_random(scene, method, int(stride))
        scene.executor.shutdown()
        return
    for number in count(0, int(stride)):
        faulthandler.dump_traceback_later(4 * PATIENCE, exit=True)
        step = METHODS[method](scene)
        injector = Injector(way, number)
        try:
            interrupted(injector, step)
            look_around(scene)
        except BaseException as error:
            faulthandler.dump_traceback(all_threads=True)
            raise AssertionError(f"after step {number}, in {injector.where}") from error
        if not injector.raised:
            break
    scene.executor.shutdown()
    print(number)


if __name__ == "__main__":
    main()
