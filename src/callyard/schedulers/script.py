"""The script of a job: a plain one, or the user's Jinja template."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors.suggestions import alternatives, nearest
from ..resources import ALIASES, NAMES, Resources
from ..utils.paths import expand

__all__ = ["KNOWN", "VARIABLES", "job_script", "mebibytes", "minutes", "render", "variables", "variables_of"]


# The variables of a template, beside the keys of the resources.
VARIABLES = {
    "command": "the command that makes the call, ready for a shell; the template must run it",
    "elements": "the number of elements of the job's array; it has no value for a single job",
    "job_name": "what people see in the scheduler's lists",
    "log": "the path of what the job prints",
    "memory_mib": "`memory` in MiB, rounded up",
    "setup": "the shell lines before the command",
    "teardown": "the shell lines after the command",
    "time_minutes": "the scheduler's limit in minutes, rounded up",
}
KNOWN = frozenset(VARIABLES) | frozenset(NAMES) | frozenset(ALIASES)


def job_script(
    command: Sequence[str],
    setup: Sequence[str] = (),
    directives: Sequence[str] = (),
    exit_file: str = "",
    teardown: Sequence[str] = (),
) -> str:
    """Return a script for bash that runs `command` after `setup`, and then `teardown`.

    The lines of `setup` and `teardown` are the user's own text for the shell and stay unchanged; the words of `command`
    are quoted. Without `exit_file` and `teardown`, `exec` replaces the shell, so that the scheduler's signals reach the
    command. Otherwise the shell stays, passes signals on, and leaves its exit code in that file, whatever has ended it.
    `exit_file` is a text for the shell, already quoted.
    """
    lines = ["#!/bin/bash", *directives]
    if not exit_file and not teardown:
        return "\n".join([*lines, *setup, f"exec {shlex.join(command)}", ""])
    leave = _leave_exit_code(exit_file, in_subshell=bool(teardown)) if exit_file else []
    after = ["    (", *teardown, "    ) || :"] if teardown else []
    end = _END.replace("AT_LAST", "\n".join([*leave, *after]))
    return "\n".join([*lines, end, *setup, _PASS_SIGNALS_ON.replace("COMMAND", shlex.join(command)), ""])


def _leave_exit_code(path: str, in_subshell: bool) -> list[str]:
    """Return the line that writes the exit code, readable by the user alone; `teardown` needs the user's own umask."""
    words = f'umask 077; echo "$_callyard_code" >| {path}'
    words = f"( {words} )" if in_subshell else f"{{ {words}; }}"  # a fork less for each job
    return [f"    {words} 2>/dev/null || :"]


# First of all, so that a failing `setup` has an exit code, too. The command's signal ends the shell as well: by that
# the scheduler knows it. 143 is the exit code of a job that was told to end. The exit code is left before the teardown,
# which may take its time; that has a shell of its own, so it can neither end this one nor change the exit code.
_END = """\
_callyard_end() {
    _callyard_code=$?
AT_LAST
    if [ "$_callyard_code" -gt 128 ] && [ "$_callyard_code" -ne 143 ]; then
        trap - $((_callyard_code - 128))
        kill -s $((_callyard_code - 128)) $$
    fi
    exit "$_callyard_code"
}
trap _callyard_end EXIT"""
# `wait` ends at each signal, and is called again; 127 says that an earlier `wait` has told the exit code. Of a killed
# command the shell would print all words to the log, the end of which errors quote.
_PASS_SIGNALS_ON = """\
for _callyard_signal in HUP INT QUIT ALRM TERM USR1 USR2; do
    trap "_callyard_again=1; kill -s $_callyard_signal \\$! 2>/dev/null || :" $_callyard_signal
done
COMMAND &
_callyard_again=1 _callyard_code=127
while [ "$_callyard_again" ]; do
    _callyard_again= _callyard_last=0
    wait $! 2>/dev/null || _callyard_last=$?
    if [ $_callyard_last -ne 127 ]; then _callyard_code=$_callyard_last; fi
done
exit $_callyard_code"""


