"""The class `Entry`: the stored record of one call, for people and programs to look into a cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CacheError, RemoteTraceback
from ..events.event import Failure
from ..events.usage import Usage
from ..utils.error_words import message_of
from ..utils.quantities import duration, size
from ..utils.shown_text import one_line
from .directory import CacheDirectory, FailuresDirectory
from .format.record_file import FAILED, DamagedFile, Header, Stored, read, read_head, read_noted
from .incoming_content import size_of
from .messages import arguments_in

__all__ = ["Entry", "facts_of_run", "open_entry", "open_noted"]

FactType = TypeVar("FactType")
_RUN = ("host", "pid", "python", "job", "log", "usage")  # the facts of a run, not of the call
_LONGEST_ERROR = 300  # characters
_TOLD = ("error", "message", "traceback", "exit_code", "signal")  # the fields of a failure


class Entry:
    """The stored record of one call, as `Cache` returns it.

    At first only the beginning of the file is read, for key, function, state, times and size. All other properties
    read the whole file at their first use, and make new values at each use. Their CacheError means a removed or
    damaged file, or objects that cannot be made in this process. Two entries of the same file are equal.

    >>> [entry] = cache
    >>> entry.function, entry.args, entry.output, entry.state
    ('divmod', (17, 5), (3, 2), 'finished')
    """

    __slots__ = ("_directory", "_head", "_known")

    def __init__(self, directory: CacheDirectory, head: Header) -> None:
        self._directory, self._head = directory, head
        self._known: Stored | None = None

    # -- known from the beginning of the file ----------------------------------------------------------

    @property
    def key(self) -> str:
        """The key of the call: 40 hexadecimal digits, or a text chosen by the user."""
        return self._head.key

    @property
    def function(self) -> str:
        """The name of the function."""
        return self._head.name

    @property
    def state(self) -> str:
        """Either "finished" or "failed"."""
        return self._head.state

    @property
    def created(self) -> datetime:
        """The begin of the call, in the time zone of this machine."""
        return datetime.fromtimestamp(self._head.created, timezone.utc).astimezone()

    @property
    def seconds(self) -> float:
        """The run time of the call (s)."""
        return self._head.seconds

    @property
    def size(self) -> int:
        """The size of the file, and of the files that the result names (bytes)."""
        return self._head.size + sum(map(size_of, self._head.files))

    @property
    def path(self) -> Path:
        """The path of the file, readable by any HDF5 tool."""
        return Path(self._directory.record(self.key))

    @property
    def answers(self) -> bool:
        """True for a result; of failures only for one kept by `Cache(failures=True)`, which answers later calls."""
        return not isinstance(self._directory, FailuresDirectory)

    @property
    def used(self) -> datetime:
        """The last use as a result or an input, to the day, in the time zone of this machine; at first the storing.

        Raises:
            CacheError: the file is not there any more.
        """
        try:
            status = os.stat(self.path)
        except OSError:
            raise self._gone() from None
        return datetime.fromtimestamp(max(status.st_atime, status.st_mtime), timezone.utc).astimezone()

    # -- values ----------------------------------------------------------------------------------------

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments; a placeholder stands for an argument too large to store, or not picklable."""
        return self._stored().args()

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments, with placeholders as in `args`."""
        return self._stored().kwargs()

    @property
    def output(self) -> Any:
        """The result of the call; None after a failure."""
        return None if self.state == FAILED else self._stored().output()

    @property
    def error(self) -> BaseException | None:
        """The exception of the call, with the traceback of the worker as its cause; None if the call finished."""
        if self.state != FAILED:
            return None
        error, text = self._stored().failure()
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))  # the class may be frozen
        return error

    @property
    def failure(self) -> Failure | None:
        """The failure in words: class and message of the error, exit code or signal; None if the call finished.

        No code of the error's class is run for this.
        """
        if self.state != FAILED:
            return None
        told = self._fact("failure", dict)
        if told is None:  # a file from before failures were described
            error, text = self._stored().failure()
            return Failure(type(error).__qualname__, message_of(error), text)
        return Failure(**{name: told[name] for name in _TOLD if name in told})

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed call, as text; None if the call finished, or its process ended without one."""
        failure = self.failure
        return None if failure is None else failure.traceback or None

    # -- facts about the call --------------------------------------------------------------------------

    @property
    def arguments(self) -> str:
        """The arguments in words, by the names of the parameters; no values are loaded."""
        return arguments_in(self.ingredients)

    @property
    def usage(self) -> Usage | None:
        """What the call has used: wall and CPU time (s), peak memory (bytes) and more; None if not stored."""
        used = self._fact("usage", dict)
        return None if used is None else Usage.of(used)

    @property
    def inputs(self) -> dict[str, str]:
        """The calls whose results are among the arguments: the names of their functions, by their keys."""
        noted = self._fact("inputs", dict) or {}
        return {key: name for key, name in noted.items() if isinstance(key, str) and isinstance(name, str)}

    @property
    def source(self) -> str:
        """The source text of the function at the time of the call."""
        return self._stored().source()

    @property
    def facts(self) -> dict[str, Any]:
        """All facts stored beside the values."""
        return self._stored().facts()

    @property
    def resources(self) -> dict[str, Any]:
        """The resources requested for the call."""
        return self._fact("resources", dict) or {}

    @property
    def host(self) -> str | None:
        """The name of the machine of the call; None if not stored."""
        return self._fact("host", str)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Python, of Callyard and of the packages used by the function, as far as stored."""
        facts = self.facts
        found = {name: str(facts[name]) for name in ("python", "callyard") if facts.get(name)}
        for label, ingredient in self.ingredients.items():
            kind, _, name = label.partition(" ")
            version = ingredient.partition(" ")[2]
            if kind == "package" and version:
                found.setdefault(name, version)
        return found

    @property
    def ingredients(self) -> dict[str, str]:
        """The ingredients of the key: labels such as "code of lab.relax" and "argument x", with short digests."""
        return _ingredients_in(self.facts)

    @property
    def sources(self) -> dict[str, str]:
        """The source texts of the functions in the key, as far as stored: by labels such as "code of lab.relax"."""
        from ..hashing.sources import unpack  # here, because it takes long to load, and few ask for this

        found = dict(unpack(self._fact("sources", str) or ""))
        if self.source:
            codes = [label for label in self.ingredients if label.startswith("code of ") and label not in found]
            own = [label for label in codes if label.removeprefix("code of ").rpartition(".")[2] == self.function]
            found.update(dict.fromkeys(own[:1], self.source))
        return found

    @property
    def log(self) -> str | None:
        """The output written by the call, if a log was kept; otherwise None."""
        kept = self._fact("log", str)
        if kept is not None and "\n" not in kept and os.path.isabs(kept):
            return _text(kept)
        return kept

    def _fact(self, name: str, kind: type[FactType]) -> FactType | None:
        """Return a fact; None for a missing one, or one of another type."""
        fact = self.facts.get(name)
        return fact if isinstance(fact, kind) else None

    def _stored(self) -> Stored:
        """Return the whole record, read and checked once; large values stay in the file."""
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> Stored:
        try:
            descriptor = self._directory.open_record(self.key, is_use=False)
        except FileNotFoundError:
            raise self._gone() from None
        try:
            return read(descriptor, self._directory.record(self.key))
        finally:
            os.close(descriptor)

    def _gone(self) -> CacheError:
        return CacheError(
            f"the call {self.key} of {self.function!r} is not in {self._directory.path} any more: run it again"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return (self._directory.path, self._head) == (other._directory.path, other._head)

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> Any:
        return Entry, (self._directory, self._head)

    def _repr_html_(self) -> str:
        from ..display.notebook_html import card

        facts = [
            ("State", self.state),
            ("Error", _error_of(self)),
            ("Began", self.created.strftime("%Y-%m-%d %H:%M:%S %Z")),
            ("Took", duration(self.seconds)),
            ("Size", size(self.size)),
            ("Key", self.key),
        ]
        return card(f"Entry of {self.function}", facts)

    def __repr__(self) -> str:
        when = self.created.strftime("%Y-%m-%d %H:%M:%S")
        took = f"{duration(self.seconds)}, {size(self.size)}"
        return f"<Entry {self.key[:12]} {self.function!r} {self.state} {when}, {took}>"


def _error_of(entry: Entry) -> str:
    try:
        failure = entry.failure
    except CacheError as error:  # removed meanwhile, for example
        return str(error)
    return "" if failure is None else one_line(failure.words, _LONGEST_ERROR)


def open_entry(directory: CacheDirectory, key: str) -> Entry:
    """Return the entry of a key.

    Raises:
        FileNotFoundError: there is none.
        CacheError: its file cannot be read or trusted; the message gives the reason.
    """
    return Entry(directory, _open(directory, key, read_head))


def open_noted(directory: CacheDirectory, key: str) -> tuple[Entry, dict[str, str]]:
    """Return the entry of a key and its ingredients, which cost no second look at the file; raise as `open_entry`."""
    entry, facts = _open_with_facts(directory, key)
    return entry, _ingredients_in(facts)


def facts_of_run(directory: CacheDirectory, key: str) -> dict[str, Any] | None:
    """Return what is stored of the run of a call besides its values, see `RunReport.run`; None for no stored call."""
    for place in (directory, directory.failures):
        try:
            entry, facts = _open_with_facts(place, key)
        except FileNotFoundError:
            continue
        except (OSError, CacheError):  # damaged, for example
            return None
        head = entry._head
        return {"began": head.created, "seconds": head.seconds} | {name: facts[name] for name in _RUN if name in facts}
    return None


def _open_with_facts(directory: CacheDirectory, key: str) -> tuple[Entry, dict[str, Any]]:
    noted: list[dict[str, Any]] = []

    def read_both(descriptor: int, path: str) -> Header:
        head, facts = read_noted(descriptor, path)
        noted.append(facts)
        return head

    return Entry(directory, _open(directory, key, read_both)), noted[0]


def _open(directory: CacheDirectory, key: str, read_it: Callable[[int, str], Header]) -> Header:
    descriptor = directory.open_record(key, is_use=False)
    try:
        head = read_it(descriptor, directory.record(key))
    finally:
        os.close(descriptor)
    if head.key != key:
        raise DamagedFile(f"{directory.record(key)} is damaged: it holds another call, {head.key}")
    return head


def _ingredients_in(facts: Mapping[str, Any]) -> dict[str, str]:
    noted = facts.get("ingredients")
    return {label: look for label, look in noted.items() if isinstance(look, str)} if isinstance(noted, dict) else {}


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # it is gone, or was on another computer
        return None
