"""What is typed for Slurm, and what its answers are taken for. Answers are copied from real clusters."""

from __future__ import annotations

import getopt
import shlex
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.errors import ResourceError, SchedulerError
from callyard.resources import Resources
from callyard.schedulers.base import Dependency, JobId, JobRequest, Refusal, Reply
from callyard.schedulers.slurm import commands as slurm
from callyard.schedulers.slurm.job_ids import elements, join, ranges
from callyard.schedulers.slurm.states import JobReport
from callyard.schedulers.slurm.user_arguments import SBATCH, SRUN, Command, check_arguments

TOKEN = "0123456789abcdef"


def request(resources: Resources | None = None, **changes: Any) -> JobRequest:
    fields: dict[str, Any] = {"name": "energy", "token": TOKEN, "script": "/run/job.sh", "log": "/run/{element}.log"}
    return JobRequest(**{**fields, "resources": resources or Resources(), **changes})


def submitted(resources: Resources | None = None, **changes: Any) -> list[str]:
    return slurm.submit(request(resources, **changes))


def why_refused(**asked: Any) -> str:
    """The reason why arguments of the user's own are refused; empty if they are taken."""
    try:
        check_arguments(Resources(**asked))
    except ResourceError as error:
        return str(error)
    return ""


def options(resources: Resources | None = None, **changes: Any) -> dict[str, str]:
    """The options of the command by name."""
    return dict(word.lstrip("-").partition("=")[::2] for word in submitted(resources, **changes)[1:-2])


# ------------------------------------------------------------------ submitting


def test_a_plain_job() -> None:
    assert submitted() == [
        "sbatch",
        "--parsable",
        f"--comment=callyard {TOKEN}",
        "--output=/run/0.log",
        "--open-mode=append",
        "--kill-on-invalid-dep=yes",
        "--no-requeue",
        "--export=ALL",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--job-name=energy",
        "--",
        "/run/job.sh",
    ]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"ranks": 3, "cores_per_rank": 2}, {"ntasks": "3", "cpus-per-task": "2"}),
        ({"memory": 1}, {"mem": "1024M"}),
        ({"memory": 0.0001}, {"mem": "1M"}),  # 0 would be all of a node's
        ({"memory": 1.0001}, {"mem": "1025M"}),
        ({"memory": 3, "nodes": 2}, {"mem": "1536M", "nodes": "2", "ntasks": "2"}),
        ({"ranks": 4, "nodes": 2}, {"nodes": "2", "ntasks": "4"}),
        ({"ranks": 4, "nodes": 2, "ranks_per_node": 3}, {"nodes": "2", "ntasks": "4", "ntasks-per-node": "3"}),
        ({"memory": 1, "ranks": 3}, {"mem-per-cpu": "342M"}),
        ({"gpus_per_rank": 2}, {"gres": "gpu:2"}),
        ({"gpus_per_rank": 2, "gres": "shard:1"}, {"gres": "shard:1,gpu:2"}),
        ({"gpus_per_rank": 2, "ranks": 4}, {"gpus-per-task": "2"}),
        ({"gpus_per_rank": 1, "ranks": 4, "nodes": 2, "gres": "nvme:1"}, {"gpus-per-task": "1", "gres": "nvme:1"}),
        ({"exclusive": True}, {"exclusive": ""}),
        ({"priority": 7}, {"nice": "-7"}),
        ({"priority": -7}, {"nice": "7"}),
        ({"priority": 10**12}, {"nice": "-2147483645"}),
        ({"priority": -(10**12)}, {"nice": "2147483645"}),
        (
            {"partition": "long", "account": "a", "qos": "q", "constraint": "x&y"},
            {"partition": "long", "account": "a", "qos": "q", "constraint": "x&y"},
        ),
        ({"queue": "long"}, {"partition": "long"}),
        ({"job_name": "my job"}, {"job-name": "my job"}),
        (
            {"reservation": "r", "exclude": ["n1", "n2"], "nodelist": "n3", "licenses": "tool:2", "begin": "now+1hour"},
            {"reservation": "r", "exclude": "n1,n2", "nodelist": "n3", "licenses": "tool:2", "begin": "now+1hour"},
        ),
        (
            {"wckey": "w", "mail_type": "fail,end", "mail_user": "me@there"},
            {"wckey": "w", "mail-type": "FAIL,END", "mail-user": "me@there"},
        ),
    ],
)
def test_resources(asked: dict[str, Any], expected: dict[str, str]) -> None:
    assert options(Resources(**asked)).items() >= expected.items()


