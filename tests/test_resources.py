"""What may be asked for, what is refused and in which words, and when a plan exists."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from penstock.backends import plans
from penstock.backends.plans import GIB, make_plan
from penstock.errors import ResourceError
from penstock.node.shape import Capacity
from penstock.resources import ALIASES, Resources

DEFAULTS = Resources()
ROOMY = Capacity(cores=64, gpus=tuple("01234567"), memory=1024 * GIB)


@pytest.fixture(autouse=True)
def with_mpi(monkeypatch):
    """Plans do not depend here on whether this machine has MPI."""
    monkeypatch.setattr(plans, "why_no_mpi", lambda: None)


def refusal(**asked: object) -> str:
    with pytest.raises(ResourceError) as caught:
        DEFAULTS.updated(asked)
    return str(caught.value)


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("theirs", "ours", "value"),
    [
        ("cores", "ranks", 3),
        ("threads_per_core", "cores_per_rank", 3),
        ("gpus_per_core", "gpus_per_rank", 3),
        ("memory_max", "memory", 3),
        ("run_time_max", "run_time", 3),
        ("num_nodes", "nodes", 3),
    ],
)
def test_every_alias_means_what_ours_means(theirs, ours, value):
    assert DEFAULTS.updated({theirs: value}) == DEFAULTS.updated({ours: value}) == Resources(**{ours: value})
    assert refusal(**{theirs: value, ours: value}) == f"{ours} is given twice, as {theirs!r} and as {ours!r}"
    assert refusal(**{ours: value, theirs: value}) == f"{ours} is given twice, as {ours!r} and as {theirs!r}"


def test_that_is_all_aliases():
    assert len(ALIASES) == 6


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("core", "cores"),
        ("gpus", "gpus_per_rank"),
        ("mem", "memory"),
        ("memmory", "memory"),
        ("runtime", "run_time"),
        ("cores_per_ranks", "cores_per_rank"),
        ("priorty", "priority"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(wrong, meant):
    assert refusal(**{wrong: 1}) == f"unknown resource {wrong!r}: did you mean {meant!r}?"


def test_a_name_that_is_like_no_other_is_refused_with_all():
    message = refusal(zzz=1)
    assert message.startswith("unknown resource 'zzz'; known are ")
    assert "cores_per_rank, cwd" in message


def test_a_name_that_is_no_string():
    with pytest.raises(ResourceError, match="unknown resource 3"):
        DEFAULTS.updated({3: 1})  # type: ignore[dict-item]


def test_resources_are_a_mapping():
    with pytest.raises(ResourceError, match="must be a mapping"):
        DEFAULTS.updated([("cores", 1)])  # type: ignore[arg-type]


def test_changes_are_put_over_what_is_there():
    base = Resources(cores_per_rank=2, priority=5)
    assert base.updated({"priority": 1}) == Resources(cores_per_rank=2, priority=1)
    assert base.updated({}) is base
    assert base.asked() == {"cores_per_rank": 2, "priority": 5}


# ------------------------------------------------------------------ values


NAN, INF = float("nan"), float("inf")
BAD = {
    "ranks": [0, -1, 1.5, 2.0, "2", None, True, [1], int],
    "cores_per_rank": [0, -1, 1.5, "2", None, False, np.array([1, 2])],
    "gpus_per_rank": [-1, 0.5, "0", None, True],
    "restart_limit": [-1, "1", None, 1.0],
    "nodes": [0, 1.5, "2", (1, 2), True],
    "memory": [0, -1, "8", "8G", NAN, INF, True, 1j, [8]],
    "run_time": [0, -5, "1:00", NAN, INF, False, 10**400],
    "priority": [1.5, "high", None, True],
    "exclusive": [1, "yes", None],
    "cwd": [1, b"bytes", ["a"]],
    "error_log_file": [1, b"bytes"],
    "cache_directory": [1],
    "env": [1, ["A=1"], {"A": 1}, {1: "A"}, {"": "x"}, {"A=B": "x"}, {"A": "x\0y"}, {"A\0": "x"}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values], ids=repr
)
def test_a_value_that_makes_no_sense_is_refused_in_one_sentence(name, value):
    message = refusal(**{name: value})
    assert message.startswith(f"{name} must ")
    assert "\n" not in message
    if name != "env":
        assert message.endswith(f", not {value!r}")


def test_a_refusal_is_a_value_error_too():
    with pytest.raises(ValueError, match="ranks"):
        Resources(ranks=0)


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3), np.int32(3)], ids=lambda n: type(n).__name__)
def test_whole_numbers_of_other_libraries_become_ours(number):
    for name in ("ranks", "cores_per_rank", "gpus_per_rank", "restart_limit", "nodes", "priority"):
        value = getattr(Resources(**{name: number}), name)
        assert (type(value), value) == (int, 3)


@pytest.mark.parametrize("number", [np.float32(3), np.float64(3), np.int64(3), Fraction(3)])
def test_amounts_of_other_libraries_become_ours(number):
    for name in ("memory", "run_time"):
        value = getattr(Resources(**{name: number}), name)
        assert type(value) in (int, float)
        assert value == 3


def test_what_makes_sense_is_taken():
    Resources(priority=-3, memory=0.001, run_time=1e-3, cwd=Path("a"), env={"A": ""}, exclusive=True, nodes=None)


# ------------------------------------------------------------------ plans


NONE_HERE = [
    "partition",
    "queue",
    "account",
    "qos",
    "constraint",
    "gres",
    "job_name",
    "slurm_cmd_args",
    "cache_key",
    "cache_directory",
]


@pytest.mark.parametrize("name", NONE_HERE)
def test_what_means_nothing_on_one_machine_is_refused_not_dropped(name):
    with pytest.raises(ResourceError, match=f"{name} is for a .*; leave it out"):
        make_plan(Resources(**{name: "x"}), ROOMY)


amounts = st.none() | st.floats(0.001, 20, allow_nan=False) | st.integers(1, 20)


@given(
    ranks=st.integers(1, 5),
    cores=st.integers(1, 5),
    gpus=st.integers(0, 3),
    memory=amounts,
    nodes=st.none() | st.integers(1, 2),
    exclusive=st.booleans(),
    has=st.builds(
        Capacity,
        cores=st.integers(1, 12),
        gpus=st.integers(0, 4).map(lambda n: tuple(map(str, range(n)))),
        memory=st.integers(0, 16 * GIB),
    ),
)
def test_there_is_a_plan_exactly_if_it_fits(ranks, cores, gpus, memory, nodes, exclusive, has):
    resources = Resources(
        ranks=ranks,
        cores_per_rank=cores,
        gpus_per_rank=gpus,
        memory=memory,
        nodes=nodes,
        exclusive=exclusive,
    )
    fits = (
        ranks * cores <= has.cores
        and ranks * gpus <= len(has.gpus)
        and (memory or 0) * GIB <= has.memory
        and (nodes or 1) == 1
    )
    if not fits:
        with pytest.raises(ResourceError, match=r"asked for, and (there are|this machine is) .*; "):
            make_plan(resources, has)
        return
    shape = make_plan(resources, has).shape
    assert shape.cores == (has.cores if exclusive else ranks * cores)
    assert (shape.ranks, shape.cores_per_rank, shape.gpus) == (ranks, cores, ranks * gpus)
    assert shape.memory <= has.memory
    assert (shape.memory > 0) == (memory is not None)


def test_a_refusal_says_what_was_asked_for_what_there_is_and_what_to_do():
    small = Capacity(cores=4, gpus=("0",), memory=2 * GIB)
    for asked, message in [
        ({"cores_per_rank": 8}, "8 cores were asked for, and there are 4; ask for fewer, or set Local(cores=...)"),
        ({"ranks": 3, "cores_per_rank": 2}, "3 x 2 cores were asked for, and there are 4; "),
        ({"gpus_per_rank": 2}, "2 GPUs were asked for, and there are 1; "),
        ({"memory": 3.5}, "memory=3.5 GiB was asked for, and there are 2; ask for less, or set Local(memory=...)"),
        ({"nodes": 2}, "nodes=2 was asked for, and this machine is one; use nodes=1"),
    ]:
        with pytest.raises(ResourceError) as caught:
            make_plan(Resources(**asked), small)  # type: ignore[arg-type]
        assert str(caught.value).startswith(message)


def test_ranks_need_mpi(monkeypatch):
    monkeypatch.setattr(plans, "why_no_mpi", lambda: "mpi4py is not installed")
    with pytest.raises(ResourceError, match="ranks=2 needs MPI, and mpi4py is not installed"):
        make_plan(Resources(ranks=2), ROOMY)


def test_calls_with_limits_or_ranks_have_a_worker_to_themselves():
    assert not make_plan(Resources(), ROOMY).alone
    assert make_plan(Resources(memory=1), ROOMY).alone
    assert make_plan(Resources(memory=1e-12), ROOMY).alone
    assert make_plan(Resources(run_time=1), ROOMY).alone
    assert make_plan(Resources(ranks=2), ROOMY).alone


def test_calls_with_the_same_needs_have_the_same_shape():
    first = make_plan(Resources(env={"A": "1", "B": "2"}, priority=1, cwd="x"), ROOMY)
    second = make_plan(Resources(env={"B": "2", "A": "1"}, run_time=5), ROOMY)
    assert first.shape == second.shape
    assert first.shape != make_plan(Resources(env={"A": "1"}), ROOMY).shape


def test_paths_are_those_of_the_directory_at_submit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = make_plan(Resources(cwd="a", error_log_file=Path("b/log")), ROOMY).options
    assert options["cwd"] == os.path.join(tmp_path, "a")
    assert options["error_log_file"] == os.path.join(tmp_path, "b", "log")


def test_what_was_not_asked_for_is_not_sent():
    assert make_plan(Resources(), ROOMY).options == {}


def test_keys_of_the_users_own() -> None:
    """Those that the template of a job script uses; no others."""
    base = Resources(others={"colour": None, "size": None})
    assert base.asked() == {}
    red = base.updated({"colour": "red", "cores": 2})
    assert red.asked() == {"colour": "red", "ranks": 2}
    assert red.updated({"size": 3}).asked() == {"colour": "red", "ranks": 2, "size": 3}
    assert base.updated({"priority": 1}).asked() == {"priority": 1}
    with pytest.raises(ResourceError, match="'color': did you mean 'colour'"):
        base.updated({"color": 1})
    with pytest.raises(ResourceError, match="unknown resource 'others'"):
        base.updated({"others": {"colour": 1}})
    with pytest.raises(ResourceError, match="unknown resource 'colour'"):
        Resources().updated({"colour": 1})
