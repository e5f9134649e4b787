"""Calls that are jobs outlive who submitted them: whoever submits them again attaches, and nothing runs twice."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path

import noted_calls as calls
import pytest
from cluster import Cluster
from drivers import Driver, executor
from gate import Gate
from noted_calls import has_begun, runs
from this_machine import until

from callyard import Executor, JobCancelled
from callyard.cache.directory import CacheDirectory
from callyard.futures import Future
from callyard.jobs.find_batches import folders
from callyard.jobs.spool import CallOutcome

Make = Callable[..., Executor]
Drive = Callable[..., Driver]


def has_run(journal: str, *words: str) -> None:
    until(lambda: set(words) <= set(runs(journal)))


def once(journal: str, *words: str) -> None:
    """Each of these has run, once, and nothing else has."""
    assert runs(journal) == dict.fromkeys(words, 1)


def nothing_left(results: Path) -> None:
    """Of what was submitted, once all of it has been received."""
    assert os.listdir(results / "jobs") == []


# ------------------------------------------------------------------ another process


GRAPH = """
    ex = executor(results)
    done = ex.submit(calls.noted, journal, "done")
    first = ex.submit(calls.held, journal, gate, "first")
    second = ex.submit(calls.noted, journal, "second", first, done)
    third = ex.submit(calls.held, journal, gate, "third", second)
    waits = ex.submit(calls.noted, journal, "waits", resource_dict={"slurm_cmd_args": ["--hold"]})
    done.result()
    ids(done=done, first=first, second=second, third=third, waits=waits)
