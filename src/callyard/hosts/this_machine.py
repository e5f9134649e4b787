"""This machine as the place where commands are typed."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
from collections.abc import Mapping, Sequence
from threading import Event
from time import monotonic

from ..schedulers.base import Reply

__all__ = ["LocalHost", "Reply"]

_DRAIN = 1.0  # seconds for the rest of what a killed command wrote
_LOOK = 0.2  # seconds after which it is looked whether a command is still of interest


class LocalHost:
    """Runs commands on this machine."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        stop: Event | None = None,
    ) -> Reply:
        """Run one command, at most for `timeout` seconds, with `env` in place of this process's environment.

        If another thread sets `stop` it ends as at the time limit.

        The command gets no input and nothing of ours but standard streams. It leads a session of its own: a Ctrl-C in
        the terminal must not end an `sbatch` halfway, and at the time limit whatever it started is killed with it.
        """
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=env,
                start_new_session=True,
                umask=0o077,  # a job's log gets its mode from whoever submits it
            )
        except OSError as error:
            return _not_run(argv[0], error)
        with process:
            try:
                out, err = _communicate(process, timeout, stop)
            except subprocess.TimeoutExpired:
                return Reply(None, *_killed(process))
            except BaseException:
                _kill(process)
                raise
        return Reply(process.returncode, _text(out), _text(err))


def _communicate(process: subprocess.Popen[bytes], timeout: float, stop: Event | None) -> tuple[bytes, bytes]:
    """What it writes. Nobody but this thread may kill it: for others its number could be that of another process."""
    until = monotonic() + timeout
    while stop is not None and not stop.is_set() and monotonic() + _LOOK < until:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_LOOK)
    left = 0.0 if stop is not None and stop.is_set() else until - monotonic()
    return process.communicate(timeout=max(0.0, left))


def _not_run(program: str, error: OSError) -> Reply:
    machine = platform.node()
    if isinstance(error, FileNotFoundError):
        where = f"on the PATH of {machine}" if os.sep not in program else f"on {machine}"
        return Reply(127, "", f"there is no {program} {where}: is this a login node of the cluster?")
    return Reply(126, "", f"{program} cannot be run on {machine}: {error.strerror or error}")


def _killed(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """End a command and its children; what they wrote until then."""
    _kill(process)
    try:
        out, err = process.communicate(timeout=_DRAIN)
    except subprocess.TimeoutExpired as late:  # someone left the group and still holds the other end
        return _text(late.output), _text(late.stderr)
    return _text(out), _text(err)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Not reaped yet, so the number of the process is still that of its group, even if the leader has ended.
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            pass


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")