def variables(
    resources: Resources,
    command: Sequence[str],
    *,
    job_name: str,
    log: str,
    setup: Sequence[str] = (),
    teardown: Sequence[str] = (),
    time: float | None = None,
    elements: int | None = None,
) -> dict[str, Any]:
    """Return the values for a template: `VARIABLES`, and each resource by all its names; `time` in s."""
    keys = {name: getattr(resources, name) for name in NAMES}
    for name in ("cwd", "error_log_file"):  # schedulers know no "~"
        if keys[name] is not None:
            keys[name] = expand(os.fspath(keys[name]))
    also = {theirs: keys[ours] for theirs, ours in ALIASES.items()}
    return {**resources.others, **keys, **also} | {
        "command": shlex.join(command),
        "elements": elements,
        "job_name": job_name,
        "log": log,
        "memory_mib": None if resources.memory is None else mebibytes(resources.memory),
        "setup": "\n".join(setup),
        "teardown": "\n".join(teardown),
        "time_minutes": None if time is None else minutes(time),
    }


def variables_of(template: str) -> set[str]:
    """Return the variables used in a template.

    Raises:
        ValueError: the template has a syntax error, or does not run the command.
    """
    environment, parsed = _parsed(template)
    from jinja2 import meta

    found = set(meta.find_undeclared_variables(parsed)) - set(environment.globals)
    if "command" not in found:
        raise ValueError(
            "the template of the job script does not run {{ command }}, so its job would make no call: add it"
        )
    return found


def render(template: str, variables: Mapping[str, Any]) -> str:
    """Return the script made from a template.

    A template is as trusted as the resulting script, which runs as the same user, so there is no sandbox. A variable of
    None counts as false and must not be printed: "--account=None" would be a mistake found late.

    Raises:
        ValueError: the template has a syntax error, uses an unknown name, or prints a variable without a value.
    """
    environment, _ = _parsed(template)
    import jinja2

    values = {name: _Nothing(name) if value is None else value for name, value in variables.items()}
    try:
        return str(environment.from_string(template).render(values))
    except jinja2.UndefinedError as error:
        raise ValueError(_unknown(str(error), variables)) from None
    except (jinja2.TemplateError, TypeError) as error:
        raise ValueError(f"the template of the job script cannot be filled in: {error}") from error


class _Nothing:
    """A variable without a value: false, and an error when printed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        raise ValueError(
            f"the template of the job script prints {self._name}, which this call does not set: "
            f"set it, or write {{% if {self._name} %}} around it"
        )


def _parsed(template: str) -> tuple[Any, Any]:
    try:
        import jinja2
    except ImportError:
        raise ValueError("a template for job scripts needs Jinja: pip install jinja2") from None

    # Lines with only a statement leave no blank lines behind.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    try:
        parsed = environment.parse(template)
        environment.compile(parsed)  # which looks up filters and tests
    except jinja2.TemplateSyntaxError as error:
        message = (error.message or "").rstrip(".") + _filter_meant(error.message or "", [*environment.filters])
        raise ValueError(f"line {error.lineno} of the template of the job script is wrong: {message}") from None
    return environment, environment.parse(template)  # anew, because compiling may change it


def _filter_meant(message: str, filters: list[str]) -> str:
    name = re.search(r"No filter named '(\w+)'", message)
    return alternatives(nearest(name[1], filters)) if name else ""


def _unknown(message: str, variables: Mapping[str, Any]) -> str:
    name = re.search(r"'(\w+)' is undefined", message)
    if not name:
        return f"the template of the job script cannot be filled in: {message}"
    known = sorted(KNOWN | set(variables))
    near = nearest(name[1], known)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"the template of the job script uses {name[1]!r}, which nobody has set; {hint}"


def mebibytes(gibibytes: float) -> int:
    """Return GiB as MiB, rounded up; never 0, which a scheduler may take for all of a node's memory."""
    return max(1, math.ceil(gibibytes * 1024))


def minutes(seconds: float) -> int:
    """Return seconds as minutes, rounded up; never 0, which a scheduler may take for no limit."""
    return max(1, math.ceil(seconds / 60))