@pytest.mark.parametrize("key", ["mem", "mem-per-cpu", "gres", "gpus-per-task", "nodes", "exclusive", "nice", "time"])
def test_what_is_not_asked_for_is_left_to_the_cluster(key: str) -> None:
    assert key not in options()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "1"), (60, "1"), (60.5, "2"), (86_399, "1-00:00"), (86_340, "1439"), (90_061, "1-01:02"), (1e6, "11-13:47")],
)
def test_the_time_is_rounded_up(seconds: float, text: str) -> None:
    assert options(time=seconds)["time"] == text


@pytest.mark.parametrize(
    ("name", "clean"),
    [("<lambda>", "lambda"), ("Näh.run", "Näh.run"), ("a b\nc", "a_b_c"), ("<>", "callyard"), ("x" * 2000, "x" * 64)],
)
def test_names_of_functions_become_names_of_jobs(name: str, clean: str) -> None:
    assert options(name=name)["job-name"] == clean


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ({"elements": 10}, "0-9"),
        ({"elements": 1}, "0"),
        ({"elements": 10, "at_once": 4}, "0-9%4"),
        ({"elements": (7, 1, 2, 3), "at_once": 1}, "1-3,7%1"),
    ],
)
def test_arrays(chosen: dict[str, Any], text: str) -> None:
    assert options(**chosen)["array"] == text


def test_logs() -> None:
    assert options(elements=3)["output"] == "/run/%a.log"
    assert options(log="/a%j b/{element}", elements=3)["output"] == "/a%%j b/%a"
    assert options(log=r"/a\b/%j")["output"] == r"/a\\b/%j"  # one backslash, and Slurm replaces nothing any more
    with pytest.raises(SchedulerError, match="backslash"):
        submitted(log=r"/a\b/{element}", elements=3)


def test_dependencies() -> None:
    after = (
        Dependency("ok", JobId.parse("1")),
        Dependency("any", JobId.parse("2")),
        Dependency("ok", JobId.parse("3_4")),
        Dependency("ok", JobId.parse("1")),
        Dependency("corresponding", JobId.parse("5")),
    )
    assert options(after=after)["dependency"] == "afterok:1:3_4,afterany:2,aftercorr:5"


def test_requeue() -> None:
    assert "requeue" in options(requeue=True)


def test_all_memory_of_whole_nodes() -> None:
    assert (
        options(Resources(nodes=2, exclusive=True), whole_nodes=True).items() >= {"mem": "0", "exclusive": ""}.items()
    )
    assert "mem" not in options(Resources(nodes=2), whole_nodes=True, templated=True)  # which says so itself


@pytest.mark.parametrize("words", ["--mem=0 --network='a b'", ("--mem=0", "--network=a b")])
def test_the_users_own_arguments_come_last(words: Any) -> None:
    argv = submitted(Resources(slurm_cmd_args=words))
    assert argv[-4:] == ["--mem=0", "--network=a b", "--", "/run/job.sh"]


