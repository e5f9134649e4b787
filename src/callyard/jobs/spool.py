"""The spool: one directory on disk for each submission to a scheduler.

    <home>/jobs/<token>/batch     what is submitted, as JSON
                        calls     the calls themselves, one behind the other
                        buffers   likewise, what is large in their arguments, each content once
                        script    what the scheduler runs
                        job       the scheduler's name of it; written after
                        job.0-9   likewise, of the first ten elements, where it did not take all of them at once
                        3.begun   call 3 is running: where, and under which key
                        3.end     how it ended; renamed to 3.seen by a process that has received that
                        3.superseded  it failed, and was submitted once more in another batch
                        3.log     what it printed
                        3.again   the arguments with which it has asked to be run again, and how often it did
                        at-...    an executor of a process that waits for its calls, as who has submitted them
                        at-...@3  one that waits for call 3

The token is random and also in the job's comment. The directory is there, with all that the job needs, before the
scheduler is told, and appears as a whole, under a name of which nobody takes notice until then. So whoever finds one
without a `job` can ask the scheduler whether it has got it, or parts of it. It vanishes as a whole too. What is in it
appears whole or not at all, and is not changed afterwards.
"""

from __future__ import annotations

import _pickle as pickle
import os
import time

from ..cache.directory import CacheDirectory, remove_file, remove_tree, sync_directory, write_all
from ..cache.permissions import check_file
from ..errors import CacheError, CallyardError, VersionMismatch
from ..system.process_identity import is_hexadecimal, may_live
from ..utils.lite_stdlib import Any, Callable, Container, Iterable, Iterator, Sequence, json_loads, suppress
from .batch import FORMAT, Batch, BatchPart, CallAgain, CallOutcome, CallPosition, CallStart

