#!/usr/bin/env python3
"""Print a page of the documentation about the meaning of the words of PBS, LSF or Grid Engine.

python tools/job_states.py pbs > docs/pbs-states.md
"""

import sys
from collections.abc import Iterable

from callyard.schedulers.gridengine import states as gridengine
from callyard.schedulers.lsf import states as lsf
from callyard.schedulers.pbs import states as pbs

HEAD = """\
<!-- Made by tools/job_states.py from the tables in callyard.schedulers.{folder}.states. -->

# States of {name}

The meaning of each word with which {name} describes a job. A call whose job left a result or an error ends with that,
whatever {name} says of the job; these tables are about the others. {tested}

## States

A state that is not in this table counts as running, so no call is given up because of it.

| state | | the job |
|---|---|---|
"""
BY_TEXT = "They are written after the manuals of {name} and tested as text only, not on a cluster."
ENDS = """
## {title}

{about} The call fails with this error, once the time for late files (`result_grace`) is over.

| {column} | error | the job |
|---|---|---|
"""


def page(folder: str) -> str:
    makers = {"pbs": _pbs, "lsf": _lsf, "gridengine": _gridengine}
    return makers[folder]()


def _head(folder: str, name: str, tested: str, states: Iterable[tuple[str, str, str]]) -> str:
    return HEAD.format(folder=folder, name=name, tested=tested) + "".join(_row(*state) for state in states)


def _ends(title: str, about: str, column: str, ends: Iterable[tuple[str, str, str]]) -> str:
    rows = (_row(word, f"`{error}`" if error else "by the exit status", text) for word, error, text in ends)
    return ENDS.format(title=title, about=about, column=column) + "".join(rows)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _pbs() -> str:
    about = "Below 0, `Exit_status` is PBS's own word; otherwise it is that of the script, or 256 and a signal."
    states = ((each.letter, each.phase, each.sentence) for each in pbs.STATES.values())
    ends = ((str(each.code), each.error, each.sentence) for each in pbs.EXITS.values())
    return _head("pbs", "PBS", BY_TEXT.format(name="PBS"), states) + _ends("Exit statuses", about, "status", ends)


def _lsf() -> str:
    about = "`bjobs` gives a reason for the end of jobs in the state EXIT that LSF has ended."
    states = ((each.name, each.phase, each.sentence) for each in lsf.STATES.values())
    ends = ((each.name, each.error, each.sentence) for each in lsf.REASONS.values())
    return _head("lsf", "LSF", BY_TEXT.format(name="LSF"), states) + _ends("Reasons for ends", about, "reason", ends)


def _gridengine() -> str:
    tested = "They are tested on a real cluster of Grid Engine 8.1.9."
    about = "`qacct` has a number for what failed. Of a job killed by a signal, its limits say whether it reached one."
    states = ((each.letter, each.phase, each.sentence) for each in gridengine.STATES)
    ends = ((str(each.code), each.error or "", each.sentence) for each in gridengine.FAILURES.values())
    return _head("gridengine", "Grid Engine", tested, states) + _ends("Failures", about, "failed", ends)


if __name__ == "__main__":
    print(page(sys.argv[1]), end="")