"""


def submit_graph(ex: Executor, journal: str, gate: Gate) -> dict[str, Future[str]]:
    done = ex.submit(calls.noted, journal, "done")
    first = ex.submit(calls.held, journal, gate, "first")
    second = ex.submit(calls.noted, journal, "second", first, done)
    third = ex.submit(calls.held, journal, gate, "third", second)
    waits = ex.submit(calls.noted, journal, "waits", resource_dict={"slurm_cmd_args": ["--hold"]})
    return {"done": done, "first": first, "second": second, "third": third, "waits": waits}


@pytest.mark.parametrize("end", ["signal.pause()", "os._exit(0)", "", "ex.shutdown(wait=False)"])
def test_a_new_process_attaches(
    end: str, driver: Drive, make: Make, gate: Gate, journal: str, slurm: Cluster, results: Path
) -> None:
    old = driver(GRAPH + "    " + end)
    jobs = old.jobs()
    has_run(journal, "done", "first")
    if end == "signal.pause()":
        old.kill()
    else:
        assert old.finish() == (0, "")
    futures = submit_graph(make(), journal, gate)
    assert futures["done"].cached
    has_begun(futures["first"])
    until(lambda: all(future.job_id for name, future in futures.items() if name != "done"))
    assert {name: future.job_id for name, future in futures.items() if name != "done"} == {
        name: job for name, job in jobs.items() if name != "done"
    }
    assert not futures["second"].running()
    assert not futures["waits"].running()
    left = {jobs[name] for name in ("first", "second", "third", "waits")}
    until(lambda: set(slurm.jobs()) == left)  # the job of a call that is done may take an instant to end
    slurm.run("scontrol", "release", jobs["waits"])
    gate.open(2)
    assert futures["third"].result() == "third+second+first+done"
    assert futures["waits"].result() == "waits"
    assert [future.cached for name, future in futures.items() if name != "done"] == [False] * 4
    once(journal, "done", "first", "second", "third", "waits")
    until(lambda: not os.listdir(results / "jobs"))  # while the executor lives


def test_the_end_of_a_script(driver: Drive, make: Make, gate: Gate, journal: str) -> None:
    script = """
        atexit.register(lambda: print("cancelled", [future.cancelled() for future in futures]))
        ex = executor(results)
        first = ex.submit(calls.held, journal, gate, "first")
        futures = first, ex.submit(calls.noted, journal, "second", first)
        calls.has_begun(first)
    """
    old = driver(script)
    old.wait_for("cancelled [True, True]")
    assert old.finish() == (0, "")
    gate.open()
    assert make().submit(calls.noted, journal, "second", make().submit(calls.held, journal, gate, "first")).result()
    once(journal, "first", "second")


def test_what_was_just_submitted_goes_out_at_the_end_of_a_script(driver: Drive, make: Make, journal: str) -> None:
    old = driver("executor(results).submit(calls.noted, journal, 'call')")
    assert old.finish() == (0, "")
    has_run(journal, "call")
    assert make().submit(calls.noted, journal, "call").result() == "call"
    once(journal, "call")


def test_shutdown_without_waiting(make: Make, gate: Gate, journal: str, results: Path) -> None:
    ex = make()
    first = ex.submit(calls.held, journal, gate, "first")
    second = ex.submit(calls.noted, journal, "second", first)
    ex.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        ex.submit(calls.noted, journal, "third")
    gate.open()
    assert second.result() == "second+first"
    ex.shutdown()
    nothing_left(results)


def test_failures_are_told_once(driver: Drive, make: Make, journal: str, results: Path) -> None:
    script = """
        ex = executor(results)
        bad = ex.submit(calls.failing, journal, "bad")
        after = ex.submit(calls.noted, journal, "after", bad)
        last = ex.submit(calls.noted, journal, "last", after)
        ids(bad=bad, after=after, last=last)
        os._exit(0)
    """
    driver(script).finish()

    def submit() -> list[Future[str]]:
        bad = ex.submit(calls.failing, journal, "bad")
        after = ex.submit(calls.noted, journal, "after", bad)
        return [bad, after, ex.submit(calls.noted, journal, "last", after)]

    ex = make()
    for count in (1, 2):
        bad, after, last = submit()
        for future in (bad, after, last):
            with pytest.raises(ValueError, match=r"^bad") as caught:
                future.result()
            assert "noted_calls.py" in str(caught.value.__cause__)
        assert last.exception().__notes__ == ["callyard: noted <- noted <- failing"]  # type: ignore[union-attr]
        assert runs(journal) == {"bad": count}


def test_a_failure_that_one_process_has_received_is_not_told_to_another(
    driver: Drive, make: Make, journal: str
) -> None:
    old = driver("""
        ex = executor(results)
        print("failed with", ex.submit(calls.failing, journal, "bad").exception())
    """)
    old.wait_for("failed with bad")
    assert old.finish() == (0, "")
    with pytest.raises(ValueError, match="bad"):
        make().submit(calls.failing, journal, "bad").result()
    assert runs(journal) == {"bad": 2}


def test_a_graph_goes_on_without_its_driver(
    driver: Drive, make: Make, gate: Gate, journal: str, slurm: Cluster
) -> None:
    old = driver("""
        ex = executor(results)
        first = ex.submit(calls.held, journal, gate, "first")
        rows = [ex.submit(calls.noted, journal, f"row{number}", first) for number in range(3)]
        columns = [ex.submit(calls.noted, journal, f"column{number}", rows[number]) for number in range(3)]
        last = ex.submit(calls.noted, journal, "last", *columns)
        ids(last=last)
        signal.pause()
    """)
    old.jobs()
    has_run(journal, "first")
    old.kill()
    gate.open()
    until(lambda: not slurm.jobs())
    once(journal, "first", "last", *(f"{word}{number}" for word in ("row", "column") for number in range(3)))
    ex = make()
    first = ex.submit(calls.held, journal, gate, "first")
    rows = [ex.submit(calls.noted, journal, f"row{number}", first) for number in range(3)]
    columns = [ex.submit(calls.noted, journal, f"column{number}", rows[number]) for number in range(3)]
    last = ex.submit(calls.noted, journal, "last", *columns)
    assert last.cached
    assert last.result() == "last+column0+row0+first+column1+row1+first+column2+row2+first"


# ------------------------------------------------------------------ two at a time


BOTH = """
    ex = executor(results)
    future = ex.submit(calls.held, journal, gate, "call")
    ids(call=future)
    for word in sys.stdin:
        print("answer", eval(word), flush=True)
