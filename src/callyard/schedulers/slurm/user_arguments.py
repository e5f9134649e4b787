"""The user's own arguments of Slurm's commands: the words, and options in conflict with our own options."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ...errors import ResourceError
from ...resources import Resources

__all__ = ["SBATCH", "SRUN", "check_arguments", "words"]


class Command(NamedTuple):
    """The options of a command, as far as they matter here.

    Attributes:
        name: the command.
        kept: the options reserved for Callyard, with the reason and the advice.
        keys: the options with a key among the resources.
        flags: the options without a value in the next word.
        letters: the options with short names; those in `flags` take no value.
    """

    name: str
    kept: Mapping[str, str]
    keys: Mapping[str, str]
    flags: frozenset[str]
    letters: Mapping[str, str]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _letters(table: str) -> dict[str, str]:
    return {letter: option for letter, _, option in (pair.partition(" ") for pair in table.split(", "))}


_NOTHING = "with it sbatch would submit nothing: leave it out"
_RESTARTS = "use restart_limit="
SBATCH = Command(
    "sbatch",
    kept={
        "array": "calls that are submitted together become arrays by themselves: leave it out",
        "chdir": "use cwd=",
        "clusters": "the job could not be found again: set the variable SLURM_CLUSTERS, for all commands",
        "comment": "by its comment a job is found again: leave it out",
        "dependency": "use the future of the other call as an argument",
        "error": "use error_log_file=",
        "help": _NOTHING,
        "kill-on-invalid-dep": "a call whose input has failed shall not wait for ever: leave it out",
        "no-requeue": _RESTARTS,
        "open-mode": "a job that is started again shall not remove its first output: leave it out",
        "output": "the output is kept where `callyard logs` finds it: leave it out, or use error_log_file=",
        "parsable": "that is said already: leave it out",
        "quiet": "then sbatch would not say the job's ID: leave it out",
        "requeue": _RESTARTS,
        "signal": "use warn_before= and warn_signal=",
        "test-only": _NOTHING,
        "usage": _NOTHING,
        "version": _NOTHING,
        "wait": "then sbatch would wait for the job's end: use future.result()",
        "workdir": "use cwd=",
        "wrap": "the script is Callyard's own: use setup= or template=",
    },
    keys={
        **{name: name for name in ("account", "begin", "constraint", "exclude", "exclusive", "gres", "licenses")},
        **{name: name for name in ("nodelist", "nodes", "partition", "qos", "reservation", "wckey")},
        **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "memory"),
        **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"), "gpus_per_rank"),
        "cpus-per-task": "cores_per_rank",
        "job-name": "job_name",
        "mail-type": "mail_type",
        "mail-user": "mail_user",
        "nice": "priority",
        "nodefile": "nodelist",
        "ntasks": "ranks",
        "ntasks-per-node": "ranks_per_node",
        "tasks-per-node": "ranks_per_node",
        "time": "run_time",
    },
    flags=_names(
        "contiguous exclusive get-user-env help hold ignore-pbs nice no-kill no-requeue overcommit "
        "oversubscribe parsable propagate quiet reboot requeue spread-job test-only usage use-min-nodes "
        "verbose version wait"
    ),
    letters=_letters(
        "a array, A account, b begin, c cpus-per-task, C constraint, d dependency, D chdir, e error, F nodefile, "
        "G gpus, h help, H hold, J job-name, k no-kill, L licenses, M clusters, n ntasks, N nodes, o output, "
        "O overcommit, p partition, q qos, Q quiet, s oversubscribe, t time, v verbose, V version, w nodelist, W wait, "
        "x exclude"
    ),
)

_OUTPUT = "what ranks print is the call's output: leave it out"
_CHOSEN = "the nodes are chosen already: leave it out"
SRUN = Command(
    "srun",
    kept={
        "chdir": "use cwd=",
        "cpu-bind": "use cpu_bind=",
        "cpus-per-task": "use cores_per_rank=",
        "error": _OUTPUT,
        "exclude": _CHOSEN,
        "export": "use env=",
        "gpu-bind": "use gpu_bind=",
        **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"), "use gpus_per_rank="),
        **dict.fromkeys(("help", "test-only", "usage", "version"), "with it srun would start nothing: leave it out"),
        "input": "ranks have no input: leave it out",
        "jobid": _CHOSEN,
        "kill-on-bad-exit": "one rank that fails shall end the others: leave it out",
        "mpi": "use Slurm(mpi=)",
        "multi-prog": "all ranks run the same call: leave it out",
        "no-allocate": _CHOSEN,
        "nodefile": _CHOSEN,
        "nodelist": _CHOSEN,
        "nodes": "use nodes=",
        "ntasks": "use ranks=",
        "ntasks-per-node": "use ranks_per_node=",
        "output": _OUTPUT,
        "pty": _OUTPUT,
        "relative": _CHOSEN,
        "tasks-per-node": "use ranks_per_node=",
        "time": "use run_time=",
    },
    keys={},
    flags=_names(
        "bcast contiguous disable-status exact exclusive help hold immediate interactive kill-on-bad-exit "
        "label multi-prog nice no-allocate no-kill overcommit overlap oversubscribe preserve-env propagate "
        "pty quiet reboot send-libs spread-job test-only unbuffered usage use-min-nodes verbose version whole"
    ),
    letters=_letters(
        "A account, b begin, c cpus-per-task, C constraint, d dependency, D chdir, e error, E preserve-env, "
        "F nodefile, G gpus, h help, H hold, i input, I immediate, J job-name, k no-kill, K kill-on-bad-exit, l label, "
        "L licenses, m distribution, M clusters, n ntasks, N nodes, o output, O overcommit, p partition, q qos, "
        "Q quiet, r relative, s oversubscribe, S core-spec, t time, T threads, u unbuffered, v verbose, V version, "
        "w nodelist, W wait, x exclude, X disable-status, Z no-allocate"
    ),
)


def words(arguments: str | Iterable[str] | None) -> list[str]:
    """Return arguments as words."""
    return shlex.split(arguments) if isinstance(arguments, str) else list(arguments or ())


def check_arguments(resources: Resources) -> None:
    """Raise ResourceError for arguments of the user's own in conflict with options of Callyard, or with a key."""
    asked = resources.asked()
    for key, command in (("slurm_cmd_args", SBATCH), ("srun_args", SRUN)):
        why = _refusal(command, words(asked.get(key)), asked)
        if why is not None:
            raise ResourceError(f"{key} has {why}")


