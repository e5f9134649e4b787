"""The files of a batch that the process of a job reads and writes; `spool` has the others, and tells their names."""

from __future__ import annotations

import _pickle as pickle
import os
import time

from ..cache.directory import CacheDirectory, remove_file, write_all
from ..cache.permissions import check_file
from ..errors import CacheError, VersionMismatch
from ..utils.lite_stdlib import Any, Callable, json_loads, suppress
from .batch import FORMAT, Batch, CallAgain, CallOutcome, CallStart

__all__ = ["CallFiles", "DirectoryFiles", "exit_file", "follow_moves"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # another user may have put a pipe there


class DirectoryFiles:
    """The files in one directory of a cache."""

    def __init__(self, home: CacheDirectory, path: str) -> None:
        self.home, self.path = home, path

    def _write(self, name: str, *parts: bytes) -> None:
        self._write_into(self.path, name, *parts)

    def _write_into(self, place: str, name: str, *parts: bytes | memoryview) -> None:
        """Write a file. The directory is not made again: without it no process waits any more."""
        descriptor, temporary = self.home.temporary_in(place)
        try:
            try:
                at = 0
                for part in parts:
                    write_all(descriptor, part, at)
                    at += len(part)
                os.fsync(descriptor)  # a job on another machine must find the file, even after a crash here
            finally:
                os.close(descriptor)
            os.rename(temporary, f"{place}/{name}")
        except BaseException:  # a full disk, most likely: half a file must not stay
            remove_file(temporary)
            raise

    def _read(self, name: str) -> bytes:
        with open(self._open(name), "rb") as file:
            return file.read()

    def _parsed(self, name: str, parse: Callable[[bytes], Any]) -> Any:
        """Read and parse a file.

        Raises:
            CacheError: the file is damaged.
            FileNotFoundError: the file is gone.
        """
        content = self._read(name)
        try:
            return parse(content)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise CacheError(f"{self.path}/{name} is damaged: {type(error).__name__}: {error}") from error

    def _open(self, name: str) -> int:
        """Open a file that no other user can have written, because the content may be unpickled."""
        path = f"{self.path}/{name}"
        descriptor = os.open(path, _READ)
        try:
            check_file(path, os.fstat(descriptor), self.home.trust, self.home.group, descriptor)
            for place in (f"{self.home.path}/jobs", self.path):
                self.home.check(place)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class CallFiles(DirectoryFiles):
    """The files of a batch and of its calls, as far as a job needs them.

    A thousand jobs may begin at once, so the work of submitters and waiting processes is in another module's subclass.
    """

    def __init__(self, home: CacheDirectory, token: str) -> None:
        super().__init__(home, f"{home.path}/jobs/{token}")
        self.token = token
        self._batch: Batch | None = None

    @property
    def batch(self) -> Batch:
        """The batch.

        Raises:
            FileNotFoundError: the batch was not written, or is gone.
        """
        if self._batch is None:
            self._batch = self._parsed("batch", self._load_batch)
        return self._batch

    def _load_batch(self, content: bytes) -> Batch:
        found = json_loads(content)
        if found.pop("format") != FORMAT:
            raise VersionMismatch(f"{self.path} was written by another version of Callyard ({found['callyard']})")
        return Batch.from_fields(found)

    def call(self, number: int) -> bytearray:
        """Return the packed call."""
        place = self.batch.calls[number]
        return self._part("calls", place.at, place.size)

    def buffer(self, at: int, size: int) -> bytearray:
        """Return a large part of arguments, in memory of its own."""
        return self._part("buffers", at, size)

    def buffers(self) -> list[bytes]:
        """Return the file of the large parts of arguments, if there is one, for another batch of the same calls."""
        with suppress(FileNotFoundError):
            return [self._read("buffers")]
        return []

    def _part(self, name: str, at: int, size: int) -> bytearray:
        descriptor = self._open(name)
        try:
            if at + size > os.fstat(descriptor).st_size:
                raise CacheError(f"{self.path}/{name} is damaged: it is too short")
            content, done = bytearray(size), 0
            while done < size and (count := os.preadv(descriptor, [memoryview(content)[done:]], at + done)):
                done += count
            return content
        finally:
            os.close(descriptor)

    def begin(self, number: int, begun: CallStart) -> None:
        self._write(f"{number}.begun", begun.replace(at=time.time()).dump())

    def run_again(self, number: int, again: CallAgain) -> None:
        """Keep the next attempt of a call."""
        self._write(f"{number}.again", again.dump())

    def again(self, number: int) -> CallAgain | None:
        """Return the kept attempt of a call that runs again; None for any other call."""
        with suppress(FileNotFoundError):
            kept: CallAgain = self._parsed(f"{number}.again", CallAgain.load)
            return kept
        return None

    def beat(self, number: int) -> None:
        """Touch the file that proves life, also when the scheduler cannot say so."""
        with suppress(OSError):
            os.utime(f"{self.path}/{number}.begun")

    def heart(self, number: int) -> int | None:
        """Return the time of the last beat (ns). The file is opened, so that a network file system asks the server."""
        with suppress(OSError):
            descriptor = self._open(f"{number}.begun")
            try:
                return os.fstat(descriptor).st_mtime_ns
            finally:
                os.close(descriptor)
        return None

    def end(self, number: int, end: CallOutcome) -> None:
        self._write(f"{number}.end", end.dump())

    def begun(self, number: int) -> CallStart | None:
        with suppress(FileNotFoundError):
            begun: CallStart = self._parsed(f"{number}.begun", CallStart.load)
            return begun
        return None

    def ended(self, number: int) -> CallOutcome | None:
        """Return the outcome of a call, received or not; None before its end."""
        for name in (f"{number}.end", f"{number}.seen"):
            with suppress(FileNotFoundError):
                end: CallOutcome = self._parsed(name, CallOutcome.load)
                return end if end.failure or end.state != "failed" else self._unstored(number)
        return None

    def _unstored(self, number: int) -> CallOutcome:
        """Return the outcome of a call with a failure, but without words of it on the disk."""
        error = CacheError(
            f"{self.batch.calls[number].name!r} failed, and its error could not be stored in {self.path}, whose disk "
            "or quota was used up: make room there, and submit the call again"
        )
        return CallOutcome("failed", failure=pickle.dumps((error, "")))

    def wait_for(self, number: int, job: str) -> None:
        """Write down another job, the one with the claim to this call's key."""
        self._write(f"{number}.waits", job.encode())

    def log(self, number: int) -> str:
        """Return the path of the output of a call; the scheduler knows only the element of the array."""
        element = self.batch.element_of(number) if self.batch.calls_per_job == 1 else number
        return f"{self.path}/{number if element is None else element}.log"

    def stop(self, element: int | None) -> None:
        """Write down that a job is told to end; later the script writes the exit code over this note."""
        self._write(exit_file(element or 0), b"stopped\n")


def exit_file(element: int | str) -> str:
    """Return the name of the file with the exit code of an element's script; a single job counts as the element 0."""
    return f"{element}.exit"


def follow_moves(home: CacheDirectory, token: str, number: int) -> tuple[str, int, CallOutcome | None]:
    """Return the batch and the number under which a call goes on, and its outcome there; None before its end."""
    outcome = CallFiles(home, token).ended(number)
    while outcome is not None and outcome.state == "moved":
        token, number = outcome.key, outcome.number
        outcome = CallFiles(home, token).ended(number)
    return token, number, outcome