@pytest.mark.parametrize(
    ("words", "refused", "instead"),
    [
        ("--hold --comment=mine", "--comment=mine", "by its comment a job is found again"),
        ("--comm mine", "--comm", "by its comment a job is found again"),  # as getopt_long(3) takes it
        ("-o here", "-o", "callyard logs"),
        ("-Hohere", "-Hohere", "callyard logs"),
        ("--output=here", "--output=here", "use error_log_file="),
        ("-e here", "-e", "use error_log_file="),
        ("--dependency=afterok:1", "--dependency=afterok:1", "use the future of the other call as an argument"),
        ("-a 1-3", "-a", "become arrays by themselves"),
        ("--signal=USR1@60", "--signal=USR1@60", "use warn_before= and warn_signal="),
        ("--requeue", "--requeue", "use restart_limit="),
        ("--no-requeue", "--no-requeue", "use restart_limit="),
        ("--wrap=true", "--wrap=true", "use setup= or template="),
        ("--quiet", "--quiet", "would not say the job's ID"),
        ("-vQ", "-vQ", "would not say the job's ID"),
        ("--wait", "--wait", "use future.result()"),
        ("--parsable", "--parsable", "leave it out"),
        ("-M other", "-M", "set the variable SLURM_CLUSTERS"),
        ("-D /tmp", "-D", "use cwd="),
        ("job.sh", "job.sh", "which sbatch may take for what it is to run"),
        ("--hold job.sh", "job.sh", "which sbatch may take for what it is to run"),
        ("-H job.sh", "job.sh", "which sbatch may take for what it is to run"),
        ("-n4 job.sh", "job.sh", "which sbatch may take for what it is to run"),
        ("--hint compute_bound job.sh", "job.sh", "which sbatch may take for what it is to run"),
        ("--begin -x job.sh", "job.sh", "which sbatch may take for what it is to run"),  # -x is the value
        ("--hold -- job.sh", "--", "which sbatch may take for what it is to run"),
    ],
)
def test_arguments_that_would_override_ours(words: str, refused: str, instead: str) -> None:
    why = why_refused(slurm_cmd_args=words)
    assert why.startswith(f"slurm_cmd_args has {refused!r}")
    assert instead in why
    assert why_refused(slurm_cmd_args=shlex.split(words)) == why


@pytest.mark.parametrize(
    ("words", "refused", "instead"),
    [
        ("--unbuffered -n 4", "-n", "use ranks="),
        ("--ntasks-per-node=2", "--ntasks-per-node=2", "use ranks_per_node="),
        ("--cpu-bind=cores", "--cpu-bind=cores", "use cpu_bind="),
        ("--gpu-b cores", "--gpu-b", "use gpu_bind="),
        ("--mpi=pmix", "--mpi=pmix", "use Slurm(mpi=)"),
        ("-uo here", "-uo", "what ranks print is the call's output"),
        ("-K0", "-K0", "one rank that fails shall end the others"),
        ("-w n1", "-w", "the nodes are chosen already"),
        ("-I5 other", "other", "which srun may take for what it is to run"),
        ("--exact ./program", "./program", "which srun may take for what it is to run"),
    ],
)
def test_arguments_of_srun_that_would_override_ours(words: str, refused: str, instead: str) -> None:
    why = why_refused(srun_args=words)
    assert why.startswith(f"srun_args has {refused!r}")
    assert instead in why


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("--mem=4G", "memory", 4),
        ("--mem-per-cpu=4G", "memory", 4),
        ("-t 30", "run_time", 60),
        ("--nice", "priority", -1),
        ("--mail-type=END", "mail_type", "FAIL"),
        ("--nodel=n1", "nodelist", "n2"),
        ("-n 4", "ranks", 2),
        ("-J x", "job_name", "y"),
        ("--gpus=2", "gpus_per_rank", 1),
    ],
)
def test_arguments_that_a_key_says_too(words: str, key: str, value: Any) -> None:
    word = shlex.split(words)[0]
    assert not why_refused(slurm_cmd_args=words)
    assert why_refused(slurm_cmd_args=words, **{key: value}) == (
        f"slurm_cmd_args has {word!r}, which {key}= says, too: leave out one of them"
    )


@pytest.mark.parametrize(
    "words",
    [
        *("--hold", "-H -vv", "--switches=1 --hint nomultithread", "--nice=5", "--exclusive=user", "--bb capacity=1G"),
        *("-p long", "-plong", "--export=ALL,A=1", "--time-min=5", "--mem-bind=local", "--wait-all-nodes=1", ""),
    ],
)
def test_arguments_that_are_taken(words: str) -> None:
    asked = Resources(slurm_cmd_args=words, memory=1, run_time=60, wckey="w")
    check_arguments(asked)
    assert submitted(asked)[-2 - len(shlex.split(words)) : -2] == shlex.split(words)


