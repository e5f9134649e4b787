"""What a cache holds of one call, for people and programs that look in."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CacheError, RemoteTraceback
from ..utils.quantities import duration, size
from .directory import CacheDirectory
from .format.record_file import FAILED, DamagedFile, Header, Stored, read, read_head

__all__ = ["Entry"]

Noted = TypeVar("Noted")


class Entry:
    """One remembered call.

    At first only the beginning of its file is read, for key, function, state, times and size. Values are made anew
    each time that they are asked for. Two entries are equal if they are of the same file.
    """

    __slots__ = ("_head", "_home", "_known")

    def __init__(self, home: CacheDirectory, head: Header) -> None:
        self._home, self._head = home, head
        self._known: Stored | None = None

    # -- known from the beginning of the file ----------------------------------------------------------

    @property
    def key(self) -> str:
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
        """When the call began, in the time zone of this machine."""
        return datetime.fromtimestamp(self._head.created, timezone.utc).astimezone()

    @property
    def seconds(self) -> float:
        """How long the call ran."""
        return self._head.seconds

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._head.size

    @property
    def path(self) -> Path:
        """The file, which any HDF5 tool reads."""
        return Path(self._home.record(self.key))

    # -- values ----------------------------------------------------------------------------------------

    @property
    def args(self) -> tuple[Any, ...]:
        return self._stored().args()

    @property
    def kwargs(self) -> dict[str, Any]:
        return self._stored().kwargs()

    @property
    def output(self) -> Any:
        """What the call returned; None if it failed."""
        return None if self.state == FAILED else self._stored().output()

    @property
    def error(self) -> BaseException | None:
        """What the call raised, with the traceback of the worker as its cause; None if it finished."""
        if self.state != FAILED:
            return None
        error, text = self._stored().failure()
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))  # the class may be frozen
        return error

    @property
    def traceback(self) -> str | None:
        """The traceback of a call that failed, as text."""
        return str(self._stored().failure()[1]) if self.state == FAILED else None

    # -- what is known of the call besides -------------------------------------------------------------

    @property
    def source(self) -> str:
        """The text of the function as it was then."""
        return self._stored().source()

    @property
    def facts(self) -> dict[str, Any]:
        """All that is noted beside the values."""
        return self._stored().facts()

    @property
    def resources(self) -> dict[str, Any]:
        """The resources that were asked for."""
        return self._noted("resources", dict) or {}

    @property
    def host(self) -> str | None:
        """The machine on which the call ran."""
        return self._noted("host", str)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Python, of Callyard and of packages that the function uses, as far as they are noted."""
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
        """What went into the key: labels such as "code of lab.relax" and "argument x", with short digests."""
        noted = self._noted("ingredients", dict) or {}
        return {label: look for label, look in noted.items() if isinstance(look, str)}

    @property
    def log(self) -> str | None:
        """What the call wrote, where that was kept."""
        kept = self._noted("log", str)
        if kept is not None and "\n" not in kept and os.path.isabs(kept):
            return _text(kept)
        return kept

    def _noted(self, name: str, kind: type[Noted]) -> Noted | None:
        """A fact that is of a type; one of another is none."""
        fact = self.facts.get(name)
        return fact if isinstance(fact, kind) else None

    def _stored(self) -> Stored:
        """The whole file, checked; large values stay in it."""
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> Stored:
        try:
            descriptor = self._home.open_record(self.key)
        except FileNotFoundError:
            raise CacheError(
                f"the call {self.key} of {self.function!r} is not in {self._home.path} any more: run it again"
            ) from None
        try:
            return read(descriptor, self._home.record(self.key))
        finally:
            os.close(descriptor)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return (self._home.path, self._head) == (other._home.path, other._head)

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> Any:
        return Entry, (self._home, self._head)

    def __repr__(self) -> str:
        when = self.created.strftime("%Y-%m-%d %H:%M:%S")
        took = f"{duration(self.seconds)}, {size(self.size)}"
        return f"<Entry {self.key[:12]} {self.function!r} {self.state} {when}, {took}>"


def open_entry(home: CacheDirectory, key: str) -> Entry:
    """The entry of a key.

    Raises:
        FileNotFoundError: there is none.
        CacheError: it cannot be read or trusted, for a reason that the message gives.
    """
    descriptor = home.open_record(key)
    try:
        head = read_head(descriptor, home.record(key))
    finally:
        os.close(descriptor)
    if head.key != key:
        raise DamagedFile(f"{home.record(key)} is damaged: it holds another call, {head.key}")
    return Entry(home, head)


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None
