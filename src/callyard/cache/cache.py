"""The cache as its users have it: how it is opened, and how to look in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CacheError
from ..errors.suggestions import strict, strict_init
from .claims import Claims
from .directory import CacheDirectory, is_key

if TYPE_CHECKING:
    from ..futures import Future
    from .entry import Entry
    from .inspect.check_and_prune import Check
    from .inspect.key_differences import Explanation

__all__ = ["Cache"]

_MODES = ("use", "refresh", "read-only")


@strict_init()
@dataclass(frozen=True, repr=False)
class Cache:
    """A directory in which calls are remembered, one HDF5 file for each: `Executor(cache=Cache("results"))`.

    A mapping of entries, by the keys of the calls, of which a unique beginning is enough. Iteration goes over the
    entries, in the order in which they were stored; one that cannot be read is left out with a warning.

    Args:
        directory: made if it is missing, for its user alone.
        mode: "use" what is there and add what is not; "refresh" runs each call again, once for each executor;
            "read-only" uses what is there and stores nothing.
        trust: "group" to share the directory with the members of its group, who can then run any code as you. None:
            whatever others could have written is refused.
        failures: whether the exceptions of calls are remembered too.

    Raises:
        UnsafeCache: others could have written what is in the directory.
        CacheError: the directory cannot be used.

    >>> cache = Cache("results")
    >>> [entry.output for entry in cache if entry.function == "relax"]
    """

    directory: str | os.PathLike[str] = field(compare=False)
    mode: Literal["use", "refresh", "read-only"] = field(default="use", kw_only=True)
    trust: Literal["group"] | None = field(default=None, kw_only=True)
    failures: bool = field(default=False, kw_only=True)
    _directory: CacheDirectory = field(init=False)

    def __post_init__(self) -> None:
        directory = self.directory
        if not isinstance(os.fspath(directory) if isinstance(directory, os.PathLike) else directory, str):
            raise TypeError(f"the directory of a cache is a path, not {directory!r}")
        if not os.fspath(directory):
            raise CacheError("the directory of a cache must have a name; use '.' for the one you are in")
        if self.mode not in _MODES:
            raise CacheError(f"mode is one of {', '.join(map(repr, _MODES))}, not {self.mode!r}")
        if not isinstance(self.failures, bool):
            raise TypeError(f"failures is True or False, not {self.failures!r}")
        opened = CacheDirectory.open(self.directory, writable=self.mode != "read-only", trust=self.trust)
        object.__setattr__(self, "_directory", opened)

    @staticmethod
    def register(kind: type, function: Callable[[Any], Any]) -> None:
        """Let an instance of `kind`, in keys, mean what `function(instance)` means.

        >>> Cache.register(Connection, lambda connection: connection.address)
        """
        from ..hashing.encoder import register

        register(kind, function)

    @property
    def path(self) -> str:
        """The real path of the directory."""
        return self._directory.path

    @cached_property
    def _claims(self) -> Claims:
        """Who runs what at the moment."""
        return Claims(self._directory)

    def _at(self, directory: str | os.PathLike[str]) -> Cache:
        """Another directory that is used in the same way."""
        return Cache(directory, mode=self.mode, trust=self.trust, failures=self.failures)

    # -- a mapping of entries --------------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(1 for _ in self._directory.entries())

    def __bool__(self) -> bool:
        return True  # also while it is empty: `if cache:` asks whether there is one

    def keys(self) -> list[str]:
        """The keys of all entries, in the order in which they were stored."""
        from .inspect.find import keys_by_age

        return keys_by_age(self._directory)

    def __iter__(self) -> Iterator[Entry]:
        from .inspect.find import entries

        return entries(self._directory, self.keys())

    def values(self) -> Iterator[Entry]:
        return iter(self)

    def items(self) -> Iterator[tuple[str, Entry]]:
        return ((entry.key, entry) for entry in self)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and is_key(key) and self._directory.exists(key)

    def __getitem__(self, key: str) -> Entry:
        from .entry import open_entry
        from .inspect.find import NoEntry

        whole = self._whole_key(key)
        try:
            return open_entry(self._directory, whole)
        except FileNotFoundError:
            raise NoEntry(f"the call {whole!r} was removed from {self.path} just now") from None

    def get(self, key: str, default: Any = None) -> Entry | Any:
        """The entry of a key, or `default`."""
        try:
            return self[key]
        except KeyError:
            return default

    def find_key(self, beginning: str) -> str:
        """The key of a stored or running call that begins so. Raises KeyError where there is none, or several."""
        from .inspect.find import the_key

        def known() -> set[str]:
            return {*self._directory.keys(), *(key for key, _ in self._claims.running())}

        return the_key(beginning, known, lambda key: key in self or self._holder(key) is not None, self.path)

    def _whole_key(self, beginning: str) -> str:
        from .inspect.find import the_key

        return the_key(beginning, self._directory.keys, self.__contains__, self.path)

    def _holder(self, key: str) -> Any:
        return self._claims.holder(key) if is_key(key) else None

    @strict()
    def to_dataframe(self, *, values: bool = False) -> Any:
        """A pandas table with a row for each entry.

        With `values` also what the calls were given and returned, in columns args, kwargs, output and error; all
        of it is loaded.
        """
        from .inspect.dataframe import dataframe

        return dataframe(self, values)

    # -- single calls ----------------------------------------------------------------------------------

    def future(self, key: str) -> Future[Any]:
        """The future of a call that is stored, or that some process is running now.

        To cancel it does not cancel the call.

        Raises:
            KeyError: neither stored nor running.
        """
        from .inspect.attach import future_of

        return future_of(self._directory, self._claims, self.find_key(key))

    def explain(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        resource_dict: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Explanation:
        """Say whether `submit` with the same arguments would be answered from here, and if not, what differs.

            >>> print(cache.explain(relax, "Cu", force=0.01))

        Initializers of an executor are not known here.
        """
        from ..resources import Resources
        from .inspect.explain import explain

        resources = Resources().updated(resource_dict or {})
        cache = self if resources.cache_directory is None else self._at(resources.cache_directory)
        return explain(cache._directory, fn, args, kwargs, resources, cache._answers)

    def _answers(self, entry: Entry) -> bool:
        return (entry.state == "finished" or self.failures) and self.mode != "refresh"

    # -- all of it -------------------------------------------------------------------------------------

    @strict()
    def prune(
        self,
        *,
        older_than: float | str | timedelta | None = None,
        larger_than: float | str | None = None,
        max_size: float | str | None = None,
        function: str | None = None,
        state: Literal["finished", "failed"] | None = None,
        keys: str | Iterable[str] | None = None,
        dry_run: bool = False,
    ) -> list[Entry]:
        """Remove the entries that meet all conditions, and what processes left that are gone. Return the entries.

        What is being run at the moment stays.

        Args:
            older_than: seconds since the call was made, a timedelta, or a text as "30d".
            larger_than: bytes of the file, or a text as "1GB".
            max_size: so many bytes of what meets the other conditions stay, the newest.
            function: its name.
            state: "finished" or "failed".
            keys: these alone.
            dry_run: only return what would be removed.

        Raises:
            CacheError: no condition, or one that makes no sense. `prune(max_size=0)` removes everything.
        """
        from .inspect.check_and_prune import prune

        only = [keys] if isinstance(keys, str) else keys
        chosen = None if only is None else [self._whole_key(key) for key in only]
        with self._system_has_the_word("pruned"):
            return prune(self._directory, chosen, older_than, larger_than, max_size, function, state, dry_run)

    @strict()
    def check(self, *, repair: bool = False) -> Check:
        """Read everything, and report what is damaged, unsafe, or does not belong here.

        With `repair`, what is damaged is set aside, and what processes left that are gone is removed.
        """
        from .inspect.check_and_prune import check

        with self._system_has_the_word("repaired" if repair else "checked"):
            return check(self._directory, repair)

    @contextmanager
    def _system_has_the_word(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(f"the cache {self.path} cannot be {what}: {error.strerror}") from error

    def __reduce__(self) -> Any:
        make = partial(Cache, mode=self.mode, trust=self.trust, failures=self.failures)
        return make, (self.path,)  # elsewhere the directory is looked at again

    def __repr__(self) -> str:
        options = {"mode": (self.mode, "use"), "trust": (self.trust, None), "failures": (self.failures, False)}
        said = [f"{name}={value!r}" for name, (value, default) in options.items() if value != default]
        return f"Cache({', '.join([repr(os.fspath(self.directory)), *said])})"
