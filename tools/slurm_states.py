#!/usr/bin/env python3
"""Print the page of the documentation that says what Slurm's words mean.

python tools/slurm_states.py > docs/slurm-states.md
"""

from callyard.schedulers.slurm.states import REASONS, STATES

HEAD = """\
<!-- Made by tools/slurm_states.py from the tables in callyard.schedulers.slurm.states. -->

# States and reasons of Slurm

What Callyard makes of each word with which Slurm describes a job, from Slurm 22.05 on. A call whose job left a result
or an error ends with that, whatever Slurm says of the job; these tables are about the others.

## States of jobs that have ended

A job that ended so and left nothing fails its call with this error, once the time for late files
(`result_grace`) is over, or at once if the job has left its exit code. The text of the error names the
job, its node and its log.

| state | error | the job |
|---|---|---|
"""
GOING_ON = """
## States of jobs that run or wait

A state that is not in these tables counts as running, so no call is given up because of it.

| state | | the job |
|---|---|---|
"""
HOPELESS = """
## Reasons for which a job would wait for ever

Callyard cancels such a job, and its call fails with `SchedulerError`, which says what is in this table. A call whose
dependency failed gets that call's exception instead.

| reason | the job |
|---|---|
"""
PASSING = """
## Other reasons

A job that waits for one of these goes on waiting, and so does its call. A held job too: whoever holds it may release
it.

| reason | the job |
|---|---|
"""


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def states(*phases: str) -> str:
    chosen = {code: state for code, state in sorted(STATES.items()) if state.phase in phases}
    if phases == ("ended",):
        return "".join(
            row(code, f"`{state.error}`" if state.error else "`JobLost`", state.sentence)
            for code, state in chosen.items()
        )
    return "".join(row(code, state.phase, state.sentence) for code, state in chosen.items())


def reasons(hopeless: bool) -> str:
    """Return a row for each meaning: many codes differ in what is counted alone."""
    meanings: dict[str, list[str]] = {}
    for code, reason in sorted(REASONS.items(), key=lambda item: item[0].lower()):
        if reason.hopeless == hopeless:
            meanings.setdefault(reason.sentence, []).append(code)
    return "".join(row(", ".join(codes), sentence) for sentence, codes in meanings.items())


def page() -> str:
    parts = [
        HEAD,
        states("ended"),
        GOING_ON,
        states("running", "waiting"),
        HOPELESS,
        reasons(True),
        PASSING,
        reasons(False),
    ]
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
