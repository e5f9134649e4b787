"""This machine as the host for a scheduler's commands."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from threading import Event
from time import monotonic
from typing import IO

from ..schedulers.command import Reply

__all__ = ["LocalHost", "Reply"]

_DRAIN = 1.0  # seconds for the remaining output of a killed command
_LOOK = 0.2  # seconds between two looks at `stop`


class LocalHost:
    """This machine."""

    def environment(self) -> Mapping[str, str]:
        """Return the variables of this process."""
        return os.environ

    def exists(self, path: str) -> bool:
        """Return True if there is a file at this path."""
        return os.path.exists(path)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        stop: Event | None = None,
        stdin: str = "",
    ) -> Reply:
        """Run one command, at most for `timeout` seconds, with `env` in place of this process's environment.

        If another thread sets `stop`, the command is ended as at the time limit.

        The command inherits only the standard streams. It leads a session of its own, because Ctrl-C in the terminal
        must not end a submission halfway, and because at the time limit its children are killed with it.
        """
        with contextlib.ExitStack() as stack:
            try:
                source = stack.enter_context(_opened(stdin))
            except OSError as error:  # a full disk for temporary files, or no descriptors left
                return _cannot_run(argv[0], error)
            return self._run(argv, source, timeout, env, stop)

    def _run(
        self,
        argv: Sequence[str],
        source: int | IO[bytes],
        timeout: float,
        env: Mapping[str, str] | None,
        stop: Event | None,
    ) -> Reply:
        try:
            process = subprocess.Popen(
                argv,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=env,
                cwd=_directory(),
                start_new_session=True,
                umask=0o077,  # a job's log gets its mode from the umask of the submitting command
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


@contextlib.contextmanager
def _opened(text: str) -> Iterator[int | IO[bytes]]:
    """Yield the input of a command, as `Popen` takes it.

    The input is a file and no pipe, because after its first time-out `Popen.communicate` does not send the rest through
    a pipe.
    """
    if not text:
        yield subprocess.DEVNULL
        return
    from tempfile import TemporaryFile  # here, because few commands have input

    with TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        yield file


def _communicate(process: subprocess.Popen[bytes], timeout: float, stop: Event | None) -> tuple[bytes, bytes]:
    """Return the output. Only this thread may kill the process: for others the number may have been reused."""
    until = monotonic() + timeout
    while stop is not None and not stop.is_set() and monotonic() + _LOOK < until:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_LOOK)
    left = 0.0 if stop is not None and stop.is_set() else until - monotonic()
    return process.communicate(timeout=max(0.0, left))


def _directory() -> str | None:
    """Return where a command runs: here, unless this directory is gone, in which some commands refuse to run."""
    try:
        os.getcwd()
    except OSError:
        return "/"
    return None


def _not_run(program: str, error: OSError) -> Reply:
    if isinstance(error, FileNotFoundError):
        machine = platform.node()
        where = f"on the PATH of {machine}" if os.sep not in program else f"on {machine}"
        return Reply(127, "", f"there is no {program} {where}: is this a login node of the cluster?")
    return _cannot_run(program, error)


def _cannot_run(program: str, error: OSError) -> Reply:
    return Reply(126, "", f"{program} cannot be run on {platform.node()}: {error.strerror or error}")


def _killed(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Kill a command and its children; return their output until then."""
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
