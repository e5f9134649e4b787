"""The spool: one directory on disk for each submission to a scheduler.

    <home>/jobs/<token>/batch     the submission, as JSON
                        calls     the calls themselves, one behind the other
                        buffers   likewise, the large parts of their arguments, each content once
                        script    the job's script
                        job       the scheduler's name of the job; written after the submission
                        job.0-9   likewise, of the first ten elements, if not all could be submitted at once
                        3.begun   call 3 is running: the place, and the key
                        3.end     the outcome; renamed to 3.seen by a process that has received it
                        3.superseded  a failure, after another submission of the call in another batch
                        3.log     the output
                        3.exit    the exit code of the script of element 3; "stopped" after SIGTERM
                        3.again   the arguments of the next attempt, and the number of attempts
                        at-...    an executor of a process that waits for all calls, as the submitter's does
                        at-...@3  an executor that waits for call 3

The token is random, and also in the job's comment. The directory is complete before the scheduler is told: it appears
as a whole, and has a name that no process looks at until then. So a process that finds one without a `job` can ask the
scheduler whether it has the job, or parts of it. The directory vanishes as a whole, too. Each file in it appears as a
whole, and is not changed afterwards.
"""

from __future__ import annotations

import _pickle as pickle
import os
import time

from ..cache.directory import CacheDirectory, remove_file, remove_tree, sync_directory, write_all
from ..cache.permissions import check_file
from ..errors import CacheError, VersionMismatch
from ..system.process_identity import may_live
from ..utils.lite_stdlib import Any, Callable, Container, Iterable, Iterator, Sequence, json_loads, suppress
from .batch import FORMAT, Batch, BatchPart, CallAgain, CallOutcome, CallPosition, CallStart

__all__ = [
    "Batch",
    "BatchDirectory",
    "CallOutcome",
    "CallPosition",
    "CallStart",
    "exit_file",
    "names",
]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # another user may have put a pipe there
_DIGITS = 10  # of the number of a call, at most
ENDED = ("end", "seen", "superseded")  # the progress of calls that have ended


class DirectoryFiles:
    """The files in one directory of a cache."""

    def __init__(self, home: CacheDirectory, path: str) -> None:
        self.home, self.path = home, path

    def _write(self, name: str, *parts: bytes) -> None:
        self._write_into(self.path, name, *parts)

    def _write_into(self, place: str, name: str, *parts: bytes) -> None:
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


