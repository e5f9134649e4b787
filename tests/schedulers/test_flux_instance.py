"""What an instance of Flux tells of itself, and the commands for processes there. Answers are those of a Flux 0.88."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

import pytest
from test_flux_program import Pretended, pretended
from this_machine import until

from callyard.errors import ResourceError, SchedulerError
from callyard.resources import Resources
from callyard.schedulers.base import JobId, JobRequest, Query
from callyard.schedulers.flux.instance import FluxSteps, check_live, is_over, read_instance
from callyard.schedulers.flux.scheduler import FluxScheduler
from callyard.schedulers.job_environment import current_job
from callyard.schedulers.steps import AllocatedNode, RankOptions, RankStep

__all__ = ["pretended"]

STEPS, SITE = FluxSteps(), FluxScheduler().site()


def resource_set(ranks: str, children: Mapping[str, str], nodelist: str, ends: float = 0.0) -> dict[str, Any]:
    of_ranks = [{"rank": ranks, "children": dict(children)}]
    execution = {"R_lite": of_ranks, "starttime": 0.0, "expiration": ends, "nodelist": [nodelist]}
    return {"version": 1, "execution": execution}


TEST_INSTANCE = {  # of `flux start --test-size=4`
    "owner": 1000, "user": 1000, "job": "", "hostlist": "vm,vm,vm,vm", "expiration": 0.0,
    "R": resource_set("0-3", {"core": "0-1"}, "vm,vm,vm,vm"),
}  # fmt: skip
WITHOUT_ONE = {  # of four nodes with GPUs, after the loss of a broker
    "owner": 1000, "user": 1000, "job": "", "hostlist": "n[1-4]", "expiration": 0.0,
    "R": resource_set("0-1,3", {"core": "0-3", "gpu": "0-1"}, "n[1-2,4]"),
}  # fmt: skip
OF_A_JOB = {  # of `flux submit -N2 -t5m flux start`
    "owner": 1000, "user": 1000, "job": "f2QJycRu", "hostlist": "n[7-8]", "expiration": 1796041079.966613,
    "R": resource_set("0-1", {"core": "0"}, "n[7-8]", 1796041079.966613),
}  # fmt: skip


# ------------------------------------------------------------------ the instance


def test_nodes_of_one_host_are_named_by_their_ranks() -> None:
    found = read_instance(json.dumps(TEST_INSTANCE))
    assert found is not None
    assert found.nodes[:2] == (AllocatedNode("vm-0", 2, None, (), "0"), AllocatedNode("vm-1", 2, None, (), "1"))
    assert (len(found.nodes), found.ends, found.title) == (4, inf, "an instance of Flux")
    assert found.variables == {"CALLYARD_FLUX_JOB": "instance", "CALLYARD_FLUX_BY_RANK": "1"}


def test_a_node_that_is_down_is_left_out() -> None:
    found = read_instance(json.dumps(WITHOUT_ONE))
    assert found is not None
    assert [(node.name, node.address, node.gpus) for node in found.nodes] == [
        ("n1", "0", ("0", "1")), ("n2", "1", ("0", "1")), ("n4", "3", ("0", "1")),
    ]  # fmt: skip


def test_an_instance_that_is_a_job_ends_with_it() -> None:
    found = read_instance(json.dumps(OF_A_JOB))
    assert found is not None
    assert (found.job, found.title, found.ends) == ("f2QJycRu", "Flux job f2QJycRu", 1796041079.966613)
    environ = {**SITE.job_variables.environment(), **found.variables, "CALLYARD_FLUX_NODE": "n7"}
    job = current_job(environ)
    assert (job.job, job.node, job.ends) == ("f2QJycRu", "n7", 1796041079)


def test_an_instance_of_somebody_else_is_none() -> None:
    assert read_instance(json.dumps({"owner": 990, "user": 1000})) is None


def test_an_instance_without_a_node() -> None:
    nothing = {**TEST_INSTANCE, "R": {"version": 1, "execution": {"R_lite": []}}}
    with pytest.raises(SchedulerError, match="has no node that is up"):
        read_instance(json.dumps(nothing))


def ask(pretended: Pretended, **attributes: str) -> Any:
    pretended.script |= {"attributes": attributes, "all": OF_A_JOB["R"], "up": OF_A_JOB["R"]}

    def run(query: Query[Any], /) -> Any:
        reply = pretended.run(query)
        assert reply.code == 0, reply.err
        return query.read(reply.out)

    return run


def test_the_program_tells_of_the_instance(pretended: Pretended) -> None:
    own = {"security.owner": str(os.getuid()), "hostlist": "n[7-8]", "jobid": "f7"}
    found = STEPS.allocation({}, ask(pretended, **own))
    assert found is not None
    assert [node.name for node in found.nodes] == ["n7", "n8"]
    assert (found.job, found.ends) == ("f7", 1796041079.966613)
    another = {**own, "security.owner": str(os.getuid() + 1)}
    assert STEPS.allocation({}, ask(pretended, **another)) is None


def test_the_time_left_to_jobs(pretended: Pretended) -> None:
    pretended.script["jobs"] = [
        {"id": 1, "t_run": 5.0, "expiration": 0.0}, {"id": 2, "t_run": 5.0, "expiration": 10.0}, {"id": 3},
    ]  # fmt: skip
    assert SITE.time_left is not None
    query = SITE.time_left([JobId("f1"), JobId("f2"), JobId("f3"), JobId("f4")])
    left = query.read(pretended.run(query).out)
    assert left.keys() == {JobId("f1"), JobId("f2")}
    assert left[JobId("f1")] == inf
    assert left[JobId("f2")] < 0


def test_what_a_pilot_job_has_of_its_node() -> None:
    environ = {
        "CALLYARD_FLUX_JOB": "f7", "CALLYARD_FLUX_NODE": "n3", "CALLYARD_FLUX_CORES": "0-3", "CALLYARD_FLUX_GPUS": "0,2"
    }  # fmt: skip
    share = STEPS.share(environ)
    assert (share.job, share.nodes) == ("f7", (AllocatedNode("n3", 4, None, ("0", "2")),))
    with pytest.raises(ValueError, match="not inside an allocation"):
        STEPS.share({**environ, "CALLYARD_FLUX_CORES": ""})


def test_a_pilot_job_is_told_what_it_has() -> None:
    request = JobRequest("callyard", "0123", "/run/s", "/run/l", Resources(nodes=1, exclusive=True), whole_nodes=True)
    options = json.loads(FluxScheduler().submit(request).stdin)["options"]
    assert {"--nodes=1", "--exclusive", "--setopt=cpu-affinity=off"} <= set(options)
    assert "--env=CALLYARD_FLUX_CORES={{node.cores}}" in options


# ------------------------------------------------------------------ commands


def test_agents_are_started_by_one_command() -> None:
    command = STEPS.agents(["10", "2"], ["python", "-c", "main()"])
    assert command[:4] == ["flux", "exec", "-r", "2,10"]
    assert command[-3:] == ["python", "-c", "main()"]
    assert STEPS.agents(1, ["python"]) == ["python"]


def test_the_environment_names_no_gpus_of_this_process() -> None:
    environ = {"FLUX_URI": "local:///run", "CUDA_VISIBLE_DEVICES": "0", "CALLYARD_FLUX_JOB": "f1", "PMI_RANK": "0"}
    assert STEPS.environment(environ) == {"FLUX_URI": "local:///run"}


def test_what_slurms_launcher_understands_is_refused() -> None:
    with pytest.raises(ResourceError, match="srun_args means nothing to Flux"):
        check_live(Resources(ranks=2, srun_args="--mpi=pmix"))


def test_the_users_bindings_count() -> None:
    step = RankStep(["0"], 2, 2, options=RankOptions("per-task", "map:1;0"))
    assert STEPS.ranks(step, ["python"]).index("--setopt=cpu-affinity=per-task") > STEPS.ranks(step, []).index(
        "--setopt=cpu-affinity=off"
    )
    assert "--setopt=gpu-affinity=map:1;0" in STEPS.ranks(step, [])


@pytest.mark.parametrize(
    ("said", "over"),
    [
        ("flux-exec: flux_open: No such file or directory", True),
        ("flux-submit: ERROR: Unable to connect to Flux: broker socket /run/local-0 was not found", True),
        ("flux-exec: Error: rank 2: python: No route to host", False),
        ("[0-1,3]: Killed", False),
    ],
)
def test_an_instance_that_has_ended(said: str, over: bool) -> None:
    assert is_over(said) is over


# ------------------------------------------------------------------ ranks: their command, with a pretended flux

FLUX = """#!/bin/sh
# Note what is done; a job waits for its cancellation, or for the file `go`.
echo "$@" >> "$PLACE/said"
case "$1 $2" in
"submit "*) case "$*" in *refused*) echo "not a valid queue" >&2; exit 1 ;; esac; echo f7 ;;
"job raise") touch "$PLACE/cancelled" ;;
"job attach")
    touch "$PLACE/attached"
    while ! [ -e "$PLACE/go" ]; do
        if [ -e "$PLACE/cancelled" ]; then echo "job.exception f7 type=cancel" >&2; exit 143; fi
        sleep 0.02
    done
    exit 3 ;;
