"""Dry runs: nothing is computed, submitted or stored, and the plan says what would be, and why."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future as StandardFuture
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from pathlib import Path

import pytest

from callyard import (
    SSH,
    Cache,
    CacheError,
    CallyardError,
    Executor,
    Future,
    Local,
    NotComputed,
    ResourceError,
    Slurm,
    batched,
    item,
)  # fmt: skip
from callyard.backends.dry_run.plan import Plan
from callyard.cache.claims import Claims

SCALE = 2


def helper(x):
    return x * SCALE


def relax(x, force=0.1):
    return helper(x) + force


def pair(x):
    return x, -x


def fail(x):
    raise ValueError(x)


def count_files(path: Path) -> list[tuple[str, ...]]:
    return sorted((place, *dirs, *files) for place, dirs, files in os.walk(path))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A cache with two calls."""
    with Executor(backend=Local(cores=1), cache=tmp_path / "results") as ex:
        assert [ex.submit(relax, 1).result(), ex.submit(pair, 1).result()] == [2.1, (1, -1)]
    return tmp_path / "results"


def planned(results: Path | Cache | None, *calls: tuple, **settings) -> Plan:
    with Executor(cache=results, dry_run=True, **settings) as ex:
        for function, *arguments in calls:
            ex.submit(function, *arguments)
        return ex.plan()


def state_and_reason(plan: Plan) -> list[tuple[str, str]]:
    return [(call.state, call.reason) for call in plan.calls]


# ------------------------------------------------------------------ what is there, and what is not


def test_what_is_in_the_cache_is_answered(results: Path) -> None:
    with Executor(cache=results, dry_run=True) as ex:
        future = ex.submit(relax, 1)
        assert (future.result(), future.cached, len(future.key or "")) == (2.1, True, 40)
        (call,) = ex.plan().calls
    assert (call.number, call.name, call.state, call.reason, call.key) == (0, "relax", "cached", "", future.key)
    assert call.arguments == "x=1, force=0.1"


def test_nothing_is_computed_or_written(results: Path, tmp_path: Path, journal: str) -> None:
    before = count_files(tmp_path)
    with Executor(cache=results, dry_run=True) as ex:
        futures = [ex.submit(relax, 2), ex.submit(open, journal, "w")]
        assert [type(future.exception()) for future in futures] == [NotComputed, NotComputed]
        with pytest.raises(NotComputed, match=r"the result of 'relax' \(call 0\) is not there: this is a dry run"):
            futures[0].result()
        ex.plan()
    with Executor(cache=tmp_path / "missing", dry_run=True) as ex:
        ex.submit(relax, 2)
        ex.plan()
    assert count_files(tmp_path) == before


def test_the_reason_is_the_difference_from_the_nearest_call(results: Path) -> None:
    plan = planned(results, (relax, 1, 0.2), (relax, 2, 0.2), (max, 1, 2))
    assert state_and_reason(plan) == [
        ("to compute", "argument force: 0.1 -> 0.2"),
        ("to compute", "argument force: 0.1 -> 0.2; argument x: 1 -> 2"),
        ("to compute", "no call of max is in the cache"),
    ]
    assert plan.calls[0].nearest == Cache(results).keys()[0]
    assert plan.calls[2].nearest is None


def test_numpy_is_compared_by_its_values(results: Path) -> None:
    np = pytest.importorskip("numpy")
    with Executor(backend=Local(cores=1), cache=results) as ex:
        ex.submit(pair, np.float64(300.0)).result()
        ex.submit(relax, np.zeros((2, 2))).result()
    changed = np.zeros((2, 2))
    changed[1, 0] = 0.5
    plan = planned(results, (pair, np.float64(310.0)), (relax, changed))
    assert [call.reason for call in plan.calls] == [
        "argument x: 300.0 -> 310.0",
        "argument x: array float64 (2, 2), 1 of 4 elements differs: the first [1, 0] 0.0 -> 0.5",
    ]


def test_code_that_has_changed(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "helper", changed_helper())
    (call,) = planned(results, (relax, 1)).calls
    label = f"code of {__name__}.helper"
    assert (call.reason, call.differences) == (f"{label} changed", (f"{label} changed",))
    assert call.diffs[label].splitlines()[-3:] == [" def helper(x):", "-    return x * SCALE", "+    return SCALE * x"]


def changed_helper():
    space: dict = {"SCALE": SCALE, "__name__": __name__}
    path = Path(os.environ["TMPDIR"]) / "changed.py"
    path.write_text("def helper(x):\n    return SCALE * x\n")
    exec(compile(path.read_text(), str(path), "exec"), globals() | {"__file__": str(path)}, space)
    made = space["helper"]
    return type(made)(made.__code__, globals(), "helper")