"""


def test_two_processes_share_a_job(driver: Drive, make: Make, gate: Gate, journal: str, results: Path) -> None:
    other = driver(BOTH)
    job = other.jobs()["call"]
    ex = make()
    future = ex.submit(calls.held, journal, gate, "call")
    until(lambda: future.job_id == job)
    gate.open()
    assert future.result() == "call"
    assert other.ask("future.result()") == "call"
    assert other.ask("ex.shutdown()") == "None"
    ex.shutdown()
    once(journal, "call")
    nothing_left(results)


HELD = {"slurm_cmd_args": ["--hold"]}  # so that a job stays in the queue


def three(
    driver: Drive, make: Make, journal: str, gate: Gate, resources: dict[str, object]
) -> tuple[Driver, list[Executor], list[Future[str]], str]:
    """A process that has submitted a call, and two executors here that attach: those count as two, too."""
    other = driver(BOTH.replace('"call")', f'"call", resource_dict={resources})'))
    job = other.jobs()["call"]
    both = [make(), make()]
    futures = [ex.submit(calls.held, journal, gate, "call", resource_dict=resources) for ex in both]
    until(lambda: all(future.job_id == job for future in futures))
    return other, both, futures, job


def test_who_cancels_does_not_harm_another(
    driver: Drive, make: Make, gate: Gate, journal: str, slurm: Cluster, results: Path
) -> None:
    other, (mine, ours), (first, second), job = three(driver, make, journal, gate, HELD)
    assert first.cancel()  # who has not submitted it
    mine.shutdown()
    assert other.ask("future.cancel()") == "True"  # who has
    assert other.ask("ex.shutdown()") == "None"
    slurm.run("scontrol", "release", job)
    gate.open()
    assert second.result() == "call"
    ours.shutdown()
    once(journal, "call")
    nothing_left(results)


def test_who_is_ended_does_not_harm_another(
    driver: Drive, make: Make, gate: Gate, journal: str, slurm: Cluster, results: Path
) -> None:
    other, (mine, ours), (first, second), _ = three(driver, make, journal, gate, {})
    has_begun(first)
    assert not first.cancel()
    mine.kill_workers()
    mine.shutdown()
    assert first.cancelled()
    assert other.ask("ex.kill_workers()") == "None"
    assert other.ask("ex.shutdown()") == "None"
    assert other.ask("future.cancelled()") == "True"
    gate.open()
    assert second.result() == "call"
    ours.shutdown()
    once(journal, "call")
    nothing_left(results)


def test_the_last_one_ends_the_job(
    driver: Drive, make: Make, gate: Gate, journal: str, slurm: Cluster, results: Path
) -> None:
    other, both, futures, _ = three(driver, make, journal, gate, HELD)
    for ex, future in zip(both, futures, strict=True):
        assert future.cancel()
        ex.shutdown()
    assert len(slurm.jobs()) == 1
    assert other.ask("future.cancel()") == "True"
    until(lambda: not slurm.jobs())
    assert other.ask("ex.shutdown()") == "None"
    nothing_left(results)


def test_who_waits_for_one_call_does_not_keep_another(
    driver: Drive, make: Make, gate: Gate, journal: str, slurm: Cluster, results: Path
) -> None:
    """Of the same array."""
    other = driver(f"""
        ex = executor(results, resource_dict={HELD})
        futures = [ex.submit(calls.noted, journal, f"call{{number}}") for number in range(3)]
        ids(first=futures[0], last=futures[2])
        for word in sys.stdin:
            print("answer", eval(word), flush=True)
    """)
    jobs = other.jobs()
    ex = make()
    mine = ex.submit(calls.noted, journal, "call0")
    until(lambda: mine.job_id == jobs["first"])
    assert other.ask("[future.cancel() for future in futures]") == "[True, True, True]"
    until(lambda: set(slurm.jobs()) == {jobs["first"]})
    slurm.run("scontrol", "release", jobs["first"])
    assert mine.result() == "call0"
    assert other.ask("ex.shutdown()") == "None"
    ex.shutdown()
    once(journal, "call0")
    nothing_left(results)


@pytest.mark.parametrize("how", ["withdrawn", "removed"])
def test_who_attaches_too_late_runs_the_call(
    how: str, driver: Drive, make: Make, gate: Gate, journal: str, slurm: Cluster, results: Path
) -> None:
    """Who cancels looks for others before, and may do so an instant before somebody comes."""
    other = driver(BOTH.replace('"call")', f'"call", resource_dict={HELD})'))
    job = other.jobs()["call"]
    ex = make()
    future = ex.submit(calls.held, journal, gate, "call")
    until(lambda: future.job_id == job)
    other.kill()
    slurm.run("scancel", job)
    (folder,) = folders(CacheDirectory.open(results))
    folder.end(0, CallOutcome("withdrawn")) if how == "withdrawn" else folder.remove()
    gate.open()
    assert future.result() == "call"
    assert future.job_id != job
    ex.shutdown()
    once(journal, "call")
    nothing_left(results)


# ------------------------------------------------------------------ cancelling


def test_cancel(make: Make, gate: Gate, journal: str, slurm: Cluster, results: Path) -> None:
    ex = make()
    running = ex.submit(calls.held, journal, gate, "running")
    queued = ex.submit(calls.noted, journal, "queued", resource_dict=HELD)
    after = ex.submit(calls.noted, journal, "after", queued)
    also = ex.submit(calls.noted, journal, "also", running)
    until(lambda: all(future.job_id for future in (running, queued, after, also)))
    assert queued.cancel()
    assert queued.cancelled()
    assert after.cancelled()
    has_begun(running)
    assert not running.cancel()  # as the standard library has it
    assert also.cancel()
    until(lambda: len(slurm.jobs()) == 1)
    again = ex.submit(calls.noted, journal, "queued")
    assert again.result() == "queued"
    gate.open()
    assert running.result() == "running"
    ex.shutdown()
    once(journal, "running", "queued")
    nothing_left(results)


def test_cancel_futures(make: Make, gate: Gate, journal: str, slurm: Cluster, results: Path) -> None:
    ex = make()
    running = ex.submit(calls.held, journal, gate, "running")
    has_begun(running)
    rest = [ex.submit(calls.noted, journal, f"call{number}", running) for number in range(20)]
    until(lambda: all(future.job_id for future in rest))
    ex.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in rest)
    until(lambda: len(slurm.jobs()) == 1)
    gate.open()
    assert running.result() == "running"
    ex.shutdown()
    once(journal, "running")
    nothing_left(results)


def test_kill_workers(make: Make, gate: Gate, journal: str, slurm: Cluster, results: Path) -> None:
    ex = make()
    running = ex.submit(calls.held, journal, gate, "running")
    queued = ex.submit(calls.noted, journal, "queued", running)
    has_begun(running)
    until(lambda: bool(queued.job_id))
    ex.kill_workers()
    with pytest.raises(JobCancelled, match=r"'held': job .* because its executor was ended"):
        running.result()
    wait([queued])
    assert queued.cancelled() or isinstance(queued.exception(), JobCancelled)
    until(lambda: not slurm.jobs())
    ex.shutdown()


CTRL_C = """
    with executor(results) as ex:
        future = ex.submit(calls.held, journal, gate, "call")
        after = ex.submit(calls.noted, journal, "after", future)
        ids(call=future, after=after)
        future.result()
