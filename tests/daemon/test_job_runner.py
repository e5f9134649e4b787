"""Jobs that an earlier daemon has left: running, ended, cancelled, or lost with the machine."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from callyard.daemon.job_files import JobFiles
from callyard.daemon.job_names import JobNames
from callyard.daemon.job_processes import KeeperEnd, Keepers
from callyard.daemon.job_runner import JobRunner
from callyard.daemon.keeper import CLAIMED, NO_ROOM, KeptJob
from callyard.daemon.run_file import RunEnd, claim_run, write_end
from callyard.errors import ResourceError
from callyard.pool.call_shape import NodeCapacity
from callyard.system.process_identity import ProcessIdentity, this_process

JOB = {"log": "/log", "element": None, "lane": None, "after": []}


class PretendedKeepers(Keepers):
    """Keepers that are no processes; the test tells how they end."""

    def __init__(self) -> None:
        self.started: dict[str, KeptJob] = {}
        self.adopted: list[str] = []
        self.told: list[str] = []
        self.ended: list[KeeperEnd] = []
        self.refuses = False

    def start(self, name: str, job: KeptJob) -> None:
        if self.refuses:
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        self.started[name] = job

    def adopt(self, name: str, keeper: ProcessIdentity) -> None:
        self.adopted.append(name)

    def tell(self, name: str) -> None:
        self.told.append(name)

    def ends(self) -> Iterator[KeeperEnd]:
        while self.ended:
            yield self.ended.pop()


class Daemon:
    """A daemon of these files, with pretended keepers and a clock."""

    def __init__(self, place: Path) -> None:
        self.files, self.keepers, self.now = JobFiles(str(place)), PretendedKeepers(), 1000.0
        self.runner = JobRunner(
            self.files, self.keepers, NodeCapacity(2, (), 0), JobNames("host", "0a0b0c0d"), lambda: self.now
        )
        self.runner.load()

    def submit(self, token: str = "abc", **options: Any) -> str:
        common = {"script": "/script", "time": None, "requeue": False, "begin": None, "priority": 0, "grace": None}
        need = {"cores": 1, "gpus": 0, "memory": 0, "exclusive": False, "share": None}
        asked = {**common, **need, "jobs": [{**JOB, "token": token}], **options}
        (name,) = self.runner.submit(asked, {"A": "1"})
        return name

    def state(self, name: str) -> tuple[str, str]:
        job = self.runner.table.jobs[name]
        return job.state, job.why

    def start(self) -> list[str]:
        before = set(self.keepers.started)
        self.runner.start()
        return sorted(set(self.keepers.started) - before)


Make = Callable[[], Daemon]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda: Daemon(tmp_path)


def left_running(daemon: Daemon, keeper: ProcessIdentity, **options: Any) -> str:
    """Submit a job, and leave the file of a keeper; return its name."""
    name = daemon.submit(**options)
    claim_run(path := daemon.files.run_file("abc", 0), ())
    text = Path(path).read_text()
    Path(path).write_text(text.replace(json.dumps(this_process().label), json.dumps(keeper.label)))
    return name


BEFORE = this_process().replace(boot="0123456789abcdef", pid=4)
RENAMED = BEFORE.replace(host="other")  # the machine has another name since it was started again
GONE = this_process().replace(start=1)  # the number is another process's by now
OF_A_CONTAINER = this_process().replace(namespace="1.1")


def test_waiting_jobs_go_on(make: Make) -> None:
    first = make()
    name = first.submit(requeue=True)
    other = make()
    assert other.start() == [name]
    assert other.keepers.started[name].environment["A"] == "1"
    assert other.keepers.started[name].environment["CALLYARD_LOCAL_JOB"] == name


def test_running_jobs_are_taken_over(make: Make) -> None:
    name = left_running(make(), this_process())
    other = make()
    assert other.keepers.adopted == [name]
    assert other.start() == []
    assert other.state(name) == ("running", "")
    write_end(other.files.run_file("abc", 0), RunEnd("failed", 3))
    other.keepers.ended.append(KeeperEnd(name, None))
    other.runner.take_ends()
    assert other.state(name) == ("ended", "failed")
    third = make()
    assert third.state(name) == ("ended", "failed")
    assert third.runner.table.jobs[name].code == 3


@pytest.mark.parametrize(
    ("keeper", "why"),
    [(BEFORE, "rebooted"), (RENAMED, "rebooted"), (GONE, "killed"), (OF_A_CONTAINER, "rebooted")],
    ids=["before", "renamed", "gone", "of a container"],
)
def test_lost_jobs_are_not_run_again(make: Make, keeper: ProcessIdentity, why: str) -> None:
    name = left_running(make(), keeper)
    other = make()
    assert other.state(name) == ("ended", why)
    assert other.start() == []
    assert make().state(name) == ("ended", why)


def test_a_keeper_may_end_while_it_is_looked_at(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = make()
    name = left_running(daemon, this_process())

    def ends_now(keeper: ProcessIdentity) -> str:
        write_end(daemon.files.run_file("abc", 0), RunEnd("exited", 0))
        return "gone"

    monkeypatch.setattr(ProcessIdentity, "state", ends_now)
    assert make().state(name) == ("ended", "exited")


@pytest.mark.parametrize("keeper", [BEFORE, RENAMED], ids=["before", "renamed"])
def test_a_job_that_was_lost_with_the_machine_is_run_again_if_it_may(make: Make, keeper: ProcessIdentity) -> None:
    name = left_running(make(), keeper, requeue=True)
    other = make()
    assert other.start() == [name]
    assert other.keepers.started[name].environment["CALLYARD_LOCAL_RESTARTS"] == "1"
    assert make().runner.table.jobs[name].attempt == 1


@pytest.mark.parametrize("keeper", [GONE, OF_A_CONTAINER], ids=["gone", "of a container"])
def test_otherwise_it_is_not_even_if_it_may(make: Make, keeper: ProcessIdentity) -> None:
    left_running(make(), keeper, requeue=True)
    assert make().start() == []


def test_what_was_cancelled_stays_so(make: Make) -> None:
    first = make()
    name = left_running(first, this_process(), requeue=True)
    first.files.cancel("abc", 0)
    other = make()
    assert other.keepers.told == [name]
    waiting = other.submit("def")
    other.files.cancel("def", 0)
    assert make().state(waiting) == ("ended", "cancelled")


def test_a_submission_whose_answer_was_lost_is_the_same(make: Make) -> None:
    daemon = make()
    name = daemon.submit()
    assert daemon.submit() == name
    assert make().submit() == name


def test_a_job_waits_for_one_of_before_the_machine_was_renamed(make: Make) -> None:
    daemon = make()
    first = daemon.submit()
    daemon.runner._names = JobNames("new", "0a0b0c0d")
    second = daemon.submit("def", jobs=[{**JOB, "token": "def", "after": [first, "host-0a0b0c0d01020304-1"]}])
    assert second.startswith("new-0a0b0c0d")
    assert daemon.start() == [first]


def test_a_job_that_waits_for_another_machine_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="it waits for other-0a-1, a job of another machine"):
        make().submit(jobs=[{**JOB, "token": "abc", "after": ["other-0a-1"]}])


@pytest.mark.parametrize("code", [NO_ROOM, -9])
def test_a_keeper_that_found_no_room(make: Make, code: int) -> None:
    daemon = make()
    name = daemon.submit()
    assert daemon.start() == [name]
    daemon.keepers.ended.append(KeeperEnd(name, code))
    daemon.runner.take_ends()
    assert daemon.state(name) == ("waiting", "start")
    del daemon.keepers.started[name]
    daemon.now += 10
    assert daemon.start() == [name]


def test_no_room_for_a_process(make: Make) -> None:
    daemon = make()
    name = daemon.submit()
    daemon.keepers.refuses = True
    assert daemon.start() == []
    assert "no more processes" in daemon.runner.table.jobs[name].words
    daemon.keepers.refuses, daemon.now = False, 1010.0
    assert daemon.start() == [name]


def test_a_job_that_an_earlier_keeper_has_claimed(make: Make) -> None:
    daemon = make()
    name = daemon.submit()
    assert daemon.start() == [name]
    claim_run(daemon.files.run_file("abc", 0), ("7",))
    daemon.keepers.ended.append(KeeperEnd(name, CLAIMED))
    daemon.runner.take_ends()
    assert daemon.keepers.adopted == [name]
    assert daemon.runner.table.jobs[name].gpus == ("7",)


def test_old_jobs_are_forgotten(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = make()
    name = daemon.submit()
    daemon.runner.cancel(name)
    monkeypatch.setattr("callyard.daemon.job_files._KEPT", -1000.0)
    daemon.runner.forget_old()
    assert not daemon.runner.table.jobs


@pytest.mark.parametrize("begin", ["now+420000weeks", "0001-01-01", "tomorrow"])
def test_a_time_without_a_meaning_stops_no_later_daemon(make: Make, begin: str) -> None:
    with pytest.raises(ResourceError, match="begin="):
        make().submit(begin=begin)
    assert make().runner.table.jobs == {}


def test_a_damaged_request_is_named(make: Make, tmp_path: Path) -> None:
    make().submit()
    (tmp_path / "batches" / "abc" / "request").write_text("{")
    with pytest.raises(ValueError, match=r"batches/abc/request is damaged; remove .*batches/abc"):
        make()
