"""Watch what runs now, in the terminal: the executors of all your processes on this machine, and the jobs of a cache.

Move over the calls with the arrow keys. Enter opens a call and says what it waits for, l shows what it has printed, c
cancels it after a question, q leaves. It needs Textual: pip install "callyard[watch]".
"""

from __future__ import annotations

import argparse
import os
import sys

from ..errors import CallyardError
from .arguments import VARIABLE, add_place, open_cache, split
from .watch_rows import Source

__all__ = ["configure", "run"]

_PERIOD = 1.0  # s between two looks


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_place(parser)


def run(options: argparse.Namespace) -> int:
    """Show the view until the user leaves it."""
    try:
        from .watch_app import WatchApp  # here, because it needs an optional library
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise CallyardError(
            'the live view needs Textual: pip install "callyard[watch]"; `callyard status` shows the same once'
        ) from None
    directory = None
    if options.words or options.cache or os.environ.get(VARIABLE):
        directory, _ = split(options, 0)
        open_cache(options, directory)  # a mistake is said before the view takes the terminal
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CallyardError("the live view needs a terminal; `callyard status` prints the same once")
    WatchApp(Source(options, directory), _PERIOD).run()
    return 0
