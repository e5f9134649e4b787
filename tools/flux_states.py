#!/usr/bin/env python3
"""Print the page of the documentation about the meaning of Flux's words.

python tools/flux_states.py > docs/flux-states.md
"""

from callyard.schedulers.flux.states import EXCEPTIONS, RESULTS, STATES, JobException

HEAD = """\
<!-- Made by tools/flux_states.py from the tables in callyard.schedulers.flux.states. -->

# States and exceptions of Flux

The meaning of each word with which Flux describes a job. A call whose job left a result or an error ends with that,
whatever Flux says of the job; these tables are about the others.

## Results of jobs that have ended

A job with this result and without a fatal exception fails its call with this error, once the time for late files
(`result_grace`) is over. The text of the error names the job, its node and its log.

| result | error | the job |
|---|---|---|
"""
EXCEPTIONS_HEAD = """
## Exceptions

A fatal exception (severity 0) says more than the result. The first row that fits counts; the text of the error has
Flux's note, too. Other exceptions mean nothing for a call. A job that asks for more than the instance has fails its
call at once. "Perhaps" stands for jobs whose processes Flux has not seen end: their calls fail only when these give no
sign of life any more, and have their results otherwise.

| exception | with a note like | error | the job |
|---|---|---|---|
"""
STATES_HEAD = """
## States of jobs that run or wait

A state that is not in this table counts as running, so no call is given up because of it.

| state | | the job |
|---|---|---|
"""


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def note(pattern: str) -> str:
    """Return a pattern for people."""
    return "; ".join(f"`{each}`" for each in pattern.replace("^", "").split("|")) if pattern else ""


def error(exception: JobException) -> str:
    return f"`{exception.error}`" if exception.certain else f"`{exception.error}`, perhaps"


def page() -> str:
    results = (row(each.name, f"`{each.error or 'JobLost'}`", each.sentence) for each in RESULTS.values())
    exceptions = (row(each.type, note(each.note), error(each), each.sentence) for each in EXCEPTIONS)
    states = (row(each.name, each.phase, each.sentence) for each in STATES.values())
    return "".join([HEAD, *results, EXCEPTIONS_HEAD, *exceptions, STATES_HEAD, *states])


if __name__ == "__main__":
    print(page(), end="")
