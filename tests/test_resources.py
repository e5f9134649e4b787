"""What may be asked for, what is refused and in which words, and when a plan exists."""

from __future__ import annotations

import datetime as dt
import inspect
import os
import pickle
import re
import signal
import string
from fractions import Fraction
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, example, given

from callyard import Executor, Local, Slurm
from callyard.backends import resource_mapping
from callyard.backends.resource_mapping import GIB, job_options, make_plan, plan_for_nodes, with_nodes, without_nodes
from callyard.errors import ResourceError
from callyard.pool.call_shape import KindOffer, NodeCapacity, NodeOffer
from callyard.resources import ALIASES, NAMES, Resources

DEFAULTS = Resources()
ROOMY = NodeCapacity(cores=64, gpus=tuple("01234567"), memory=1024 * GIB)


@pytest.fixture(autouse=True)
def with_mpi(monkeypatch):
    """Plans do not depend here on whether this machine has MPI."""
    monkeypatch.setattr(resource_mapping, "why_no_mpi", lambda: None)


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


CORES = "cores_per_rank (threads of one call) or ranks (MPI)"


@pytest.mark.parametrize("wrong", ["ncores", "n_cores", "core", "cpus", "num_cpus", "Cores", "nCores"])
def test_cores_may_be_two_things(wrong):
    assert refusal(**{wrong: 1}) == f"unknown resource {wrong!r}: did you mean {CORES}?"


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("threads", "cores_per_rank"),
        ("cores_per_core", "cores_per_rank"),
        ("cpus_per_task", "cores_per_rank"),
        ("ntasks", "ranks"),
        ("gpu", "gpus_per_rank"),
        ("ram", "memory"),
        ("Memory", "memory"),
        ("memory-max", "memory"),
        ("walltime", "run_time"),
        ("timeout", "run_time"),
        ("workdir", "cwd"),
        ("environment", "env"),
        ("retries", "restart_limit"),
    ],
)
def test_words_from_elsewhere_are_answered_with_ours(wrong, meant):
    assert refusal(**{wrong: 1}) == f"unknown resource {wrong!r}: did you mean {meant!r}?"


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("max_workers", "Executor(max_workers=...)"),
        ("max_worker", "Executor(max_workers=...)"),
        ("backend", "Executor(backend=...)"),
        ("template", "backend=Slurm(template=...)"),
    ],
)
def test_a_parameter_that_is_no_resource_is_sent_where_it_belongs(wrong, meant):
    assert refusal(**{wrong: 1}) == f"unknown resource {wrong!r}: did you mean {meant}?"


def test_every_parameter_of_a_constructor_is_known_to_the_resources():
    for whose in (Executor, Local, Slurm):
        for name in inspect.signature(whose).parameters:
            if name not in (*NAMES, *ALIASES):
                assert f"did you mean {name!r}?" not in refusal(**{name: 1})
                assert "did you mean " in refusal(**{name: 1})


@st.composite
def slips(draw: st.DrawFn) -> tuple[str, str]:
    """A known name with one character missing, too many, another or swapped, and our name for it."""
    name = draw(st.sampled_from([*NAMES, *ALIASES]))
    at = draw(st.integers(0, len(name) - 1))
    letter = draw(st.sampled_from(string.ascii_lowercase + "_"))
    ways = [name[:at] + name[at + 1 :], name[:at] + letter + name[at:], name[:at] + letter + name[at + 1 :]]
    ways += [name + letter, name[:at] + name[at + 1 : at + 2] + name[at] + name[at + 2 :]]
    return draw(st.sampled_from(ways)), ALIASES.get(name, name)


@given(slips())
@example(("ores", "ranks"))
@example(("ev", "env"))
def test_one_slip_is_answered_with_the_name_that_was_meant(slip):
    wrong, meant = slip
    assume(wrong not in (*NAMES, *ALIASES))
    suggested = refusal(**{wrong: 1}).partition("did you mean ")[2]
    assert re.search(rf"\b{meant}\b", suggested)
    assert not any(re.search(rf"\b{theirs}\b", suggested) for theirs in ALIASES)


