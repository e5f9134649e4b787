"""Ends of processes, in words."""

from __future__ import annotations

import os

_GIB = 1 << 30
# Advice for a system without room.
ROOM = "ask for fewer workers, or let more processes or files be open (ulimit -u, ulimit -n)"


def how_it_ended(exitcode: int | None) -> str:
    if exitcode is None:
        return "vanished"
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    return f"was killed by {signal_name(-exitcode)}"


def signal_name(number: int) -> str:
    import signal  # here, because a successful call needs no signals

    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def too_long(who: str, limit: float) -> str:
    return f"{who} ran longer than its run_time of {limit:g} s on {os.uname().nodename} and was ended; give it more"


def too_much_memory(who: str, limit: int | None) -> str:
    """Return the message for a call over its memory; a `limit` of None stands for the scheduler's own limit."""
    how_much = "more memory than its job has" if limit is None else f"more than its memory of {limit / _GIB:.4g} GiB"
    return f"{who} took {how_much} on {os.uname().nodename}; give it more{'' if limit else ' with memory='}"


def no_memory_left(who: str, owner: str) -> str:
    """Return the message for a call ended by the kernel; `owner` of the limit is what had no memory left."""
    return (
        f"{who} was killed by the kernel on {os.uname().nodename}, where {owner} had no memory left; "
        "with memory= fewer calls run at once, or ask for more there"
    )