@pytest.mark.parametrize("words", ["--distribution=cyclic:block -l", "-u --threads-per-core 1", "--exact --label"])
def test_arguments_of_srun_that_are_taken(words: str) -> None:
    check_arguments(Resources(ranks=2, cpu_bind="cores", srun_args=words))


def words_for(command: Command) -> st.SearchStrategy[list[str]]:
    """Make words that are options of a command, long or short, whole or shortened, or none."""
    options = sorted({*command.kept, *command.keys, *command.flags, *command.letters.values()})
    valued = [option for option in options if option not in command.flags]
    word = st.one_of(
        st.builds(lambda option, size: f"--{option[:size]}", st.sampled_from(options), st.integers(1, 20)),
        st.sampled_from(valued).map("--{}=x".format),
        st.text(st.sampled_from([*command.letters, "5"]), min_size=1, max_size=3).map("-{}".format),
        st.sampled_from(["job.sh", "1", "--"]),
    )
    return st.lists(word, max_size=5)


@pytest.mark.parametrize(("key", "command"), [("slurm_cmd_args", SBATCH), ("srun_args", SRUN)])
@given(data=st.data())
def test_no_argument_comes_where_ours_are(key: str, command: Command, data: st.DataObject) -> None:
    """As getopt(3) reads what is taken, all of it is options, and none that Callyard needs."""
    words = data.draw(words_for(command))
    options = {*command.kept, *command.keys, *command.flags, *command.letters.values()}
    long = [option if option in command.flags else f"{option}=" for option in options]
    short = "".join(letter if option in command.flags else f"{letter}:" for letter, option in command.letters.items())
    if why_refused(**{key: words}):
        return
    try:
        found, rest = getopt.getopt(words, short, long)
    except getopt.GetoptError:
        return  # the command refuses it itself
    names = {option[2:] if option.startswith("--") else command.letters[option[1:]] for option, _ in found}
    assert not rest
    assert not names & command.kept.keys()


def test_a_template_has_directives_of_its_own() -> None:
    wanted = Resources(ranks=4, memory=3, partition="x", job_name="y", slurm_cmd_args=["--hint=nomultithread"])
    argv = submitted(wanted, templated=True, elements=2, after=(Dependency("ok", JobId.parse("1")),), time=60)
    given = {word.partition("=")[0] for word in argv[1:-2]}
    ours = {"--parsable", "--comment", "--array", "--output", "--open-mode", "--dependency", "--kill-on-invalid-dep"}
    assert given == ours | {"--no-requeue", "--export", "--hint"}


@pytest.mark.parametrize("out", ["123\n", "123;cluster\n", "Welcome!\n123\n"])
def test_the_number_of_the_job(out: str) -> None:
    assert slurm.submitted(out) == "123"


def test_no_number() -> None:
    with pytest.raises(SchedulerError, match="printed 'hello'"):
        slurm.submitted("hello\n")


# ------------------------------------------------------------------ refused

POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
NICE = "only Slurm's operators may use a priority above 0; give other calls one below 0 instead"


def said(*lines: str, code: int | None = 1) -> Reply:
    """What sbatch answers when it fails: some lines, the last one longer."""
    *before, last = lines
    err = "".join(f"sbatch: error: {line}\n" for line in [*before, f"Batch job submission failed: {last}"])
    return Reply(code, "", err)


@pytest.mark.parametrize(
    "lines",
    [
        ["AssocMaxSubmitJobLimit", POLICY],
        ["QOSMaxSubmitJobPerUserLimit", POLICY],
        ["AssocGrpSubmitJobsLimit", POLICY],
        [POLICY],
        ["Slurm temporarily unable to accept job, sleeping and retrying", "Resource temporarily unavailable"],
        ["Slurm job queue full, sleeping and retrying", "Resource temporarily unavailable"],
        ["Rate limit exceeded, please retry momentarily"],
        ["Unable to create job record, try again"],
    ],
)
def test_limits_are_told_from_mistakes(lines: list[str]) -> None:
    assert slurm.refusal(said(*lines)) == Refusal("limit", "; ".join(lines))


