"""The commands of Slurm, from 22.05 on, and the readers of their answers.

Every function makes a command (a list of words, never a shell's text) or reads the output of one.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable, Iterator, Sequence

from .allocation import time_left, times_left
from .job_ids import base, elements, join, unique
from .refusals import is_full, refusal, why_absent
from .states import JobReport, state_of
from .submit import submit, submitted
from .variables import configuration, environment

__all__ = [
    "cancel",
    "configuration",
    "environment",
    "find",
    "found",
    "histories",
    "history",
    "is_full",
    "limits",
    "max_array_size",
    "refusal",
    "requeue",
    "status",
    "statuses",
    "submit",
    "submitted",
    "time_left",
    "times_left",
    "why_absent",
]

_LAST_SIGNAL = 64
_ARRAY_SIZE = 1001  # Slurm's default
_ROOM = 50_000  # bytes on a command line; the system takes 128 KiB for one word

# ------------------------------------------------------------------ asking

# Each field ends with a bar. In this form squeue cuts nothing off, except lists of elements (SLURM_BITSTR_LEN).
_SQUEUE = ("env", "SLURM_BITSTR_LEN=0", "squeue", "--noheader", "--all", "--states=all")
_SACCT = ("env", "SLURM_BITSTR_LEN=0", "sacct", "--noheader", "--allocations", "--parsable2")
_COLUMNS = ("ArrayJobID", "ArrayTaskID", "State", "StartTime", "Reason", "NodeList", "exit_code")
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"  # of the cluster's clock, unless SLURM_TIME_FORMAT asks for another form
_MOST_NAMED = 1000


def status(jobs: Sequence[str], *, mine: bool = True) -> list[str]:
    """Return the command for the states of several jobs at once.

    With `mine`, the controller searches this user's jobs only. squeue leaves out unknown jobs, but fails if it is asked
    for a single unknown job, so a single one is named twice. More than a thousand jobs are not named at all, because
    `statuses` accepts the others too.
    """
    names = unique(base(job) for job in jobs)
    argv = [*_SQUEUE, *(["--me"] if mine else [])]
    if names and (len(names) <= _MOST_NAMED or not mine):
        argv.append("--jobs=" + ",".join(names * 2 if len(names) == 1 else names))
    return [*argv, f"--Format={_format(_COLUMNS)}"]


def _format(columns: Iterable[str]) -> str:
    return ",".join(f"{column}:|" for column in columns)


def statuses(out: str) -> dict[str, JobReport]:
    """Read the output of squeue: an entry for each job and each element, also for elements waiting in one line."""
    found: dict[str, JobReport] = {}
    for line in out.splitlines():
        fields = line.split("|")
        if len(fields) > len(_COLUMNS):  # neither "CLUSTER: name" nor a message
            job, element, state, begins, *words, node, ended, _ = fields
            array, reason = ("" if element == "N/A" else element), _reason("|".join(words))
            said = JobReport(job, state, reason, node, *_ended(state, ended), _begins(state, begins))
            found.update(_each(job, array, _not_launched(said) or said))
    return found


def _not_launched(report: JobReport) -> JobReport | None:
    """Return the report of a failed launch, if this is one; None otherwise.

    Slurm cancels a job after a failed prolog on the node, unless the job may be requeued, and gives no reason. A job
    cancelled while running ends by a signal, and one cancelled while waiting has no node.
    """
    if report.state == "CANCELLED" and report.node and report.exit_code == 0 and not report.reason:
        return dataclasses.replace(report, state="LAUNCH_FAILED", exit_code=None)
    return None


def _each(job: str, array: str, report: JobReport) -> Iterator[tuple[str, JobReport]]:
    """Yield the report for each element of `array`, or for the job if `array` is empty."""
    if not array:
        yield job, report
    said = (report.state, report.reason, report.node, report.exit_code, report.signal, report.begins)
    for number in elements(array):
        name = f"{job}_{number}"
        yield name, JobReport(name, *said)


def _begins(state: str, text: str) -> float | None:
    """Return the time at which Slurm expects a waiting job to start (s since 1970); None if it does not say."""
    if state_of(state).phase != "waiting" or not re.fullmatch(_TIME, text):
        return None
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def _reason(text: str) -> str:
    return "" if text in ("None", "(null)") else text


def _ended(state: str, text: str) -> tuple[int | None, int | None]:
    """Return exit code and signal of an ended job: Slurm writes "3:0", squeue until 23.02 the number of wait(2)."""
    ended = re.fullmatch(r"(\d+):(\d+)", text)
    if state_of(state).phase != "ended" or not (ended or text.isdigit()):
        return None, None
    code, signal = (int(ended[1]), int(ended[2])) if ended else (int(text) >> 8, int(text) & 0x7F)
    if signal:
        return None, signal if signal <= _LAST_SIGNAL else None  # out of memory is "0:125"
    return code, None


def history(jobs: Sequence[str]) -> list[str]:
    """Return the command that asks the accounting, if the cluster has one, about jobs unknown to squeue."""
    names = unique(base(job) for job in jobs)
    parts = [",".join(names[i : i + _MOST_NAMED]) for i in range(0, len(names), _MOST_NAMED)]
    asked = [f"--jobs={part}" for part in parts]
    return [*_SACCT, *asked, "--format=JobID,State,ExitCode,NodeList,Reason"]


def histories(out: str) -> dict[str, JobReport]:
    """Read the output of sacct, as `statuses` reads squeue's."""
    found: dict[str, JobReport] = {}
    for line in out.splitlines():
        number, state, ended, node, reason = (line.split("|", 4) + [""] * 5)[:5]
        if not number[:1].isdigit() or not state:
            continue
        job, _, array = number.partition("_")  # "123", "123_4" or "123_[0-9%2]"
        code, _, by = state.partition(" by ")  # "CANCELLED by 1000"
        said = _reason(reason) or (f"cancelled by user {by}" if by else "")
        place = "" if node == "None assigned" else node
        found.update(_each(job, array.strip("[]"), JobReport(job, code, said, place, *_ended(code, ended))))
    return found