__all__ = ["Batch", "BatchDirectory", "CallOutcome", "CallPosition", "CallStart", "folders", "folders_by_age"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # it may be a pipe that somebody put there
_DIGITS = 10  # of the number of a call, at most
ENDED = ("end", "seen", "superseded")  # the progress of calls that have ended


class DirectoryFiles:
    """The files in one directory of a cache."""

    def __init__(self, home: CacheDirectory, path: str) -> None:
        self.home, self.path = home, path

    def _write(self, name: str, *parts: bytes) -> None:
        self._write_into(self.path, name, *parts)

    def _write_into(self, place: str, name: str, *parts: bytes) -> None:
        """Write a file. The directory is not made again: where it is gone nobody waits any more."""
        descriptor, temporary = self.home.temporary_in(place)
        try:
            try:
                at = 0
                for part in parts:
                    write_all(descriptor, part, at)
                    at += len(part)
                os.fsync(descriptor)  # what a job finds on another machine must be there whatever happens to this one
            finally:
                os.close(descriptor)  # network file systems report a full disk only now
            os.rename(temporary, f"{place}/{name}")
        except BaseException:
            with suppress(OSError):
                remove_file(temporary)  # of a full disk it may hold the last blocks
            raise

    def _read(self, name: str) -> bytes:
        with open(self._open(name), "rb") as file:
            return file.read()

    def _parsed(self, name: str, parse: Callable[[bytes], Any]) -> Any:
        """Read and parse a file. Raises CacheError if it is damaged, FileNotFoundError if it is gone."""
        content = self._read(name)
        try:
            return parse(content)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise CacheError(f"{self.path}/{name} is damaged: {type(error).__name__}: {error}") from error

    def _open(self, name: str) -> int:
        """Open a file that nobody else can have written, because its content may be unpickled."""
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
        """Take the batch that is going to be submitted, before it is written."""
        self._batch = batch
        return batch

    def create(self, batch: Batch, calls: Iterable[bytes], script: str, buffers: Sequence[bytes] = ()) -> None:
        """Write everything that the job needs; from then on it is meant to be submitted."""
        building = self.home.temporary_directory("jobs")
        if buffers:
            self._write_into(building, "buffers", *buffers)
        self._write_into(building, "calls", *calls)
        self._write_into(building, "script", script.encode())
        self._write_into(building, "batch", batch.dump())
        os.rename(building, self.path)
        sync_directory(f"{self.home.path}/jobs")
        self._batch = batch

    def submitted_as(self, part: BatchPart) -> None:
        """Write down which elements the scheduler has got, and the ID of their job."""
        whole = part.end - part.first == self.batch.size
        self._write("job" if whole else f"job.{part.name}", part.job.encode())

    @property
    def batch(self) -> Batch:
        """The batch. Raises FileNotFoundError where it was not written, or is gone."""
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
        """The parts that the scheduler has got, as far as that is written down, in the order of the elements."""
        if self.missing(self._parts) is not None:  # once it is complete it stays
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
        """Return the first elements that are in none of these parts."""
        first = 0
        for part in parts:
            if part.first > first:
                return BatchPart(first, part.first)
            first = max(first, part.end)
        return BatchPart(first, self.batch.size) if first < self.batch.size else None

    @property
    def unsent(self) -> BatchPart | None:
        """The first elements that the scheduler has not got, as far as is known."""
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
        """Return what is large in an argument, in memory of its own."""
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
        """Keep the arguments of a call's next attempt; `restarts` of its job are for the sake of that."""
        self._write(f"{number}.again", f"{attempt} {restarts}\n".encode(), arguments)

    def again(self, number: int) -> CallAgain | None:
        """Return what was kept of a call that has asked to be run again."""
        with suppress(FileNotFoundError):
            kept: CallAgain = self._parsed(f"{number}.again", CallAgain.load)
            return kept
        return None

    def beat(self, number: int) -> None:
        """Touch the file that shows that the job lives, also where the scheduler cannot say so."""
        with suppress(OSError):
            os.utime(f"{self.path}/{number}.begun")

    def end(self, number: int, end: CallOutcome) -> None:
        self._write(f"{number}.end", end.dump())

    # -- for all who wait ----------------------------------------------------------------------------------

    def news(self) -> dict[int, str]:
        """Return the progress of each call that has begun: "begun", "end", "seen" or "superseded", from one listing."""
        order = ("begun", *ENDED)
        found: dict[int, str] = {}
        for name in names(self.path):
            number, what = _numbered(name)
            if what in order and order.index(what) >= order.index(found.get(number, "begun")):
                found[number] = what
        return found

    def is_whole(self) -> bool:
        """Return whether jobs find their calls in it; not once it is kept only for the failures."""
        return os.path.exists(f"{self.path}/calls")

    def wait_for(self, number: int, job: str) -> None:
        """Write down that another job holds the claim that this call needs."""
        self._write(f"{number}.waits", job.encode())

    def waits(self) -> dict[int, str]:
        """Return the calls that wait so, each with the job that holds the claim."""
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
        """Return the time of the last beat (ns). The file is opened: then a network file system asks its server."""
        with suppress(OSError):
            descriptor = self._open(f"{number}.begun")
            try:
                return os.fstat(descriptor).st_mtime_ns
            finally:
                os.close(descriptor)
        return None

    def ended(self, number: int) -> CallOutcome | None:
        """Return how a call ended, received or not; None if it has not."""
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
        """Return the time at which a call ended (s since 1970, by the clock of the file system); None if it has not."""
        for name in (f"{number}.end", f"{number}.seen"):
            with suppress(OSError):
                return os.stat(f"{self.path}/{name}").st_mtime
        return None

    def received(self, number: int) -> None:
        """Note that its failure was told to somebody: a process that submits the call from now on runs it again."""
        with suppress(OSError):  # if that cannot be noted, somebody is told twice
            os.rename(f"{self.path}/{number}.end", f"{self.path}/{number}.seen")

    def log(self, number: int) -> str:
        """Return the path of the output of a call; the scheduler knows only the element of the array."""
        element = self.batch.element_of(number) if self.batch.calls_per_job == 1 else number
        return f"{self.path}/{number if element is None else element}.log"

    def attach(self, waiter: str, number: int | None = None) -> None:
        """Note a waiter for one call, or for all of them. Raises FileNotFoundError where the batch is gone."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        with suppress(FileExistsError):
            os.close(os.open(f"{self.path}/{_mark(waiter, number)}", flags, 0o600))

    def leave(self, waiter: str) -> None:
        """Note that it does not wait for any call here any more."""
        for name in names(self.path):
            if name.partition("@")[0] == _mark(waiter):
                self._unmark(name)

    def leave_one(self, waiter: str, number: int) -> None:
        """Note that it does not wait for this call any more; of waiters for all of them nothing changes."""
        self._unmark(_mark(waiter, number))

    def _unmark(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(f"{self.path}/{name}")

    def others(self, waiter: str, numbers: Container[int] | None = None) -> bool:
        """Return whether another waiter, not provably gone, waits for one of these calls, or for any."""
        for name in names(self.path):
            other, _, number = name.partition("@")
            if name.startswith("at-") and other != _mark(waiter):
                meant = numbers is None or not number.isdecimal() or int(number) in numbers
                if meant and may_live(other[len("at-") :].partition("+")[0]):
                    return True
        return False

    def keep_failures(self) -> bool:
        """Remove all but the output and the errors of calls that failed; return whether there are any."""
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
        """Return whether all calls have ended."""
        news = self.news()
        return all(news.get(number) in ENDED for number in range(len(self.batch.calls)))

    def elements_left(self) -> int:
        """Return how many elements have calls that have not ended; 0 where the batch is gone."""
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

        Its file gets another name instead of going, because a call with a start and no end counts as running.
        """
        with suppress(FileNotFoundError):
            os.unlink(self.log(number))
        with suppress(FileNotFoundError):
            os.rename(f"{self.path}/{number}.seen", f"{self.path}/{number}.superseded")
        if not self.is_whole() and set(self.news().values()) <= {"superseded"}:
            self.remove()

    def remove(self) -> None:
        """Remove the whole batch."""
        removing = self.home.temporary_name(f"{self.home.path}/jobs")
        with suppress(FileNotFoundError):
            os.rename(self.path, removing)
            remove_tree(removing)


def folders(home: CacheDirectory) -> Iterator[BatchDirectory]:
    """Yield the batches in a cache."""
    return (BatchDirectory(home, name) for name in names(f"{home.path}/jobs") if is_hexadecimal(name, 16))


def folders_by_age(home: CacheDirectory, known: Container[str] = ()) -> list[BatchDirectory]:
    """Return the batches that can be read, the oldest first, without those that are known already."""
    found = []
    for folder in folders(home):
        if folder.token not in known:
            try:
                found.append((folder.batch.created, folder))
            except (OSError, ValueError, CallyardError):  # being removed just now, or of another version
                continue
    return [folder for _, folder in sorted(found, key=lambda pair: pair[0])]


def names(path: str) -> Sequence[str]:
    """Return the names in a directory; none if it is not there."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _numbered(name: str) -> tuple[int, str]:
    """Return the number of a call, and the kind of its file; -1 where it is no file of a call."""
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