"""


def test_ctrl_c_leaves_the_jobs(driver: Drive, make: Make, gate: Gate, journal: str, slurm: Cluster) -> None:
    old = driver(CTRL_C)
    jobs = old.jobs()
    has_run(journal, "call")
    old.process.send_signal(signal.SIGINT)
    code, errors = old.finish()
    assert code == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")
    assert set(slurm.jobs()) == set(jobs.values())
    ex = make()
    future = ex.submit(calls.held, journal, gate, "call")
    after = ex.submit(calls.noted, journal, "after", future)
    gate.open()
    assert after.result() == "after+call"
    once(journal, "call", "after")


def test_ctrl_c_without_a_cache_ends_the_jobs(driver: Drive, journal: str, slurm: Cluster, tmp_path: Path) -> None:
    old = driver(CTRL_C.replace("results", "None"), {"CALLYARD_RUNS": str(tmp_path / "runs")})
    old.jobs()
    has_run(journal, "call")
    old.process.send_signal(signal.SIGINT)
    assert old.finish()[0] == -signal.SIGINT
    until(lambda: not slurm.jobs())
    assert os.listdir(tmp_path / "runs") == []


# ------------------------------------------------------------------ without a cache


@pytest.fixture
def private(slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Executor, Path]]:
    """An executor without a cache, and where directories for such executors are made."""
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    with executor(None) as ex:
        yield ex, tmp_path / "runs"
        ex.kill_workers()


def records(runs: Path) -> list[Path]:
    # Not by `rglob`, which fails where a directory is removed while it looks.
    return [Path(where, name) for where, _, names in os.walk(runs) for name in names if name.endswith(".h5")]


def test_results_are_removed_once_delivered(private: tuple[Executor, Path], gate: Gate, journal: str) -> None:
    ex, place = private
    large = ex.submit(bytes, 3 << 20)
    first = ex.submit(calls.noted, journal, "first")
    second = ex.submit(calls.held, journal, gate, "second", first)
    has_begun(second)
    assert first.result() == "first"
    assert len(records(place)) == 2  # its batch is needed
    third = ex.submit(calls.noted, journal, "third", first)  # though that is delivered
    gate.open()
    assert (second.result(), third.result()) == ("second+first", "third+first")
    until(lambda: not records(place))
    (directory,) = place.iterdir()
    until(lambda: not os.listdir(directory / "jobs"))
    ex.shutdown()
    assert os.listdir(place) == []
    assert large.result() == bytes(3 << 20)
    once(journal, "first", "second", "third")


def test_nothing_is_reused_without_a_cache(private: tuple[Executor, Path], journal: str) -> None:
    ex, _ = private
    futures = [ex.submit(calls.noted, journal, "call") for _ in range(2)]
    assert [future.result() for future in futures] == ["call", "call"]
    assert runs(journal) == {"call": 2}
    assert [(future.key, future.cached) for future in futures] == [(None, None)] * 2


def test_a_failed_call_leaves_nothing_without_a_cache(private: tuple[Executor, Path], journal: str) -> None:
    ex, place = private
    with pytest.raises(ValueError, match=r"^bad"):
        ex.submit(calls.noted, journal, "after", ex.submit(calls.failing, journal, "bad")).result()
    ex.shutdown()
    assert os.listdir(place) == []


def test_what_a_killed_process_left_is_removed_later(
    driver: Drive, gate: Gate, journal: str, private: tuple[Executor, Path], slurm: Cluster
) -> None:
    _, place = private
    own = set(place.iterdir())
    old = driver("""
        first = executor(None).submit(calls.held, journal, gate, "first")
        ids(first=first)
        signal.pause()
    """)
    old.jobs()
    old.kill()
    executor(None).shutdown()
    assert len(list(place.iterdir())) == 2  # the job still runs
    gate.open()
    until(lambda: not slurm.jobs())
    executor(None).shutdown()
    assert set(place.iterdir()) == own


# ------------------------------------------------------------------ files


@pytest.fixture
def open_to_all() -> Iterator[None]:
    """A umask that takes nothing away."""
    old = os.umask(0)
    yield
    os.umask(old)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.mark.usefixtures("open_to_all")
def test_files_are_the_users_alone(make: Make, gate: Gate, journal: str, results: Path, here: Path) -> None:
    ex = make()
    future = ex.submit(calls.held, journal, gate, "call")
    array = [ex.submit(calls.noted, journal, f"call{number}", future) for number in range(2)]
    gate.arrived(1)
    until(lambda: all(each.job_id for each in array))
    modes = {str(path.relative_to(results)): mode(path) for path in results.rglob("*")}
    assert set(modes.values()) == {0o700, 0o600}, modes
    assert len([path for path in modes if path.endswith(".log")]) == 1
    gate.open()
    wait(array)
    ex.shutdown()
    nothing_left(results)
    assert os.listdir(here) == []


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