def test_a_name_that_is_like_no_other_is_refused_with_all():
    message = refusal(zzz=1)
    assert message.startswith("unknown resource 'zzz'; known are ")
    assert "cores_per_rank, cpu_bind, cwd" in message


@pytest.mark.parametrize("wrong", ["bogus", "foo", "label", "shell", "colour", "verbose"])
def test_a_name_that_is_like_one_by_chance_is_refused_with_all(wrong):
    assert refusal(**{wrong: 1}).startswith(f"unknown resource {wrong!r}; known are ")


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
    "memory": [0, -1, "8", "8X", "-1GB", "0GB", "4GB 2", "GB", "", "9" * 400 + "GB", NAN, INF, True, 1j, []],
    "run_time": [
        0,
        -5,
        "90",
        "1:00",
        "00:61:00",
        "1-25:61",
        "1h 2",
        "1 month",
        "",
        "9" * 5000 + ":00:00",
        "1" * 50 + "!",
        NAN,
        INF,
        False,
        10**400,
    ],
    "grace": [-1, True, NAN, "soon"],
    "warn_before": [0, -1, False],
    "priority": [1.5, "high", None, True],
    "exclusive": [1, "yes", None],
    "cwd": [1, b"bytes", ["a"], "a\0b", "half of a pair \ud800"],
    "error_log_file": [1, b"bytes", Path("a\0b")],
    "cache_directory": [1],
    **{name: [1, "", " ", b"x", "a\nb", "a\0"] for name in ("partition", "qos", "job_name", "wckey", "mail_user")},
    **{name: [1, "", "a b", [], ["a", ""], ["a", 1], "a\n"] for name in ("exclude", "nodelist", "licenses")},
    "mail_type": ["DIED", "END,", [], 3, ["END", "bla"]],
    "ranks_per_node": [0, 1.5, True, "2"],
    **{name: [1, "", "a\nb"] for name in ("cpu_bind", "gpu_bind")},
    "srun_args": [1, "--label 'a", ["a\0"]],
    "begin": [1, "", "soon", "2 o'clock", "now+2hours; true", "now\n", dt.date(2030, 1, 1)],
    "slurm_cmd_args": [1, "--comment='a", "--hold \0", ["--comment=\0"], b"--hold", {"hold": 1}],
    "env": [
        1,
        ["A=1"],
        {"A": 1},
        {1: "A"},
        {"": "x"},
        {"A=B": "x"},
        {"A": "x\0y"},
        {"A\0": "x"},
        {"A": "\ud800"},
        {"\ud800": "x"},
    ],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values], ids=repr
)
def test_a_value_that_makes_no_sense_is_refused_in_one_sentence(name, value):
    message = refusal(**{name: value})
    assert message.startswith(f"{name} must ")
    assert "\n" not in message
    assert ",," not in message
    if name != "env":
        assert message.endswith(f", not {value!r}")


def test_a_refusal_is_a_value_error_too():
    with pytest.raises(ValueError, match="ranks"):
        Resources(ranks=0)


@pytest.mark.parametrize("name", ["exclude", "nodelist", "licenses"])
def test_several_names_become_one_text(name):
    assert DEFAULTS.updated({name: ["n1", "n[3-4]"]}) == DEFAULTS.updated({name: "n1,n[3-4]"})


def test_kinds_of_mail_are_written_as_slurm_writes_them():
    assert Resources(mail_type=["fail", "Time_Limit_80"]).mail_type == "FAIL,TIME_LIMIT_80"


@pytest.mark.parametrize(
    "text",
    [
        *("now", "now+2hours", "now + 5 minutes", "now+30", "now-1hour", "today", "tomorrow", "noon", "Midnight"),
        *("16:00", "4:30pm", "16:00:01", "2030-01-31", "2030-01-31T12:00", "2030-01-31 12:00:59", "1/31/30", "013130"),
        "tomorrow 7:15",
    ],
)
def test_the_earliest_start_is_taken_as_slurm_reads_it(text):
    assert Resources(begin=f" {text} ").begin == text


def test_the_earliest_start_may_be_a_datetime():
    naive = dt.datetime(2030, 1, 31, 12, 0, 1, 500)  # noqa: DTZ001  # of this machine's zone
    assert Resources(begin=naive).begin == "2030-01-31T12:00:01"
    assert Resources(begin=naive.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=45)))) == Resources(begin=naive)