def find(token: str) -> list[str]:  # noqa: ARG001  # other schedulers may be able to search comments
    """Return the command for finding a submission among this user's jobs; read by `found`."""
    return [*_SQUEUE, "--me", f"--Format={_format(('ArrayJobID', 'Comment'))}"]


def found(out: str, token: str) -> dict[str, str]:
    """Return the jobs of the submission, by the words beginning with the token."""
    jobs: dict[str, str] = {}
    for line in out.splitlines():
        number, _, rest = line.partition("|")
        word = re.search(rf"callyard ({re.escape(token)}(?:\.[\d-]+)?)(?![\w.-])", rest)
        if word:
            jobs[word[1]] = base(number)
    return jobs


# ------------------------------------------------------------------ the rest


def cancel(jobs: Sequence[str]) -> list[list[str]]:
    """Return the commands that cancel jobs and elements, each short enough for a command line."""
    commands: list[list[str]] = []
    room = 0
    for name in join(jobs):
        if len(name) > room:
            commands.append(["scancel", "--quiet"])  # quiet about jobs already ended
            room = _ROOM
        commands[-1].append(name)
        room -= len(name) + 1
    return commands


def requeue(job: str) -> list[list[str]]:
    """The commands by which a job has itself started again; the first permits this, whatever the submission said."""
    return [["scontrol", "update", f"JobId={job}", "Requeue=1"], ["scontrol", "requeue", job]]


def limits() -> list[str]:
    """Return the command for the cluster's configuration; read by `max_array_size`."""
    return ["scontrol", "show", "config"]


def max_array_size(out: str) -> int:
    """Return the most elements of an array, 0 if the cluster has no arrays."""
    sizes = [int(size) for size in re.findall(r"(?:\bMaxArraySize\s*=\s*|\bmax_array_tasks=)(\d+)", out)]
    return min(sizes, default=_ARRAY_SIZE)