def _refusal(command: Command, arguments: Iterable[str], asked: Iterable[str]) -> str | None:
    for word, option in _options(command, arguments):
        if option is None:
            return f"{word!r}, which {command.name} may take for what it is to run: write values as --option=value"
        for name in _meant(option, (*command.kept, *command.keys)):
            if name in command.kept:
                return f"{word!r}: {command.kept[name]}"
            if command.keys[name] in asked:
                return f"{word!r}, which {command.keys[name]}= says, too: leave out one of them"
    return None


def _options(command: Command, arguments: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each word but values of options, with the option's long name; for several short options, with each.

    A word with a dash may be the value of the option before, or an option after a flag unknown here. So such a word
    counts as an option, but takes no value from the next word.
    """
    takes_value = False
    for word in arguments:
        names, is_open = _options_in(command, word)
        if not names and not takes_value:
            yield word, None
        for name in names:
            yield word, name
        takes_value = is_open and not takes_value


def _options_in(command: Command, word: str) -> tuple[list[str], bool]:
    """Return the long names of the options in a word, and True if the next word may be the value of the last option."""
    if word in ("-", "--") or not word.startswith("-"):
        return [], False
    if word.startswith("--"):
        name, equals, _ = word[2:].partition("=")
        return [name], not equals and not _meant(name, command.flags)
    names = [command.letters.get(letter, letter) for letter in word[1:]]
    valued = {*command.letters.values()} - command.flags
    last = next((place for place, name in enumerate(names, 1) if name in valued), 0)
    return names[: last or None], last == len(names)


def _meant(name: str, known: Iterable[str]) -> list[str]:
    """Return the known option of this name, or all known options with this beginning, as in getopt_long(3)."""
    options = list(known)
    return [name] if name in options else [option for option in options if option.startswith(name)]