class BatchDirectory(DirectoryFiles):
    """The directory of one batch."""

    def __init__(self, home: CacheDirectory, token: str) -> None:
        super().__init__(home, f"{home.path}/jobs/{token}")
        self.token = token
        self._batch: Batch | None = None
        self._parts: list[BatchPart] = []

    # -- the submitter's ---------------------------------------------------------------------------------

    def prepare(self, batch: Batch) -> Batch:
        """Take the batch that is going to be submitted, before the writing."""
        self._batch = batch
        return batch

    def create(self, batch: Batch, calls: Iterable[bytes], script: str, buffers: Sequence[bytes] = ()) -> None:
        """Write all files for the job; from then on the batch is meant to be submitted. Half of them are removed."""
        building = self.home.temporary_directory("jobs")
        try:
            if buffers:
                self._write_into(building, "buffers", *buffers)
            self._write_into(building, "calls", *calls)
            self._write_into(building, "script", script.encode())
            self._write_into(building, "batch", batch.dump())
            # The last step of the writing: the name appears with all files behind it.
            os.rename(building, self.path)
            sync_directory(f"{self.home.path}/jobs")
        except BaseException:
            remove_tree(building)
            self.remove()
            raise
        self._batch = batch

    def submitted_as(self, part: BatchPart) -> None:
        """Write down the elements that the scheduler has, and the ID of their job."""
        whole = part.end - part.first == self.batch.size
        self._write("job" if whole else f"job.{part.name}", part.job.encode())

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

    @property
    def parts(self) -> list[BatchPart]:
        """The parts that the scheduler has, as far as written down, in the order of the elements."""
        if self.missing(self._parts) is not None:  # a complete list stays so
            self._parts = sorted(self._read_parts(), key=lambda part: part.first)
        return self._parts

    def _read_parts(self) -> Iterator[BatchPart]:
        """Read the parts. A damaged file counts as not written: then the scheduler is asked, by the token."""
        whole = self._job("job")
        if whole is not None:
            yield BatchPart(0, self.batch.size, whole)
            return
        for name in names(self.path):
            job = self._job(name) if name.startswith("job.") else None
            if job is not None:
                with suppress(ValueError):
                    yield BatchPart.from_name(name.partition(".")[2], job)

    def _job(self, name: str) -> str | None:
        try:
            job: str = self._parsed(name, _name_of_job)
        except (FileNotFoundError, CacheError):
            return None
        return job

    def missing(self, parts: Iterable[BatchPart]) -> BatchPart | None:
        """Return the first elements outside of these parts."""
        first = 0
        for part in parts:
            if part.first > first:
                return BatchPart(first, part.first)
            first = max(first, part.end)
        return BatchPart(first, self.batch.size) if first < self.batch.size else None

    @property
    def unsent(self) -> BatchPart | None:
        """The first elements that the scheduler does not have, as far as is known."""
        return self.missing(self.parts)

    def job_of(self, number: int) -> str | None:
        """Return the scheduler's ID of the job that makes a call."""
        place, element = number // self.batch.calls_per_job, self.batch.element_of(number)
        job = next((part.job for part in self.parts if part.first <= place < part.end), None)
        return job if job is None or element is None else f"{job}_{element}"

    def call(self, number: int) -> bytearray:
        """Return the packed call."""
        place = self.batch.calls[number]
        return self._part("calls", place.at, place.size)

    def buffer(self, at: int, size: int) -> bytearray:
        """Return a large part of arguments, in memory of its own."""
        return self._part("buffers", at, size)

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

    # -- the job's -----------------------------------------------------------------------------------------

    def begin(self, number: int, begun: CallStart) -> None:
        self._write(f"{number}.begun", begun.replace(at=time.time()).dump())

    def run_again(self, number: int, attempt: int, restarts: int, arguments: bytes) -> None:
        """Keep the arguments of a call's next attempt; `restarts` of its job are for the sake of the attempts."""
        self._write(f"{number}.again", f"{attempt} {restarts}\n".encode(), arguments)

    def again(self, number: int) -> CallAgain | None:
        """Return the kept attempt of a call that has raised `Again`; None for any other call."""
        with suppress(FileNotFoundError):
            kept: CallAgain = self._parsed(f"{number}.again", CallAgain.load)
            return kept
        return None

    def beat(self, number: int) -> None:
        """Touch the file that proves life, also when the scheduler cannot say so."""
        with suppress(OSError):
            os.utime(f"{self.path}/{number}.begun")

    def end(self, number: int, end: CallOutcome) -> None:
        self._write(f"{number}.end", end.dump())

    # -- for all who wait ----------------------------------------------------------------------------------

    def listing(self) -> frozenset[str]:
        """Return the names of the files; none if the directory is gone."""
        return frozenset(names(self.path))

    def news(self, listing: Iterable[str] | None = None) -> dict[int, str]:
        """Return the progress of each call that has begun: "begun", "end", "seen" or "superseded", from one listing."""
        order = ("begun", *ENDED)
        found: dict[int, str] = {}
        for name in names(self.path) if listing is None else listing:
            number, what = _numbered(name)
            if what in order and order.index(what) >= order.index(found.get(number, "begun")):
                found[number] = what
        return found

    def is_whole(self) -> bool:
        """Return True if jobs find their calls here; False once the directory is kept only for the failures."""
        return os.path.exists(f"{self.path}/calls")

    def exit_file(self, number: int) -> str:
        """Return the name of the file by which the job of a call says that it is over, or is going to be."""
        return exit_file(self.batch.element_of(number) or 0)

    def stop(self, element: int | None) -> None:
        """Write down that a job is told to end; its script writes its exit code over that."""
        self._write(exit_file(element or 0), b"stopped\n")

    def forget_exit(self, number: int) -> None:
        """Remove what a job has left that is going to be started again."""
        self._unmark(self.exit_file(number))

    def wait_for(self, number: int, job: str) -> None:
        """Write down another job, the one with the claim to this call's key."""
        self._write(f"{number}.waits", job.encode())

    def waits(self) -> dict[int, str]:
        """Return the calls that wait so, each with the job with the claim."""
        found = {}
        for name in names(self.path):
            number, what = _numbered(name)
            if what == "waits":
                with suppress(FileNotFoundError, CacheError):
                    found[number] = self._parsed(name, bytes.decode)
        return found

    def begun(self, number: int) -> CallStart | None:
        with suppress(FileNotFoundError):
            begun: CallStart = self._parsed(f"{number}.begun", CallStart.load)
            return begun
        return None

    def heart(self, number: int) -> int | None:
        """Return the time of the last beat (ns). The file is opened, so that a network file system asks the server."""
        with suppress(OSError):
            descriptor = self._open(f"{number}.begun")
            try:
                return os.fstat(descriptor).st_mtime_ns
            finally:
                os.close(descriptor)
        return None

    def ended(self, number: int) -> CallOutcome | None:
        """Return the outcome of a call, received or not; None before its end."""
        for name in (f"{number}.end", f"{number}.seen"):
            with suppress(FileNotFoundError):
                end: CallOutcome = self._parsed(name, CallOutcome.load)
                return end if end.failure or end.state != "failed" else self._unstored(number)
        return None

    def _unstored(self, number: int) -> CallOutcome:
        """Return the outcome of a call that failed where the disk took no words about that."""
        error = CacheError(
            f"{self.batch.calls[number].name!r} failed, and its error could not be stored in {self.path}, whose disk "
            "or quota was used up: make room there, and submit the call again"
        )
        return CallOutcome("failed", failure=pickle.dumps((error, "")))

    def ended_at(self, number: int) -> float | None:
        """Return the time of a call's end (s since 1970, by the clock of the file system); None before its end."""
        for name in (f"{number}.end", f"{number}.seen"):
            with suppress(OSError):
                return os.stat(f"{self.path}/{name}").st_mtime
        return None

    def received(self, number: int) -> None:
        """Note that a process was told of the failure: a later submission runs the call again."""
        with suppress(OSError):  # without this note another process is told, too
            os.rename(f"{self.path}/{number}.end", f"{self.path}/{number}.seen")

    def log(self, number: int) -> str:
        """Return the path of the output of a call; the scheduler knows only the element of the array."""
        element = self.batch.element_of(number) if self.batch.calls_per_job == 1 else number
        return f"{self.path}/{number if element is None else element}.log"

    def attach(self, waiter: str, number: int | None = None) -> None:
        """Note a waiter for one call, or for all of them.

        Raises:
            FileNotFoundError: the batch is gone.
        """
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        with suppress(FileExistsError):
            os.close(os.open(f"{self.path}/{_mark(waiter, number)}", flags, 0o600))

    def leave(self, waiter: str) -> None:
        """Note that the waiter waits for no call here any more."""
        for name in names(self.path):
            if name.partition("@")[0] == _mark(waiter):
                self._unmark(name)

    def leave_one(self, waiter: str, number: int) -> None:
        """Note that the waiter does not wait for this call any more; a waiter for all calls stays."""
        self._unmark(_mark(waiter, number))

    def _unmark(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(f"{self.path}/{name}")

    def others(self, waiter: str, numbers: Container[int] | None = None) -> bool:
        """Return True if another waiter, not provably gone, waits for one of these calls, or for any."""
        for name in names(self.path):
            other, _, number = name.partition("@")
            if name.startswith("at-") and other != _mark(waiter):
                meant = numbers is None or not number.isdecimal() or int(number) in numbers
                if meant and may_live(other[len("at-") :].partition("+")[0]):
                    return True
        return False

    def keep_failures(self) -> bool:
        """Remove all but the output and the errors of failed calls; return False if there are none."""
        kept = [number for number, what in self.news().items() if what == "seen"]
        ends = (f"{number}.end" for number in range(len(self.batch.calls)))
        wanted = {"batch", "job", *(f"job.{part.name}" for part in self.parts), *ends}
        for number in kept:
            wanted |= {f"{number}.seen", f"{number}.begun", os.path.basename(self.log(number))}
        for name in names(self.path):
            if kept and name not in wanted:
                with suppress(OSError):
                    os.unlink(f"{self.path}/{name}")
        return bool(kept)

    def is_over(self) -> bool:
        """Return True if all calls have ended."""
        news = self.news()
        return all(news.get(number) in ENDED for number in range(len(self.batch.calls)))

    def elements_left(self) -> int:
        """Return the number of elements with unfinished calls; 0 for a batch that is gone."""
        news = self.news()
        if not news and not os.path.exists(self.path):
            return 0
        each, calls = self.batch.calls_per_job, range(len(self.batch.calls))
        return len({number // each for number in calls if news.get(number) not in ENDED})

    def remove_results(self) -> None:
        """Remove the results of the calls from the cache."""
        for number in range(len(self.batch.calls)):
            end = self.ended(number)
            if end is not None and end.state == "finished":
                self.home.remove(end.key)

    def superseded(self, number: int) -> None:
        """Remove the failure of a call that was submitted again.

        The file is renamed, not removed, because a call with a start and without an end counts as running.
        """
        with suppress(FileNotFoundError):
            os.unlink(self.log(number))
        with suppress(FileNotFoundError):
            os.rename(f"{self.path}/{number}.seen", f"{self.path}/{number}.superseded")
        if not self.is_whole() and set(self.news().values()) <= {"superseded"}:
            self.remove()

    def set_aside(self, reason: str) -> str:
        """Move the batch to the damaged files of the cache, with the reason beside it; return where it lies now."""
        return self.home.set_path_aside(self.path, reason)

    def remove(self) -> None:
        """Remove the whole batch."""
        removing = self.home.temporary_name(f"{self.home.path}/jobs")
        with suppress(FileNotFoundError):
            os.rename(self.path, removing)
            remove_tree(removing)


def exit_file(element: int | str) -> str:
    """Return the name of the file with the exit code of an element's script; a single job counts as the element 0."""
    return f"{element}.exit"


def names(path: str) -> Sequence[str]:
    """Return the names in a directory; none if there is no such directory."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _numbered(name: str) -> tuple[int, str]:
    """Return the number of a call, and the kind of its file; -1 for any other file."""
    number, _, what = name.partition(".")
    known = number.isascii() and number.isdecimal() and len(number) < _DIGITS
    return (int(number), what) if known else (-1, "")


def _name_of_job(content: bytes) -> str:
    name = content.decode()
    if not name.isprintable() or name.split() != [name]:
        raise ValueError("no scheduler calls a job so")
    return name


def _mark(waiter: str, number: int | None = None) -> str:
    return f"at-{waiter}" if number is None else f"at-{waiter}@{number}"
