"""How many descriptors this process may have open."""

from __future__ import annotations

import contextlib
import resource

_OTHERS = 256  # what the user's program has open


def make_room(count: int) -> None:
    """Let this process open so many beside what it has usually, as far as its hard limit goes."""
    wanted = count + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS has another limit beside
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
