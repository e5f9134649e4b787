"""The spool: one directory on disk for each submission to a scheduler.

    <home>/jobs/<token>/batch     the submission, as JSON
                        calls     the calls themselves, one behind the other
                        buffers   likewise, the large parts of their arguments, each content once
                        script    the job's script
                        scripts   likewise of later attempts, with other limits, where they differ
                        job       the scheduler's ID of the job, or of each element; written after the submission
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

import os

from ..cache.directory import CacheDirectory, remove_tree, sync_directory
from ..errors import CacheError
from ..system.process_identity import may_live
from ..utils.lite_stdlib import Container, Iterable, Iterator, Mapping, Sequence, json_dumps, json_loads, suppress
from .batch import Batch, BatchPart, CallAgain, CallOutcome, CallPosition, CallStart
from .call_files import CallFiles, exit_file

__all__ = [
    "Batch",
    "BatchDirectory",
    "CallOutcome",
    "CallPosition",
    "CallStart",
    "exit_file",
    "names",
]

_DIGITS = 10  # of the number of a call, at most
_NONE: Mapping[str, str] = {}
ENDED = ("end", "seen", "superseded")  # the progress of calls that have ended


class BatchDirectory(CallFiles):
    """The directory of one batch."""

    def __init__(self, home: CacheDirectory, token: str) -> None:
        super().__init__(home, token)
        self._parts: list[BatchPart] = []

    # -- the submitter's ---------------------------------------------------------------------------------

    def prepare(self, batch: Batch) -> Batch:
        """Take the batch that is going to be submitted, before the writing."""
        self._batch = batch
        return batch

    def create(
        self,
        batch: Batch,
        calls: Iterable[bytes],
        script: str,
        again: CallAgain | None = None,
        buffers: Sequence[bytes | memoryview] = (),
        scripts: Mapping[str, str] = _NONE,
        earlier_log: str = "",
    ) -> None:
        """Write all files for the job; from then on the batch is meant to be submitted. Half of them are removed.

        `again`: the arguments with which its only call goes on. `scripts`: those of later attempts, by their limits.
        `earlier_log`: the path of the log that goes on in this call's.
        """
        self.prepare(batch)
        building = self.home.temporary_directory("jobs")
        try:
            if buffers:
                self._write_into(building, "buffers", *buffers)
            self._write_into(building, "calls", *calls)
            self._write_into(building, "script", script.encode())
            if scripts:
                self._write_into(building, "scripts", json_dumps(dict(scripts)).encode())
            self._write_into(building, "batch", batch.dump())
            if again is not None:
                self._write_into(building, "0.again", again.dump())
            if earlier_log:
                with suppress(OSError):  # none was written, or the file system has no links
                    os.link(earlier_log, f"{building}/{os.path.basename(self.log(0))}")
            # The last step of the writing: the name appears with all files behind it.
            os.rename(building, self.path)
            sync_directory(f"{self.home.path}/jobs")
        except BaseException:
            remove_tree(building)
            self.remove()
            raise

    def submitted_as(self, part: BatchPart) -> None:
        """Write down the elements that the scheduler has, and the ID of their job."""
        whole = part.end - part.first == self.batch.size
        self._write("job" if whole else f"job.{part.name}", part.job.encode())

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
        return next((part.job_of(place, element) for part in self.parts if part.first <= place < part.end), None)

    def asks_again(self, number: int) -> bool:
        """Return True if the call has asked for another attempt that has not begun: it beats no more.

        Some file systems count in milliseconds, so at the same time it may have begun.
        """
        try:
            asked = os.stat(f"{self.path}/{number}.again").st_mtime_ns
            return asked > os.stat(f"{self.path}/{number}.begun").st_mtime_ns
        except FileNotFoundError:
            return False

    def script(self) -> str:
        """Return the text that the scheduler runs."""
        return self._read("script").decode()

    def scripts(self) -> dict[str, str]:
        """Return the scripts of later attempts, by their limits; none if they do not differ from this one."""
        with suppress(FileNotFoundError):
            found: dict[str, str] = self._parsed("scripts", json_loads)
            return found
        return {}

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

    def may_have_jobs(self) -> bool:
        """Return True if the names of the files tell of a job. The files themselves may be unreadable."""
        return any(name.partition(".")[0] == "job" or name.endswith(".begun") for name in names(self.path))

    def noted_jobs(self) -> set[str]:
        """Return the IDs of the jobs that are written down; the batch itself may be unreadable."""
        found = (self._job(name) for name in names(self.path) if name.partition(".")[0] == "job")
        return {job for text in found if text is not None for job in text.split(",") if job}

    def last_touched(self) -> float | None:
        """Return the time at which a job has last shown that it runs a call (s since 1970); None for never."""
        times = []
        for name in names(self.path):
            if name.endswith(".begun"):
                with suppress(OSError):
                    times.append(os.stat(f"{self.path}/{name}").st_mtime)
        return max(times, default=None)

    def is_whole(self) -> bool:
        """Return True if jobs find their calls here; False once the directory is kept only for the failures."""
        return os.path.exists(f"{self.path}/calls")

    def exit_file(self, number: int) -> str:
        """Return the name of the file by which a call's job tells its end, or its coming end."""
        return exit_file(self.batch.element_of(number) or 0)

    def forget_exit(self, number: int) -> None:
        """Remove the note of a job's end, because the job is going to be started again."""
        self._unmark(self.exit_file(number))

    def waits(self) -> dict[int, str]:
        """Return the calls that wait so, each with the job with the claim."""
        found = {}
        for name in names(self.path):
            number, what = _numbered(name)
            if what == "waits":
                with suppress(FileNotFoundError, CacheError):
                    found[number] = self._parsed(name, bytes.decode)
        return found

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

    def others(self, waiter: str, numbers: Container[int] | None = None, executor: str = "") -> bool:
        """Return True if another waiter, not provably gone, waits for one of these calls, or for any.

        Waiters for this executor do not count.
        """
        for name in names(self.path):
            other, _, number = name.partition("@")
            if name.startswith("at-") and other != _mark(waiter):
                meant = numbers is None or not number.isdecimal() or int(number) in numbers
                label, _, name_of_executor = other[len("at-") :].partition("+")
                if meant and (not executor or name_of_executor != executor) and may_live(label):
                    return True
        return False

    def keep_failures(self) -> bool:
        """Remove all but the output and the errors of failed calls; return False if there are none.

        The start of a call tells its arguments. A call that never began, because an input failed, has them only in
        the file of all calls.
        """
        kept = [number for number, what in self.news().items() if what == "seen"]
        ends = (f"{number}.end" for number in range(len(self.batch.calls)))
        wanted = {"batch", "job", *(f"job.{part.name}" for part in self.parts), *ends}
        for number in kept:
            wanted |= {f"{number}.seen", f"{number}.begun", os.path.basename(self.log(number))}
            if not os.path.exists(f"{self.path}/{number}.begun"):
                wanted.add("calls")
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
        """Move the batch to the damaged files of the cache, with a note of the reason; return the new place."""
        return self.home.set_path_aside(self.path, reason)

    def remove(self) -> None:
        """Remove the whole batch."""
        removing = self.home.temporary_name(f"{self.home.path}/jobs")
        with suppress(FileNotFoundError):
            os.rename(self.path, removing)
            remove_tree(removing)


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