@pytest.mark.parametrize(
    "lines",
    [
        ["Unable to contact slurm controller (connect failure)"],
        ["Socket timed out on send/recv operation"],
        ["Zero Bytes were transmitted or received"],
        ["If munged is up, restart with --num-threads=10", "Protocol authentication error"],
    ],
)
def test_silence_is_told_from_a_refusal(lines: list[str]) -> None:
    assert slurm.refusal(said(*lines)) == Refusal("silent", "; ".join(lines))


@pytest.mark.parametrize(
    "lines",
    [
        ["invalid partition specified: nope", "Invalid partition name specified"],
        ["CPU count per node can not be satisfied", "Requested node configuration is not available"],
        ["Invalid qos specification"],
        ["Job dependency problem"],
        ["QOSMaxWallDurationPerJobLimit", POLICY],  # limits that this job alone exceeds
        ["QOSMaxCpuPerJobLimit", POLICY],
    ],
)
def test_mistakes_are_in_the_schedulers_words(lines: list[str]) -> None:
    assert slurm.refusal(said(*lines)) == Refusal("mistake", "; ".join(lines))


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(None), "silent", "no answer in time"),
        (Reply(-9, "7\n"), "silent", "it was killed before it had answered: 7"),
        (Reply(137), "silent", "it was killed before it had answered"),
        (said("Slurm job queue full", code=None), "silent", "no answer in time: Slurm job queue full"),
        (said("Invalid --nice value"), "mistake", f"Invalid --nice value; {NICE}"),
        (Reply(255, "", "sbatch: unrecognized option '--x'\n"), "mistake", "sbatch: unrecognized option '--x'"),
        (Reply(127, "", "there is no sbatch here"), "mistake", "there is no sbatch here"),
        (Reply(1, "on stdout\n"), "mistake", "on stdout"),
        (Reply(3), "mistake", "exit code 3 without a word"),
    ],
)
def test_other_refusals(reply: Reply, kind: Any, words: str) -> None:
    assert slurm.refusal(reply) == Refusal(kind, words)


NO_DNS = """\
scontrol: error: resolve_ctls_from_dns_srv: res_nsearch error: {}
scontrol: error: fetch_config: DNS SRV lookup failed
scontrol: error: _establish_config_source: failed to fetch config
scontrol: fatal: Could not establish a configuration source
"""
NO_FILE = "s_p_parse_file: {} file /etc/slurm.conf: No such file or directory, retrying in 1sec up to 60sec"


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(1, "", NO_DNS.format("Unknown host")), "scontrol: Could not establish a configuration source"),
        (Reply(1, "", NO_DNS.format("No address associated with name")), "scontrol: Could not establish a"),
        (
            Reply(None, "", f"sinfo: error: {NO_FILE.format('cannot stat')}\n"),
            "sinfo: s_p_parse_file: cannot stat file",
        ),
        (Reply(1, "", f"sbatch: error: {NO_FILE.format('unable to status')}\n"), "sbatch: s_p_parse_file: unable"),
        (
            Reply(
                1, "", "sbatch: error: No SlurmctldHost defined.\nsbatch: fatal: Unable to process configuration file"
            ),
            "sbatch: Unable to process configuration file",
        ),
    ],
)
def test_a_client_without_a_configuration(reply: Reply, why: str) -> None:
    absent = slurm.why_absent(reply)
    assert absent is not None
    assert absent[0].startswith(f"no Slurm cluster is configured here ({why}")
    assert absent[1].startswith("set SLURM_CONF")


def test_a_machine_without_slurm() -> None:
    assert slurm.why_absent(Reply(127, "", "there is no sbatch")) == (
        "Slurm is not installed here",
        "there is no sbatch",
    )


@pytest.mark.parametrize(
    "reply",
    [
        Reply(1, "", NO_DNS.format("Host name lookup failure")),  # the DNS does not answer just now
        Reply(1, "", NO_DNS.format("Unknown host") + "scontrol: error: Unable to contact slurm controller\n"),
        said(
            "fetch_config: failed to fetch remote configs: Connection refused",
            "Could not establish a configuration source",
        ),
        said("Unable to contact slurm controller (connect failure)"),
        said("Invalid qos specification"),
        Reply(None),
        Reply(0, "7\n", "sbatch: warning: cannot stat file"),
    ],
)
def test_what_is_silent_or_refuses_is_there(reply: Reply) -> None:
    assert slurm.why_absent(reply) is None


