"""The fate of a script's calls, told before they are made: by the text of the script alone, or by a dry run."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..backends.dry_run.plan import Plan
from ..cache.entry import Entry
from ..cache.inspect.call_parts import CallParts, Difference, differences, parts_of_entry
from ..cache.inspect.explain import lines_of
from ..cache.inspect.find import keys_by_age, noted_entries
from ..cache.inspect.script_code import ScriptCode
from ..result_cache import Cache
from ..utils import quantities
from ..utils.environment import DRY_RUN
from . import UsageError, tables
from .arguments import VARIABLE, open_cache, print_json
from .confirm import confirm

__all__ = ["explain_by_dry_run", "explain_by_text", "is_script"]


def is_script(word: str) -> bool:
    """Return True for the path of a script; a key has no such ending."""
    return word.endswith(".py")


# ------------------------------------------------------------------ by its text


class Change(NamedTuple):
    """Stored calls of one function whose code has changed in the same way."""

    calls: int
    found: tuple[Difference, ...]  # of the newest


class FunctionReport(NamedTuple):
    """The stored calls of one function."""

    name: str
    calls: int
    changes: list[Change]

    @property
    def changed(self) -> int:
        return sum(change.calls for change in self.changes)


def explain_by_text(options: argparse.Namespace, directory: str | None, script: str) -> int:
    """Print how the code of stored calls differs from that of the script, which is only read."""
    code = ScriptCode(script)
    places = [directory] if directory else code.caches() or [os.environ.get(VARIABLE, "")]
    if not places[0]:
        raise UsageError(f"which cache? {script} names none in so many words: give its directory, or set {VARIABLE}")
    reports = [(place, *_reports(open_cache(options, place), code)) for place in places]
    if options.json:
        print_json({"script": script, "run": False, "caches": [_as_object(*report) for report in reports]})
        return 0
    print(f"{script} was read, not run; --run makes a dry run, which tells what each of its calls would do")
    for report in reports:
        print(_as_text(script, *report))
    return 0


def _reports(cache: Cache, code: ScriptCode) -> tuple[list[FunctionReport], Counter[str]]:
    """Return the functions of the script with stored calls, and the number of calls of other functions."""
    known: dict[str, list[tuple[Entry, Mapping[str, str]]]] = {}
    others: Counter[str] = Counter()
    for entry, noted in noted_entries(cache._directory, keys_by_age(cache._directory)):
        if code.knows(entry.function, noted):
            known.setdefault(entry.function, []).append((entry, noted))
        else:
            others[entry.function] += 1
    return [FunctionReport(name, len(found), _changes(found, code)) for name, found in known.items()], others


def _changes(found: Sequence[tuple[Entry, Mapping[str, str]]], code: ScriptCode) -> list[Change]:
    """Return the changes since the calls, those of most calls first."""
    counts: Counter[tuple[str, ...]] = Counter()
    newest: dict[tuple[str, ...], tuple[Difference, ...]] = {}
    for entry, noted in found:  # the oldest first
        now = {label: at for label, then in noted.items() if (at := code.ingredient(label, then)) is not None}
        if now == noted:
            continue
        parts = CallParts(os.path.basename(code.path), now, partial(_sources, code, tuple(now)))
        differing = tuple(differences(parts_of_entry(entry, noted), parts))
        words = tuple(difference.words for difference in differing)
        counts[words] += 1
        newest[words] = differing
    return [Change(count, newest[words]) for words, count in counts.most_common()]


def _sources(code: ScriptCode, labels: Iterable[str]) -> dict[str, str]:
    return {label: code.source(label) for label in labels if label.startswith("code of ")}


def _as_text(script: str, place: str, reports: Sequence[FunctionReport], others: Counter[str]) -> str:
    lines = ["", f"in the cache {place}:"]
    if reports:
        rows = [(one.name, f"{one.calls:,}", f"{one.calls - one.changed:,}", f"{one.changed:,}") for one in reports]
        head = ("FUNCTION", "CALLS", "BY THIS CODE", "BY OTHER CODE")
        lines.append(tables.table(head, rows, frozenset(head[1:]), "FUNCTION"))
    else:
        lines.append(f"no calls of functions of {script}")
    for report in reports:
        for change in report.changes:
            lines += ["", f"{report.name}: {quantities.calls(change.calls)} by other code", *lines_of(change.found)]
    if others:
        names = ", ".join(f"{name} ({count:,})" for name, count in others.most_common(5))
        lines += ["", f"{quantities.calls(others.total())} of functions that {script} does not define: {names}"]
    return "\n".join(lines)


def _as_object(place: str, reports: Sequence[FunctionReport], others: Counter[str]) -> dict[str, Any]:
    functions = [
        {
            "function": one.name,
            "calls": one.calls,
            "by_this_code": one.calls - one.changed,
            "changes": [
                {
                    "calls": change.calls,
                    "differences": [each.words for each in change.found],
                    "diffs": {each.label: each.diff for each in change.found if each.diff},
                }
                for change in one.changes
            ],
        }
        for one in reports
    ]
    return {"cache": place, "functions": functions, "other_functions": dict(others)}


# ------------------------------------------------------------------ by a dry run


def explain_by_dry_run(options: argparse.Namespace, script: str, arguments: Sequence[str]) -> int:
    """Run the script with executors that only plan, once the user agrees; print the plans."""
    warning = (
        f"callyard explain: --run runs {script}: its executors compute, submit and store nothing, but whatever else "
        "it does happens, as the files that it writes"
    )
    if options.yes:
        print(warning, file=sys.stderr)
    confirm(options, warning, "Run it?")
    with tempfile.TemporaryDirectory(prefix="callyard-plans-") as directory:
        path = os.path.join(directory, "plans")
        status = subprocess.run(
            [sys.executable, script, *arguments],
            env={**os.environ, DRY_RUN: path},
            stdout=sys.stderr.fileno() if options.json else None,
            check=False,
        ).returncode
        plans = list(_plans(path))
    if options.json:
        print_json({"script": script, "run": True, "status": status, "plans": [plan.as_dict() for plan in plans]})
    else:
        print(*map(str, plans), sep="\n\n") if plans else print(f"{script} has made no executor")
    if status:
        print(f"callyard explain: {script} has ended with status {status}", file=sys.stderr)
    return 1 if status else 0


def _plans(path: str) -> Iterator[Plan]:
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            yield from (Plan.from_dict(json.loads(line)) for line in file)