def test_a_failure_runs_again_unless_it_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "results", failures=True)
    with Executor(backend=Local(cores=1), cache=cache) as ex:
        ex.submit(fail, 1).exception()
    (call,) = planned(Cache(tmp_path / "results"), (fail, 1)).calls
    assert call.state == "to compute"
    assert "failed at" in call.reason
    with Executor(cache=cache, dry_run=True) as ex:
        failed = ex.submit(fail, 1)
        after = ex.submit(relax, failed)
        assert [type(each.exception()) for each in (failed, after)] == [ValueError, ValueError]
        assert state_and_reason(ex.plan()) == [
            ("failed", "its failure is kept in the cache"),
            ("failed", "its input fail (0) has failed or was cancelled"),
        ]


def test_a_failure_that_is_kept_to_be_looked_at(results: Path) -> None:
    with Executor(backend=Local(cores=1), cache=results) as ex:
        ex.submit(fail, 1).exception()
    before = count_files(results)
    for cache in (Cache(results), Cache(results, mode="refresh")):
        ((state, reason),) = state_and_reason(planned(cache, (fail, 1)))
        assert state == "to compute"
        assert "it failed at" in reason
    assert count_files(results) == before


def test_a_cache_that_is_refreshed(results: Path) -> None:
    ((state, reason),) = state_and_reason(planned(Cache(results, mode="refresh"), (relax, 1)))
    assert state == "to compute"
    assert 'the cache is opened with mode="refresh"; it is there since' in reason


def test_a_damaged_file_stays(results: Path) -> None:
    (path,) = [entry.path for entry in Cache(results) if entry.function == "relax"]
    path.write_bytes(b"nonsense")
    with pytest.warns(UserWarning, match="read-only"):
        plan = planned(results, (relax, 1))
    assert state_and_reason(plan) == [("to compute", "its file in the cache is damaged")]
    assert path.read_bytes() == b"nonsense"


def test_a_call_that_another_process_runs(results: Path) -> None:
    (call,) = planned(results, (relax, 7)).calls
    claim = Claims(Cache(results)._directory).take(call.key, "relax")
    ((state, reason),) = state_and_reason(planned(results, (relax, 7)))
    claim.release()
    assert state == "running"
    assert reason.startswith(f"is run by process {os.getpid()} on ")


def test_a_key_of_the_users_own(results: Path) -> None:
    with Executor(cache=results, dry_run=True) as ex:
        waits = ex.submit(relax, ex.submit(relax, 3), resource_dict={"cache_key": "mine"})
        ex.submit(relax, 1, resource_dict={"cache_key": "other"})
        assert waits.key == "mine"
        assert state_and_reason(ex.plan())[1:] == [
            ("after inputs", "after relax (0)"), ("to compute", "there is no result with the key other"),
        ]  # fmt: skip


def test_the_status_counts_what_is_planned(results: Path) -> None:
    with Executor(cache=results, dry_run=True) as ex:
        relaxed = [ex.submit(relax, x) for x in (1, 7)]
        ex.submit(pair, relaxed[1])
        status = ex.status()
        ex.plan()
    assert status.calls == {"relax": {"cached": 1, "planned": 1}, "pair": {"planned": 1}}
    assert "2 to compute, 1 remembered" in str(status)


def test_the_same_call_twice(results: Path) -> None:
    plan = planned(results, (relax, 5), (relax, 5), (relax, 1), (relax, 1))
    assert [call.same_as for call in plan.calls] == [None, 0, None, None]
    assert plan.calls[1].reason == "the same call as 0"


def test_without_a_cache() -> None:
    with Executor(dry_run=True) as ex:
        ex.submit(relax, ex.submit(relax, 1))
        assert state_and_reason(ex.plan()) == [("to compute", "there is no cache"), ("after inputs", "after relax (0)")]


def test_what_cannot_be_keyed_is_refused_as_at_submit(results: Path) -> None:
    with Executor(cache=results, dry_run=True) as ex, open(os.devnull) as file:
        with pytest.raises(CacheError, match="argument 'x' of 'relax'"):
            ex.submit(relax, file)
        ex.submit(relax, 1)
        assert [call.number for call in ex.plan().calls] == [0]


# ------------------------------------------------------------------ calls that depend on others