def test_a_line_that_is_said_twice_is_told_once() -> None:
    err = "sbatch: error: fetch_config: failed\nsbatch: error: fetch_config: failed\nsbatch: fatal: no configuration\n"
    assert slurm.refusal(Reply(1, "", err)).words == "fetch_config: failed; no configuration"


# ------------------------------------------------------------------ asking

AT_FIVE_PAST_TWO = time.mktime((2026, 11, 30, 14, 5, 0, 0, 0, -1))
SQUEUE = """\
29|0|COMPLETED|N/A|None|c1|0|
29|1|RUNNING|2026-11-30T14:00:00|None|c2|0|
29|4-5,9%4|PENDING|2026-11-30T14:05:00|JobArrayTaskLimit||0|
31|N/A|FAILED|N/A|NonZeroExitCode|c1|768|
32|N/A|FAILED|N/A|RaisedSignal|c[1-2]|139|
33|N/A|OUT_OF_MEMORY|N/A|OutOfMemory|c1|125|
34|N/A|TIMEOUT|N/A|TimeLimit|c1|15|
35|N/A|PENDING|N/A|ReqNodeNotAvail, UnavailableNodes:c[1-4]||0|
36|N/A|CANCELLED|N/A|DependencyNeverSatisfied||0|
37|N/A|CANCELLED|N/A|None|c4|15|
38|N/A|CANCELLED|N/A|None|c3|0|
39|N/A|COMPLETING|N/A|a|b|c1|0:0|
40|N/A|FAILED|N/A|NonZeroExitCode|c1|3:0|
41|N/A|FAILED|N/A|RaisedSignal|c1|0:9|
"""


def test_statuses() -> None:
    assert slurm.statuses(SQUEUE) == {
        status.job: status
        for status in [
            JobReport("29_0", "COMPLETED", "", "c1", exit_code=0),
            JobReport("29_1", "RUNNING", "", "c2"),
            JobReport("29_4", "PENDING", "JobArrayTaskLimit", begins=AT_FIVE_PAST_TWO),
            JobReport("29_5", "PENDING", "JobArrayTaskLimit", begins=AT_FIVE_PAST_TWO),
            JobReport("29_9", "PENDING", "JobArrayTaskLimit", begins=AT_FIVE_PAST_TWO),
            JobReport("31", "FAILED", "NonZeroExitCode", "c1", exit_code=3),
            JobReport("32", "FAILED", "RaisedSignal", "c[1-2]", signal=11),
            JobReport("33", "OUT_OF_MEMORY", "OutOfMemory", "c1"),
            JobReport("34", "TIMEOUT", "TimeLimit", "c1", signal=15),
            JobReport("35", "PENDING", "ReqNodeNotAvail, UnavailableNodes:c[1-4]"),
            JobReport("36", "CANCELLED", "DependencyNeverSatisfied", exit_code=0),
            JobReport("37", "CANCELLED", "", "c4", signal=15),
            JobReport("38", "LAUNCH_FAILED", "", "c3"),  # the node's prolog failed
            JobReport("39", "COMPLETING", "a|b", "c1"),
            JobReport("40", "FAILED", "NonZeroExitCode", "c1", exit_code=3),
            JobReport("41", "FAILED", "RaisedSignal", "c1", signal=9),
        ]
    }


def test_phases() -> None:
    phases = {job: status.phase for job, status in slurm.statuses(SQUEUE).items()}
    assert [phases[job] for job in ("29_0", "29_1", "29_4", "39")] == ["ended", "running", "waiting", "running"]


def test_other_lines_are_passed_over() -> None:
    assert slurm.statuses("CLUSTER: one\n\n31|N/A|RUNNING|N/A|None|c1|0|\nslurm_load_jobs error: x\n").keys() == {"31"}


