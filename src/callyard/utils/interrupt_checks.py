"""Ctrl-C and cancellation as seen by a `with` block, in a coroutine too.

asyncio turns Ctrl-C into a cancellation: `asyncio.Runner` counts the interrupt and cancels the main task; the remaining
tasks are cancelled when the loop is closed, while the `KeyboardInterrupt` propagates.
"""

from __future__ import annotations

import signal
import sys
from typing import Any


def is_interrupt(error: BaseException | None) -> bool:
    """Return True if the process should end: Ctrl-C, `SystemExit`, or a cancellation caused by one of them."""
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return True
    return is_cancellation(error) and (_runner_was_interrupted() or _follows_interrupt(error))


def is_cancellation(error: BaseException | None) -> bool:
    """Return True if a coroutine of the loop running in this thread is cancelled."""
    asyncio: Any = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(error, asyncio.CancelledError) and asyncio._get_running_loop() is not None


def _runner_was_interrupted() -> bool:
    """Return True if `asyncio.Runner` has seen Ctrl-C: the signal handler is a partial of one of its methods."""
    handler = signal.getsignal(signal.SIGINT)
    runner = getattr(getattr(handler, "func", None), "__self__", None)
    return bool(getattr(runner, "_interrupt_count", 0))


def _follows_interrupt(error: BaseException | None) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            return True
        seen.add(id(error))
        error = error.__context__
    return False
