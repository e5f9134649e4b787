"""The name under which a machine keeps files of its own: the machine keeps the name, and no other machine has it.

The machine id alone would do, if it were always the machine's own. But the nodes of a cluster may have started from one
image, with one id, and a container may have the id of its image. All of these have host names of their own, and a home
that others see, too. A laptop's host name may change with each network, and its home is on its own disk. So the host
name counts unless the id alone is enough.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable

from ..utils.lite_stdlib import suppress
from .process_identity import names_one_machine, this_process

__all__ = ["machine_name"]

_ESCAPED = re.compile(rb"\\([0-7]{3})")  # blanks and the like in a path
_MOUNTS = "/proc/self/mountinfo"  # tests put another one here
# File systems of one machine. What is not among them may be seen by others.
_OWN = frozenset(
    [
        *("aufs", "bcachefs", "btrfs", "ecryptfs", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "jfs", "overlay"),
        *("ramfs", "reiserfs", "tmpfs", "xfs", "zfs"),
    ]
)


def machine_name(directory: str) -> str:
    """Return a name for this machine, among all that may see this directory; the directory need not exist."""
    here = this_process()
    if here.machine and names_one_machine(here) and _is_of_one_machine(directory):
        return here.machine
    return f"{here.host}-{here.machine}" if here.machine else here.host


def _is_of_one_machine(directory: str) -> bool:
    """Return True if no other machine sees a directory."""
    if sys.platform != "linux":
        return True
    with suppress(OSError), open(_MOUNTS, "rb") as file:
        return _type_of_mount(os.fsencode(os.path.realpath(directory)), file) in _OWN
    return False


def _type_of_mount(path: bytes, mounts: Iterable[bytes]) -> str:
    """Return the type of the file system at a path: that of the deepest mount above; of several there the last."""
    found, depth = "", -1
    for line in mounts:
        before, _, after = line.partition(b" - ")
        place = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), before.split()[4]).rstrip(b"/")
        if len(place) >= depth and (path + b"/").startswith(place + b"/"):
            found, depth = after.split()[0].decode(), len(place)
    return found