def test_all_jobs_are_asked_about_at_once() -> None:
    argv = slurm.status(["7_1", "7_2", "9", "7"])
    assert argv[:3] == ["env", "SLURM_BITSTR_LEN=0", "squeue"]
    assert {"--jobs=7,9", "--me", "--states=all", "--noheader"} <= set(argv)
    assert "--me" not in slurm.status(["7"], mine=False)


def test_a_single_job_is_named_twice() -> None:
    assert "--jobs=7,7" in slurm.status(["7_1"])


def test_the_command_never_gets_too_long() -> None:
    assert max(map(len, slurm.status([str(n) for n in range(10**8, 10**8 + 20_000)]))) < 100_000
    assert max(map(len, slurm.history([str(n) for n in range(10**8, 10**8 + 20_000)]))) < 100_000


SACCT = """\
2|FAILED|3:0|c1|None
8|CANCELLED by 1000|0:0|c2|None
9|CANCELLED|0:0|None assigned|Dependency
7|FAILED|0:53|c2|None
11|OUT_OF_MEMORY|0:125|c2|None
3_0|COMPLETED|0:0|c1|None
1_[0,3-4%30]|PENDING|0:0|None assigned|None
16|REQUEUED|0:0|c2|None
"""


def test_histories() -> None:
    assert slurm.histories(SACCT) == {
        status.job: status
        for status in [
            JobReport("2", "FAILED", "", "c1", exit_code=3),
            JobReport("8", "CANCELLED", "cancelled by user 1000", "c2", exit_code=0),
            JobReport("9", "CANCELLED", "Dependency", exit_code=0),
            JobReport("7", "FAILED", "", "c2", signal=53),
            JobReport("11", "OUT_OF_MEMORY", "", "c2"),
            JobReport("3_0", "COMPLETED", "", "c1", exit_code=0),
            JobReport("1_0", "PENDING"),
            JobReport("1_3", "PENDING"),
            JobReport("1_4", "PENDING"),
            JobReport("16", "REQUEUED", "", "c2"),
        ]
    }
    assert slurm.histories("Slurm accounting storage is disabled\n") == {}


def test_history_asks_about_whole_arrays() -> None:
    assert "--jobs=3,5" in slurm.history(["3_0", "3_1", "5"])


def test_a_submission_is_found_by_its_token() -> None:
    out = f"4|(null)|\n5|callyard {TOKEN[::-1]}|\n6|callyard {TOKEN}|\n6|callyard {TOKEN}|\n"
    assert slurm.found(out, TOKEN) == {TOKEN: "6"}
    assert slurm.found(out, "f" * 16) == {}
    assert slurm.found(f"6_[0-9%2]|callyard {TOKEN}|\n", TOKEN) == {TOKEN: "6"}


def test_what_finds_a_submission_knows_its_comment() -> None:
    assert "Comment" in slurm.find(TOKEN)[-1]


# ------------------------------------------------------------------ elements

NUMBERS = st.sets(st.integers(0, 100_000), max_size=300)


@given(NUMBERS)
def test_what_is_formatted_is_parsed(numbers: set[int]) -> None:
    assert sorted(elements(ranges(numbers))) == sorted(numbers)


@given(st.integers(0, 5000), st.integers(1, 40), st.integers(1, 3000), st.sampled_from(["", "%7"]))
def test_steps(first: int, step: int, count: int, throttle: str) -> None:
    numbers = range(first, first + step * count, step)
    assert list(elements(f"{first}-{numbers[-1]}:{step}{throttle}")) == list(numbers)


@given(NUMBERS.filter(bool))
def test_elements_of_a_waiting_array(numbers: set[int]) -> None:
    found = slurm.statuses(f"7|{ranges(numbers)}%3|PENDING|N/A|Priority||0|\n")
    assert found.keys() == {f"7_{number}" for number in numbers}
    assert set(found.values()) == {JobReport(f"7_{number}", "PENDING", "Priority") for number in numbers}


def test_an_array_of_very_many_elements() -> None:
    assert len(slurm.statuses("7|0-199999:2,300000|PENDING|tomorrow|Priority||0|\n")) == 100_001