def test_dependent_calls(results: Path) -> None:
    with Executor(cache=results, dry_run=True) as ex:
        known, new = ex.submit(pair, 1), ex.submit(pair, 2)
        futures = [
            ex.submit(relax, item(known, 0)), ex.submit(relax, item(new, 0)), ex.submit(sum, [item(known, 1), 5]),
            ex.submit(sum, [new, *batched([known], 1)]),
        ]  # fmt: skip
        plan = ex.plan()
        assert futures[0].result() == 2.1
    assert [call.inputs for call in plan.calls[2:]] == [(0,), (1,), (0,), (1, 0)]
    assert [call.state for call in plan.calls[2:]] == ["cached", "after inputs", "to compute", "after inputs"]
    assert plan.calls[3].reason == "after pair (1)"
    assert plan.calls[3].key is None


def test_many_inputs_are_counted(results: Path) -> None:
    with Executor(cache=results, dry_run=True) as ex:
        ex.submit(sum, [ex.submit(relax, number) for number in range(2, 1003)])
        assert ex.plan().calls[-1].reason == "after relax (0), relax (1), relax (2) and 998 more"


def test_futures_of_other_executors(results: Path) -> None:
    pending, failed, cancelled, done = (StandardFuture() for _ in range(4))
    failed.set_exception(OSError("disk"))
    cancelled.cancel()
    done.set_result(1)
    with Executor(cache=results, dry_run=True) as ex:
        futures = [ex.submit(relax, each) for each in (pending, failed, cancelled, done)]
        states = [call.state for call in ex.plan().calls]
        assert ex.plan().calls[0].reason == "after a future of another executor"
    assert states == ["after inputs", "failed", "failed", "cached"]
    assert str(futures[1].exception()) == "disk"
    assert futures[2].cancelled()
    assert futures[3].result() == 2.1


def test_calls_of_another_dry_run(results: Path) -> None:
    with Executor(cache=results, dry_run=True) as one, Executor(cache=results, dry_run=True) as other:
        other.submit(relax, 1)
        first, known = one.submit(pair, 2), one.submit(pair, 1)
        for future in (first, item(first, 0), item(known, 0)):
            other.submit(relax, future)
        calls = other.plan().calls[1:]
        one.plan()
    assert [call.inputs for call in calls] == [(), (), ()]
    assert [call.reason for call in calls] == ["after a future of another executor"] * 2 + [""]


def test_nothing_waits_without_end(results: Path) -> None:
    with Executor(cache=results, dry_run=True) as ex:
        futures = [ex.submit(relax, number) for number in range(3)]
        called: list[Future] = []
        futures[0].add_done_callback(called.append)
        assert len(wait(futures).done) == len(list(as_completed(futures))) == 3
        assert called == [futures[0]]
        assert not futures[0].cancel()
        with pytest.raises(NotComputed):
            list(ex.map(relax, range(3)))
        ex.plan()


# ------------------------------------------------------------------ every backend


def test_no_backend_is_opened(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for backend in ("slurm", "flux", "pbs", Slurm(nodes=2), Slurm(host=SSH("nowhere.invalid")), Local(detached=True)):
        assert len(planned(results, (relax, 2), backend=backend).calls) == 1


@pytest.mark.parametrize(
    ("backend", "resources", "says"),
    [
        ("local", {"memroy": 1}, "memroy"),
        ("local", {"cores": 1, "partition": "short"}, "partition is for a scheduler"),
        (Local(cores=2), {"cores_per_rank": 3}, "this executor has 2 cores"),
        (Local(cores=2, detached=True), {"cores_per_rank": 3}, "this executor has 2 cores"),
        (Slurm(), {"cpu_bind": "cores"}, "cpu_bind is for calls with ranks"),
        (Local(host=SSH("login"), detached=False), {"partition": "short"}, "partition is for a scheduler"),
    ],
)
def test_resources_are_refused_as_at_submit(results: Path, backend, resources: dict, says: str) -> None:
    with Executor(backend=backend, cache=results, dry_run=True) as ex:
        with pytest.raises(ResourceError, match=says):
            ex.submit(relax, 1, resource_dict=resources)
        ex.submit(relax, 1, resource_dict={"run_time": 60})
        (call,) = ex.plan().calls
    assert (call.state, call.asked) == ("cached", {"run_time": 60})


def test_other_executors(results: Path) -> None:
    class Unused(StandardExecutor):
        def submit(self, *args, **kwargs):
            raise AssertionError

    with Executor(backend=Unused(), cache=results, dry_run=True) as ex:
        with pytest.raises(ResourceError, match="cannot be passed on to Unused"):
            ex.submit(relax, 1, resource_dict={"cores_per_rank": 2})
        ex.submit(relax, 2)
        ex.plan()
    with pytest.raises(CallyardError, match="initializer belongs to"):
        Executor(backend=Unused(), initializer=print, dry_run=True)
    with pytest.raises(CallyardError, match="is not a backend"):
        Executor(backend="slrm", dry_run=True)


def test_views_share_the_plan(results: Path) -> None:
    with Executor(cache=results, dry_run=True) as ex:
        ex.with_resources(run_time=60).submit(relax, 1)
        assert len(ex.plan().calls) == 1
    with pytest.raises(RuntimeError, match="after shutdown"):
        ex.submit(relax, 1)


def test_threads_share_the_plan(results: Path) -> None:
    with Executor(cache=results, dry_run=True) as ex, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: ex.submit(relax, number), range(400)))
        assert [call.number for call in ex.plan().calls] == list(range(400))


