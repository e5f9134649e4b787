"""The names of our processes in `ps` and `top`: "callyard: worker of study.py".

Linux shows the memory in which a process got its arguments, and the process may write there: no library is needed, and
Python has read its arguments long before. `ps -c`, and `top` as it begins, show the first fifteen characters of another
name. Elsewhere a process keeps the name that it has.
"""

from __future__ import annotations

import os

from ..utils.lite_stdlib import suppress

__all__ = ["script_name", "set_title"]

_SHORT = 15  # characters of the other name
_START = 45  # the place of the address behind the name of the program in /proc/self/stat; the end's is the next


_of = ""  # in the last title, also of the process that has forked this one


def set_title(role: str, of: str | None = None) -> None:
    """Show this process as "callyard: ROLE", or as "callyard: ROLE of ...", by default of the same as before."""
    global _of
    of = _of = _of if of is None else of
    title = f"callyard: {role} of {of}" if of else f"callyard: {role}"
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/self/comm", "wb", buffering=0) as file:
            # One word: Slurm, where it finds the processes of a job by their parents, stumbles over a blank.
            file.write(f"callyard-{role.partition(' ')[0]}".encode()[:_SHORT])
        with open("/proc/self/stat", "rb", buffering=0) as file:
            numbers = file.read(4096).rpartition(b")")[2].split()
        start, end = int(numbers[_START]), int(numbers[_START + 1])
        room = end - start - 1  # the last byte is zero: otherwise Linux goes on in the variables
        if start and room > 0:
            with open("/proc/self/mem", "r+b", buffering=0) as memory:
                memory.seek(start)
                memory.write(title.encode(errors="replace")[:room].ljust(room + 1, b"\0"))


def script_name(argv: list[str]) -> str:
    """Return the program of a process with these arguments, as "study.py"; the package for `python -m`; or ""."""
    path = argv[0] if argv else ""
    name = os.path.basename(path)
    if name == "__main__.py":
        name = os.path.basename(os.path.dirname(path))
    return name if name not in ("", "-c", "-m") else ""
