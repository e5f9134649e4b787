"""Ctrl-C and cancellation as a `with` block sees them, in a coroutine too.

asyncio makes a cancellation of Ctrl-C: `asyncio.Runner` cancels the main task and counts, and what is left when the
loop is closed is cancelled while the `KeyboardInterrupt` is on its way.
"""

from __future__ import annotations

import signal
import sys
from typing import Any


def is_interrupt(error: BaseException | None) -> bool:
    """Return whether the process is meant to end: by Ctrl-C or `SystemExit`, or a cancellation that comes of these."""
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return True
    return is_cancellation(error) and (_runner_was_interrupted() or _follows_interrupt(error))


def is_cancellation(error: BaseException | None) -> bool:
    """Return whether a coroutine of a loop that runs in this thread is cancelled."""
    asyncio: Any = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(error, asyncio.CancelledError) and asyncio._get_running_loop() is not None


def _runner_was_interrupted() -> bool:
    """Return whether `asyncio.Runner` knows of Ctrl-C: while it runs, the handler is a method of it, with arguments."""
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