@pytest.mark.parametrize("text", ["", "N/A", "0-", "x", "...", "1-2-3"])
def test_what_is_no_list_of_elements(text: str) -> None:
    assert list(elements(text)) == []


def test_elements_are_joined() -> None:
    assert join(["7_1", "8", "7_2", "7_5", "9_0", "9", "9_1"]) == ["7_[1-2,5]", "8", "9"]


# ------------------------------------------------------------------ the rest


def test_cancel() -> None:
    assert slurm.cancel(["7_1", "8", "7_2"]) == [["scancel", "--quiet", "7_[1-2]", "8"]]
    assert slurm.cancel([]) == []


def test_many_are_cancelled_by_few_commands() -> None:
    jobs = [str(n) for n in range(10_000, 30_000)]
    commands = slurm.cancel([*jobs, *(f"7_{n}" for n in range(0, 20_000, 2))])
    assert len(commands) <= 5
    assert all(len(shlex.join(argv)) < 110_000 for argv in commands)
    assert [job for argv in commands for job in argv[2:]][:-1] == jobs


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ("MaxArraySize            = 10001\nMaxJobCount = 7", 10001),
        ("MaxArraySize            = 10001\nSchedulerParameters = bf_continue,max_array_tasks=500", 500),
        ("MaxArraySize            = 0", 0),
        ("", 1001),
    ],
)
def test_the_size_of_arrays(config: str, size: int) -> None:
    assert slurm.max_array_size(config) == size


LEAKS = {
    "SLURM_NTASKS": "4",
    "SLURM_JOB_ID": "77",
    "SLURMD_NODENAME": "c1",
    "SBATCH_PARTITION": "x",
    "SRUN_CPUS_PER_TASK": "4",
    "SQUEUE_STATES": "RUNNING",
    "PMI_RANK": "0",
    "PMIX_RANK": "0",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_MCA_ess_base_jobid": "1",
    "CUDA_VISIBLE_DEVICES": "0",
    "TMPDIR": "/scratch/slurm.77",
}
STAY = {
    "SLURM_CONF": "/etc/slurm.conf",
    "SLURM_CLUSTERS": "a",
    "SLURM_JWT": "t",
    "PATH": "/bin",
    "OMP_NUM_THREADS": "2",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "HOME": "/home/me",
}


def test_a_jobs_environment_does_not_leak() -> None:
    assert slurm.environment(LEAKS | STAY) == STAY


def test_outside_of_a_job_the_users_choices_stay() -> None:
    own = {"CUDA_VISIBLE_DEVICES": "1", "TMPDIR": "/scratch/me"}
    assert slurm.environment(own) == own
    assert slurm.environment({"TMPDIR": "/scratch/me", "SLURM_JOB_ID": "77"}) == {"TMPDIR": "/scratch/me"}


def test_parts_of_a_submission_are_found() -> None:
    lines = [f"6|callyard {TOKEN}.0-499|", f"7|callyard {TOKEN}.500-999|", "8|callyard fedcba9876543210|", "9|mine|"]
    assert slurm.found("\n".join(lines), TOKEN) == {f"{TOKEN}.0-499": "6", f"{TOKEN}.500-999": "7"}
    line = f"6_[0-9]||sbatch --parsable --comment=callyard {TOKEN}.0-9 --array=0-9\n"
    assert slurm.found(line, TOKEN) == {f"{TOKEN}.0-9": "6"}


@pytest.mark.parametrize(
    ("kind", "words", "full"),
    [
        ("limit", "AssocMaxSubmitJobLimit; Job violates accounting/QOS policy", True),
        ("limit", "QOSMaxSubmitJobPerUserLimit", True),
        ("silent", "no answer in time: Slurm temporarily unable to accept job, sleeping and retrying", True),
        ("silent", "no answer in time", False),
        ("limit", "Rate limit exceeded", False),  # fewer elements would not help
        ("limit", "System submissions disabled", False),
        ("mistake", "Job violates accounting/QOS policy", False),
    ],
)
def test_where_fewer_jobs_may_be_taken(kind: Any, words: str, full: bool) -> None:
    assert slurm.is_full(Refusal(kind, words)) is full
