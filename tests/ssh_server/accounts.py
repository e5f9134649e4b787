"""Another account of this machine, seen only by a process in a mount namespace of its own and by what it starts.

    unshare --mount --propagation private python ...

So nothing of the machine is changed: the files of accounts are covered by copies with one line more.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

NAMESPACE = ("unshare", "--mount", "--propagation", "private")
NAME, NUMBER = "callyard-tests", 59_187
LINES = {
    "passwd": f"{NAME}:x:{NUMBER}:{NUMBER}::/nonexistent:/bin/bash\n",
    "group": f"{NAME}:x:{NUMBER}:\n",
    "shadow": f"{NAME}:*:::::::\n",  # nobody logs in by a password, and the account is not locked
}


@functools.cache
def why_no_other_account() -> str:
    """Say why there can be no other account here, "" where there can."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    if os.getuid() != 0:
        return "only root may make another account"
    try:
        tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        return "there is no unshare"
    return "root may not make a namespace here" if tried else ""


def add_account(place: Path) -> None:
    """Add the account for this process, which is in a namespace of its own; `place` is an empty directory."""
    for name, line in LINES.items():
        original, copy = Path("/etc", name), place / name
        copy.touch(0o600 if name == "shadow" else 0o644)
        text = original.read_text()
        copy.write_text(text + "\n" * (not text.endswith("\n")) + line)
        _mount("--bind", str(copy), str(original))


def open_way(paths: Iterable[str], place: Path) -> None:
    """Let all accounts come to these directories, in this namespace alone: nothing else is left in closed ones above.

    The interpreter may be in the home of root.
    """
    wanted = sorted({os.path.realpath(path) for path in paths})
    wanted = [path for path in wanted if not any(path.startswith(f"{other}/") for other in wanted)]
    for closed in sorted({found for path in wanted if (found := _closed(path))}):
        below = [path for path in wanted if path.startswith(f"{closed}/")]
        kept = [place / f"{len(closed)}-{number}" for number in range(len(below))]
        for path, other in zip(below, kept, strict=True):
            other.mkdir()
            _mount("--bind", path, str(other))
        _mount("-t", "tmpfs", "-o", "mode=755", "callyard-tests", closed)
        for path, other in zip(below, kept, strict=True):
            os.makedirs(path)
            _mount("--bind", str(other), path)


def _closed(path: str) -> str:
    """Return the first directory above that others may not enter, "" if there is none."""
    above = [str(each) for each in reversed(Path(path).parents)]
    return next((each for each in above if not os.stat(each).st_mode & 0o001), "")


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)
