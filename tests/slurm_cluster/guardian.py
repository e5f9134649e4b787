"""The parent of a test cluster's daemons, and their end: `Guardian`, and the program behind it.

The program, `guardian.py OWNER DIRECTORY GROUP...`, makes the directory, says its process id, and reads commands on
standard input, one JSON object `{argv, environment, log}` per line; it starts them and answers with the process id. On
an empty line, at the end of its input, and when the owner is gone however it went (a pidfd says so, its descriptor is
OWNER), it kills all that it started and whatever these started, removes the cgroups named GROUP and the directory, and
ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CGROUPS = Path("/sys/fs/cgroup")


class Guardian:
    """Starts processes that end, with all that they start, at `stop` or with this process."""

    def __init__(self, directory: Path, groups: Sequence[str]) -> None:
        us, pipe = os.pidfd_open(os.getpid()), subprocess.PIPE
        argv = [sys.executable, "-I", __file__, str(us), str(directory), *groups]
        # Without our environment: a test that looks for processes that it left must not take the daemons for its own.
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, env={}, pass_fds=[us], start_new_session=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            self._orders, process.stdin = process.stdin, None  # "with" shall wait for the first process, which has
            self._answers, process.stdout = process.stdout, None  # forked, and leave the pipes open
        os.close(us)
        pid = self._answer()
        if isinstance(pid, str):
            self.stop()
            raise OSError(pid)
        self.pid = pid

    def start(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> int | str:
        """Start a program; return its process id, or what went wrong."""
        order = {"argv": list(argv), "environment": dict(environment), "log": str(log)}
        self._orders.write(json.dumps(order).encode() + b"\n")
        self._orders.flush()
        return self._answer()

    def _answer(self) -> int | str:
        answer: int | str = json.loads(self._answers.readline())
        return answer

    def stop(self) -> None:
        try:
            # The end of the pipe would not do: a process that we forked may have it, too.
            self._orders.write(b"\n")
            self._orders.close()
        except BrokenPipeError:
            pass  # it has ended
        self._answers.read()  # its end is the guardian's end
        self._answers.close()


# ------------------------------------------------------------------ the program


def main(owner: int, directory: str, groups: list[str]) -> None:
    # A test looks for descendants that it left: the session's cluster must not be among them.
    if os.fork():
        os._exit(0)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what loses its parent becomes our child
    signal.signal(signal.SIGCHLD, lambda *_: reap())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    os.set_inheritable(owner, False)
    try:
        os.mkdir(directory, 0o700)
    except OSError as error:
        say(str(error))
        return
    try:
        os.chdir("/")
        say(os.getpid())
        for group in groups:
            remove_cgroups(group)  # of an older cluster whose guardian was killed
        serve(owner)
    finally:
        end_descendants(os.getpid())
        for group in groups:
            remove_cgroups(group)
        shutil.rmtree(directory, ignore_errors=True)


def serve(owner: int) -> None:
    """Start what standard input says, until it says no more or the owner is gone, which makes its pidfd readable."""
    text = b""
    while True:
        ready, _, _ = select.select([0, owner], [], [])
        if owner in ready:
            return
        if not (data := os.read(0, 65536)):
            return
        *lines, text = (text + data).split(b"\n")
        for line in lines:
            if not line:
                return
            say(start(**json.loads(line)))


def say(answer: int | str) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def start(argv: list[str], environment: dict[str, str], log: str) -> int | str:
    """Start a daemon that dies with us; return its process id, or what went wrong."""
    with open(log, "ab") as file:
        try:
            return subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
            ).pid
        except OSError as error:
            return str(error)


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def end_descendants(of: int, patience: float = 10.0) -> None:
    """Kill the descendants of a process until there are none."""
    deadline = time.monotonic() + patience
    while (found := descendants(of)) and time.monotonic() < deadline:
        kill(found)
        reap()
        time.sleep(0.005)


def kill(pids: list[int], sign: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            pass


def descendants(pid: int) -> list[int]:
    """Return the processes below a process, zombies included."""
    children: dict[int, list[int]] = {}
    for child, parent in parents():
        children.setdefault(parent, []).append(child)
    found = list(children.get(pid, ()))
    for child in found:  # grows while we go through it
        found.extend(children.get(child, ()))
    return found


def parents() -> Iterator[tuple[int, int]]:
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            stat = Path("/proc", name, "stat").read_text()
        except OSError:
            continue  # gone meanwhile
        yield int(name), int(stat.rpartition(")")[2].split()[1])


def remove_cgroups(name: str) -> None:
    """Remove what a node left in cgroup v1; a killed process holds its group for an instant."""
    deadline = time.monotonic() + 2
    for top in CGROUPS.glob(f"*/{name}"):
        while top.exists() and time.monotonic() < deadline:
            for path, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    time.sleep(0.005)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