esac
"""


class Launched:
    """The command that starts ranks, running."""

    def __init__(self, place: Path, *options: str) -> None:
        (place / "flux").write_text(FLUX)
        (place / "flux").chmod(0o700)
        step = RankStep(["3", "1"], 4, 2, *options, cores=2, gpus=1)
        environment = {**os.environ, "PLACE": str(place), "PATH": f"{place}:{os.environ['PATH']}"}
        self.place = place
        self.process = subprocess.Popen(
            STEPS.ranks(step, [sys.executable, "it's $HOME"]), stdin=-1, stderr=-1, env=environment, text=True
        )

    def begun(self) -> None:
        until((self.place / "attached").exists)

    def ended(self) -> tuple[int, str]:
        """Return the exit code and the messages, of which the end comes with that of all processes."""
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        return self.process.wait(), said

    def done(self) -> list[str]:
        return (self.place / "said").read_text().splitlines()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> Launched:
            launched = Launched(tmp_path, *options)
            stack.enter_context(launched.process)
            return launched

        yield start


def test_ranks_are_a_job_on_their_nodes(launch: Any) -> None:
    ranks = launch("pmix")
    ranks.begun()
    (ranks.place / "go").touch()
    assert ranks.ended() == (3, "")
    submitted, attached = ranks.done()
    wanted = "--requires=rank:1,3 --nodes=2 --ntasks=4 --cores-per-task=2 --gpus-per-task=1"
    assert wanted in submitted
    assert "--setopt=pmi=pmix" in submitted
    assert submitted.endswith(f"{sys.executable} it's $HOME")
    assert attached == "job attach f7"


@pytest.mark.parametrize("end", ["SIGTERM", "end of input"])
def test_ranks_end_with_their_driver(launch: Any, end: str) -> None:
    ranks = launch()
    ranks.begun()
    if end == "SIGTERM":
        ranks.process.send_signal(signal.SIGTERM)
    else:
        ranks.process.stdin.close()
    code, said = ranks.ended()
    assert code != 0
    assert "job.exception f7 type=cancel" in said
    assert any(line.startswith("job raise --severity=0 --type=cancel f7") for line in ranks.done())


def test_ranks_that_are_refused(launch: Any) -> None:
    assert launch("refused").ended() == (1, "not a valid queue\n")