def test_arguments_of_a_command_stay_what_they_are():
    assert Resources(slurm_cmd_args="--a 'b c'").slurm_cmd_args == "--a 'b c'"
    assert Resources(slurm_cmd_args=(word for word in ("--a", "b c"))).slurm_cmd_args == ("--a", "b c")


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


@pytest.mark.parametrize(
    ("text", "gib"),
    [
        ("4GB", 4),
        ("4 GB", 4),
        ("4G", 4),
        ("4gib", 4),
        (" 1.5 TB ", 1536),
        (".5g", 0.5),
        ("512MiB", 0.5),
        ("500MB", 500 / 1024),
        ("1024 kB", 1 / 1024),
        ("1073741824B", 1),
        ("1P", 1 << 20),
    ],
)
def test_memory_may_be_a_text_with_a_unit(text, gib):
    assert Resources(memory=text) == Resources(memory=gib) == DEFAULTS.updated({"memory_max": text})
    assert Local(memory=text).memory == gib


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90min", 5400),
        ("90 m", 5400),
        ("5s", 5),
        ("1.5h", 5400),
        ("1h30min", 5400),
        ("2 h 5 min", 7500),
        ("1 hour", 3600),
        ("2d", 172_800),
        ("00:30:00", 1800),
        ("100:00:01", 360_001),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("1-00:00:01", 86_401),
    ],
)
def test_run_time_may_be_a_text_with_units_or_a_clocks(text, seconds):
    assert Resources(run_time=text) == Resources(run_time=seconds) == DEFAULTS.updated({"run_time_max": text})
    assert Slurm(walltime=text, result_grace=text) == Slurm(walltime=seconds, result_grace=seconds)