def test_an_executor_that_runs_has_no_plan() -> None:
    with Executor(backend=Local(cores=1)) as ex, pytest.raises(CallyardError, match="dry_run=True"):
        ex.plan()


# ------------------------------------------------------------------ the plan for people and programs


def test_the_plan_is_told_once(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Executor(cache=results, dry_run=True) as ex:
        ex.submit(relax, 1)
        ex.submit(relax, 1, 0.2)
        ex.submit(relax, ex.submit(relax, 3))
    ex.shutdown()
    out = capsys.readouterr().out
    assert out == textwrap.dedent(f"""\
        dry run of 4 calls: nothing was computed or stored; the cache is {results}

        FUNCTION  TO COMPUTE  AFTER INPUTS  CACHED
        relax              2             1       1

        to compute:
          1  relax(x=1, force=0.2): argument force: 0.1 -> 0.2
          2  relax(x=3, force=0.1): argument x: 1 -> 3

        after inputs:
          3  relax(x=the result of relax (2), force=0.1): after relax (2)
    """)


def test_a_plan_that_was_asked_for_is_not_told_again(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(results, (relax, 1))
    assert capsys.readouterr().out == ""


def test_a_large_plan_is_short(results: Path) -> None:
    plan = planned(results, *((relax, number) for number in range(2000)))
    lines = str(plan).splitlines()
    assert len(lines) < 20
    assert lines[-1] == "  and 1,989 more calls of relax, as plan().calls shows"
    assert len(plan._repr_html_()) < 5000


def test_a_plan_as_data_and_html(results: Path) -> None:
    plan = planned(results, (relax, 1, "<b>"), (pair, 1))
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    assert "&lt;b&gt;" in plan._repr_html_()
    assert "<b>" not in plan._repr_html_()
    assert repr(plan) == "<Plan of 2 calls: 1 to compute, 1 cached>"


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(NotComputed("not there", 3, "aa")))
    assert (str(error), error.call, error.run, error.code) == ("not there", 3, "aa", 0)


# ------------------------------------------------------------------ programs

SCRIPT = """
import sys
from callyard import Executor

def relax(x):
    return x

with Executor(cache="results"{more}) as ex:
    for number in range(3):
        print("result", ex.submit(relax, number).result(), flush=True)
open("after", "w").close()
"""


def run(tmp_path: Path, more: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "study.py").write_text(SCRIPT.format(more=more))
    return subprocess.run(
        [sys.executable, "-W", "error", "study.py"], cwd=tmp_path, env=os.environ | environment, text=True, check=False,
        capture_output=True, timeout=60,
    )  # fmt: skip


def test_a_program_ends_at_the_first_result_that_is_not_there(tmp_path: Path) -> None:
    ended = run(tmp_path, ", dry_run=True")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "0  relax(x=0): no call of relax is in the cache" in ended.stdout
    assert "the result of relax (call 0) was asked for and is not there yet" in ended.stdout
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "after").exists()


def test_a_variable_makes_every_executor_plan(tmp_path: Path) -> None:
    assert run(tmp_path, CALLYARD_DRY_RUN="0").returncode == 0
    assert len(Cache(tmp_path / "results")) == 3
    ended = run(tmp_path, CALLYARD_DRY_RUN="1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("result 0\nresult 1\nresult 2\ndry run of 3 calls")
    ended = run(tmp_path, CALLYARD_DRY_RUN=str(tmp_path / "plans"))
    assert ended.stdout == "result 0\nresult 1\nresult 2\n"
    (line,) = (tmp_path / "plans").read_text().splitlines()
    assert [call.state for call in Plan.from_dict(json.loads(line)).calls] == ["cached"] * 3
    ended = run(tmp_path, CALLYARD_DRY_RUN="plans")
    assert "CALLYARD_DRY_RUN='plans' in the environment makes no sense" in ended.stderr


def test_the_plan_of_an_executor_without_an_end(tmp_path: Path) -> None:
    code = "from callyard import Executor\nex = Executor(dry_run=True)\nex.submit(abs, -1)\n"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("dry run of 1 call: ")
