"""What a process inside an allocation sees."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from this_machine import ClusterError, tail

INSIDE = ["sh", "-c", "env -0; printf =; read _"]  # shows its environment, and stays until its input ends


@contextmanager
def allocated(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[dict[str, str]]:
    """Hold the allocation that a salloc command gets; give the variables that it adds to an environment."""
    pipe = subprocess.PIPE
    with (
        log.open("ab") as errors,
        subprocess.Popen([*argv, *INSIDE], env=environment, stdin=pipe, stdout=pipe, stderr=errors) as process,
    ):
        try:
            inside = dict(line.split("=", 1) for line in read_variables(process))
            if not inside:
                raise ClusterError(f"salloc got nothing: {tail(log)}")
            yield {key: value for key, value in inside.items() if key != "_" and environment.get(key) != value}
        finally:
            process.communicate()  # ends its input, so salloc gives the nodes back


def read_variables(process: subprocess.Popen[bytes]) -> list[str]:
    assert process.stdout is not None
    text = b""
    while not text.endswith(b"\0=") and (more := os.read(process.stdout.fileno(), 65536)):
        text += more
    return text.decode().split("\0")[:-1]