@given(st.integers(0, 40), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_a_time_is_the_same_however_it_is_written(days, hours, minutes, seconds):
    whole = Resources(run_time=((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    for text in (
        f"{days}-{hours}:{minutes}:{seconds}",
        f"{days * 24 + hours}:{minutes:02}:{seconds:02}",
        f"{days}d {hours} h{minutes}min {seconds}s",
    ):
        assert Resources(run_time=text) == whole


def test_what_was_a_text_is_a_number_from_then_on():
    wanted = Resources(memory="500MB", run_time="1-00:00:00")
    assert wanted.asked() == {"memory": 500 / 1024, "run_time": 86_400}
    assert pickle.loads(pickle.dumps(wanted)) == wanted == wanted.updated({"priority": 0})


def test_resources_are_made_by_any_of_their_names():
    assert Resources(cores=2, memory_max="1GB") == Resources(ranks=2, memory=1)  # type: ignore[call-arg]
    with pytest.raises(ResourceError, match=f"'cpus': did you mean {re.escape(CORES)}"):
        Resources(cpus=2)  # type: ignore[call-arg]


def test_what_makes_sense_is_taken():
    Resources(priority=-3, memory=0.001, run_time=1e-3, cwd=Path("a"), env={"A": ""}, exclusive=True, nodes=None)


# ------------------------------------------------------------------ plans


NONE_HERE = {
    **dict.fromkeys(("partition", "queue", "account", "qos", "constraint", "gres", "job_name", "slurm_cmd_args"), "x"),
    **dict.fromkeys(("reservation", "exclude", "nodelist", "licenses", "wckey", "mail_user"), "x"),
    "begin": "now",
    **dict.fromkeys(("cpu_bind", "gpu_bind", "srun_args"), "x"),
    "mail_type": "END",
    **dict.fromkeys(("cache_key", "cache_directory"), "x"),
}


@pytest.mark.parametrize("name", NONE_HERE)
def test_what_means_nothing_on_one_machine_is_refused_not_dropped(name):
    with pytest.raises(ResourceError, match=f"{name} is for a .*; leave it out"):
        make_plan(Resources(**{name: NONE_HERE[name]}), ROOMY)


@pytest.mark.parametrize("name", [name for name in NONE_HERE if not name.startswith(("cache", "cpu", "gpu", "srun"))])
def test_what_is_for_jobs_is_refused_in_one_that_is_there(name):
    with pytest.raises(ResourceError, match=f"{name} is for jobs, .*; leave it out"):
        plan_for_nodes(Resources(**{name: NONE_HERE[name]}), [KindOffer([])])


amounts = st.none() | st.floats(0.001, 20, allow_nan=False) | st.integers(1, 20)


@given(
    ranks=st.integers(1, 5),
    cores=st.integers(1, 5),
    gpus=st.integers(0, 3),
    memory=amounts,
    nodes=st.none() | st.integers(1, 2),
    exclusive=st.booleans(),
    has=st.builds(
        NodeCapacity,
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
        with pytest.raises(ResourceError, match=r"asked for, and (this executor has|this machine is) .*; "):
            make_plan(resources, has)
        return
    shape = make_plan(resources, has).shape
    assert shape.cores == (has.cores if exclusive else ranks * cores)
    assert (shape.ranks, shape.cores_per_rank, shape.gpus) == (ranks, cores, ranks * gpus)
    assert shape.memory <= has.memory
    assert (shape.memory > 0) == (memory is not None)


def test_a_refusal_says_what_was_asked_for_what_there_is_and_what_to_do():
    small = NodeCapacity(cores=4, gpus=("0",), memory=2 * GIB)
    has = "was asked for, and this executor has"
    for asked, message in [
        ({"cores_per_rank": 8}, f"cores_per_rank=8 {has} 4 cores; ask for fewer, or set Local(cores=...)"),
        ({"ranks": 3, "cores_per_rank": 2}, f"ranks=3 with cores_per_rank=2 {has} 4 cores; "),
        ({"gpus_per_rank": 2}, f"gpus_per_rank=2 {has} 1 GPU; "),
        ({"memory": 3.5}, f"memory=3.5 GiB {has} 2 GiB; ask for less, or set Local(memory=...)"),
        ({"nodes": 2}, "nodes=2 was asked for, and this machine is one; use nodes=1"),
    ]:
        with pytest.raises(ResourceError) as caught:
            make_plan(Resources(**asked), small)  # type: ignore[arg-type]
        assert str(caught.value).startswith(message)


def test_ranks_on_each_node_say_how_many_nodes_there_are():
    offers = [NodeOffer(cores=4)] * 3
    assert plan_for_nodes(Resources(ranks=4), [KindOffer(offers)]).need.nodes == 1
    for per_node, nodes in [(1, 4), (2, 2), (3, 2), (4, 1), (9, 1)]:
        asked = Resources(ranks=4, ranks_per_node=per_node)
        assert with_nodes(asked) == asked.updated({"nodes": nodes})
        if nodes <= len(offers):
            need = plan_for_nodes(asked, [KindOffer(offers)]).need
            assert (need.nodes, need.ranks_per_node) == (nodes, per_node if nodes > 1 else 0)
            assert need.shape.cores == (per_node if nodes > 1 else 4)
    with pytest.raises(ResourceError, match="nodes=3 was asked for, and ranks=4 with ranks_per_node=2 take 2; leave"):
        plan_for_nodes(Resources(ranks=4, ranks_per_node=2, nodes=3), [KindOffer(offers)])
    with pytest.raises(ResourceError, match="nodes=2 was asked for, and this machine is one"):
        make_plan(Resources(ranks=4, ranks_per_node=2), ROOMY)
    assert make_plan(Resources(ranks=4, ranks_per_node=4), ROOMY) is not None


def test_ranks_with_options_of_their_launcher_have_their_nodes_alone():
    offers = [NodeOffer(cores=4)] * 2
    need = plan_for_nodes(Resources(ranks=2, srun_args="--label '-m cyclic'"), [KindOffer(offers)]).need
    assert (need.nodes, need.exclusive, need.by_scheduler) == (1, True, True)
    assert need.rank_options.arguments == ("--label", "-m cyclic")
    assert not plan_for_nodes(Resources(ranks=2), [KindOffer(offers)]).need.by_scheduler
    for key in ("cpu_bind", "gpu_bind", "srun_args"):
        with pytest.raises(ResourceError, match=f"{key} is for calls with ranks, and this one has a single one"):
            plan_for_nodes(Resources(**{key: "x"}), [KindOffer(offers)])
        with pytest.raises(ResourceError, match=f"{key} is for calls with ranks"):
            job_options(Resources(**{key: "x"}))


def test_failed_nodes_are_excluded_beside_others():
    assert without_nodes(Resources(exclude="n1"), []).exclude == "n1"
    assert without_nodes(Resources(exclude="n1"), ["n2", "n3"]) == Resources(exclude=["n1", "n2", "n3"])
    assert without_nodes(Resources(), ["n2"]) == Resources(exclude="n2")
    assert without_nodes(Resources(nodelist="n2"), ["n2"]) == Resources(nodelist="n2")  # the user wants this one


def test_ranks_need_mpi(monkeypatch):
    monkeypatch.setattr(resource_mapping, "why_no_mpi", lambda: "mpi4py is not installed")
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


def test_the_home_is_that_of_the_computer_of_the_call(tmp_path, monkeypatch):
    asked = Resources(cwd="~/a", error_log_file=Path("~/log"))
    here = Resources(cache_directory="~/results").cache_directory
    monkeypatch.setenv("HOME", str(tmp_path))
    options = make_plan(asked, ROOMY).options
    assert [options["cwd"], options["error_log_file"]] == [str(tmp_path / "a"), str(tmp_path / "log")]
    assert here != str(tmp_path / "results")  # the cache of a call is on this computer


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


@pytest.mark.parametrize(("value", "seconds"), [(0, 0), ("0s", 0.0), (1.5, 1.5), ("2min", 120.0), (None, None)])
def test_grace_may_be_none_at_all(value: object, seconds: float | None) -> None:
    assert Resources(grace=value).grace == seconds


@pytest.mark.parametrize(("name", "value"), [("grace", -1), ("grace", True), ("warn_before", 0)])
def test_times_of_an_end_that_make_no_sense(name: str, value: object) -> None:
    with pytest.raises(ResourceError, match=f"{name} must be a"):
        Resources(**{name: value})


@pytest.mark.parametrize("value", ["USR2", "SIGUSR2", "usr2", 12, signal.SIGUSR2])
def test_the_signal_that_warns(value: object) -> None:
    assert Resources(warn_signal=int(value) if isinstance(value, signal.Signals) else value).warn_signal == "USR2"


@pytest.mark.parametrize("value", ["TERM", "KILL", 9, True, None, "", "USR3"])
def test_signals_that_warn_nobody(value: object) -> None:
    with pytest.raises(ResourceError, match="warn_signal must be one of USR1, USR2, HUP"):
        Resources(warn_signal=value)


@pytest.mark.parametrize(("given", "meant"), [("grace_period", "grace"), ("kill_wait", "grace"), ("warn_tme", "warn_")])
def test_names_of_ends(given: str, meant: str) -> None:
    with pytest.raises(ResourceError, match=meant):
        Resources(**{given: 1})


# ------------------------------------------------------------------ a value that does not change


def test_the_variables_are_those_of_the_moment() -> None:
    """Otherwise a call that waits could run with others than those in its key."""
    variables = {"A": "1"}
    asked = Resources(env=variables)
    variables["A"] = "2"
    assert asked.env == {"A": "1"}
    assert Resources(env=os.environ).env is not os.environ


def test_resources_can_be_keys_of_a_dict() -> None:
    asked = {"ranks": 2, "env": {"A": "1"}, "slurm_cmd_args": ["--hold"], "nodelist": ["n1"], "memory": "1GB"}
    assert {Resources(**asked): 1}[Resources(**asked)] == 1
    assert Resources(env={"A": "1"}) != Resources(env={"A": "2"})


def test_resources_are_no_mapping() -> None:
    with pytest.raises(ResourceError, match=r"of Resources, use `asked\(\)`$"):
        Resources().updated(Resources(ranks=2))  # type: ignore[arg-type]
    assert Resources().updated(Resources(ranks=2).asked()) == Resources(ranks=2)


def test_what_comes_after_a_limit_is_no_key() -> None:
    for wrong in {"next_memory": (3,)}, {"next_run_time": [60]}:
        with pytest.raises(ResourceError, match=r"is no key; give (memory|run_time) as a list"):
            Resources(**wrong)
    assert hash(Resources(memory=[1, 2])) == hash(Resources(memory=[1, 2]))
