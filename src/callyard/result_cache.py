"""The public class `Cache`: a cache to be opened, read, explained and pruned."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from .argument_checks import no_function
from .cache.claims import Claims
from .cache.directory import CacheDirectory, is_key
from .errors import CacheError
from .errors.suggestions import strict, strict_init

if TYPE_CHECKING:
    from .cache.entry import Entry
    from .cache.inspect.explain import Explanation
    from .futures import Future
    from .jobs.check_and_prune import Check
    from .jobs.spool import BatchDirectory

__all__ = ["Cache"]

_MODES = ("use", "refresh", "read-only")


@strict_init()
@dataclass(frozen=True, repr=False)
class Cache:
    """A directory that holds the results of calls, one HDF5 file for each: `Executor(cache=Cache("results"))`.

    A cache is a mapping of entries by the keys of their calls; the unique beginning of a key is enough, from six
    characters on. Iteration goes over the entries, not the keys, in the order of storing. An unreadable entry is left
    out with a warning. Failed calls have entries, too.

    Args:
        directory: the path, "~" allowed. A missing directory is made, for its user alone, unless `mode` is
            "read-only".
        mode: "use" (the default) takes stored results and adds missing ones; "refresh" runs each call again, once for
            each executor; "read-only" takes stored results and stores nothing.
        trust: "group" to share the directory with the members of its group, who can then run any code as you. By
            default (None) everything writable for others is refused.
        failures: True to let exceptions of functions answer later calls, as results do; False by default. Failed calls
            have entries in either case, see `Entry.answers`.

    Raises:
        UnsafeCache: others could have written into the directory.
        CacheError: the directory cannot be used, or an argument makes no sense.
        TypeError: the directory is no path, `failures` no bool, or an argument is unknown.

    Examples:
        >>> with Executor(cache="results") as executor:
        ...     executor.submit(divmod, 17, 5).result()
        (3, 2)
        >>> cache = Cache("results")
        >>> [entry.output for entry in cache if entry.function == "divmod"]
        [(3, 2)]
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
        """Set the function for the instances of a class in keys: each counts by the function's value of it.

        This holds in this process, for all caches, and replaces an earlier registration of the class.

        Args:
            kind: the class.
            function: called with an instance; returns a value of another type, as a tuple of its attributes.

        Raises:
            TypeError: `kind` is not a class, `function` cannot be called, or the class is a basic one as `int`.

        >>> class Connection:
        ...     def __init__(self, address):
        ...         self.address = address
        >>> Cache.register(Connection, lambda connection: connection.address)
        """
        from .hashing.encoder import register

        register(kind, function)

    @property
    def path(self) -> str:
        """The real path of the directory."""
        return self._directory.path

    @cached_property
    def _claims(self) -> Claims:
        """The claims of processes to the calls they run at the moment."""
        return Claims(self._directory)

    def _at(self, directory: str | os.PathLike[str]) -> Cache:
        """Return a cache in another directory, with the same options."""
        return Cache(directory, mode=self.mode, trust=self.trust, failures=self.failures)

    # -- a mapping of entries --------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.keys())

    def __bool__(self) -> bool:
        return True  # even for an empty cache, because `if cache:` asks for a cache, not for entries

    def keys(self) -> list[str]:
        """Return the keys of all entries, in the order of storing: of results, and of failures without a later result.

        Examples:
            >>> [cache[key].output for key in cache.keys()]
            [(3, 2)]
        """
        from .cache.inspect.find import all_keys

        return all_keys(self._directory)

    def __iter__(self) -> Iterator[Entry]:
        from .cache.inspect.find import entries

        return entries(self._directory, self.keys())

    def values(self) -> Iterator[Entry]:
        """Return an iterator over the entries, like `iter(cache)`.

        Examples:
            >>> [entry.function for entry in cache.values()]
            ['divmod']
        """
        return iter(self)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Return an iterator over pairs of key and entry.

        Examples:
            >>> [entry.key == key for key, entry in cache.items()]
            [True]
        """
        return ((entry.key, entry) for entry in self)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and is_key(key) and (self._directory.exists(key) or self._has_failure(key))

    def _has_failure(self, key: str) -> bool:
        return self._directory.failures.exists(key)

    def __getitem__(self, key: str) -> Entry:
        from .cache.inspect.find import NoEntry, open_any

        whole = self._whole_key(key)
        try:
            return open_any(self._directory, whole)
        except FileNotFoundError:
            raise NoEntry(f"the call {whole!r} was removed from {self.path} just now") from None

    def get(self, key: str, default: Any = None) -> Entry | Any:
        """Return the entry of a key, or a default.

        Args:
            key: the key, or the unique beginning of one.
            default: returned if there is no such entry, or several.

        >>> cache.get("0123456789") is None
        True
        """
        try:
            return self[key]
        except KeyError:
            return default

    def find_key(self, beginning: str) -> str:
        """Return the whole key of a stored or running call.

        Args:
            beginning: the first characters of the key, six or more.

        Raises:
            KeyError: no key begins so, or several do.

        >>> key = cache.keys()[0]
        >>> cache.find_key(key[:8]) == key
        True
        """
        from .cache.inspect.find import the_key

        def known() -> set[str]:
            return {*self.keys(), *(key for key, _ in self._claims.running())}

        return the_key(beginning, known, lambda key: key in self or self._holder(key) is not None, self.path)

    def _whole_key(self, beginning: str) -> str:
        from .cache.inspect.find import the_key

        return the_key(beginning, self.keys, self.__contains__, self.path)

    def _holder(self, key: str) -> Any:
        return self._claims.holder(key) if is_key(key) else None

    @strict()
    def to_dataframe(self, *, values: bool = False) -> Any:
        """Return a pandas DataFrame with a row for each entry.

        Args:
            values: True to load all arguments and results of the calls, and add columns with them (args, kwargs,
                output and error).

        Raises:
            CacheError: pandas is not installed, or a value cannot be loaded.

        >>> table = cache.to_dataframe()  # doctest: +SKIP
        >>> table[table.seconds > 60]  # doctest: +SKIP
        """
        from .cache.inspect.dataframe import dataframe

        return dataframe(self, values)

    # -- single calls ----------------------------------------------------------------------------------

    def future(self, key: str) -> Future[Any]:
        """Return a future of a stored call, or of a call running now in any process.

        Cancelling the future does not cancel the call.

        Args:
            key: the key, or the unique beginning of one.

        Raises:
            KeyError: no call with this key is stored or running.

        >>> cache.future(cache.keys()[0]).result()
        (3, 2)
        """
        from .cache.inspect.attach import future_of

        return future_of(self._directory, self._claims, self.find_key(key))

    def explain(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        resource_dict: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Explanation:
        """Return an explanation of a hit or miss: the key of a call, and its differences from the nearest entry.

        The call is not run. The key is the one of an executor without initializer.

        Args:
            fn: the function, as for `Executor.submit`.
            *args: its positional arguments.
            resource_dict: the resources of the call; some are part of the key.
            **kwargs: its keyword arguments.

        Raises:
            TypeError: `fn` is not callable.
            CacheError: an argument has no key, such as an open file or an unfinished future.

        >>> cache.explain(divmod, 17, 5).hit
        True
        >>> print(cache.explain(divmod, 17, 6))
        'divmod' is not in the cache; its key would be ...
        """
        from .cache.inspect.explain import explain
        from .resources import Resources

        if not callable(fn):
            raise no_function("explain", fn)
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
        unused_for: float | str | timedelta | None = None,
        larger_than: float | str | None = None,
        max_size: float | str | None = None,
        function: str | None = None,
        state: Literal["finished", "failed"] | None = None,
        keys: str | Iterable[str] | None = None,
        unreached: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
    ) -> list[Entry]:
        """Remove the entries that meet all conditions, and return them.

        Unfinished files and claims of processes that are gone are removed as well.
        Running calls stay, and so do the inputs of calls that are jobs and have not ended. `prune(max_size=0)` removes
        all other entries.

        Args:
            older_than: the time since the call began is longer than this: a number of seconds, a timedelta, or a text
                with a unit, as "30d". A text without a unit is refused.
            unused_for: the entry was neither an answer nor an input, nor stored, for so long, likewise; to the day.
            larger_than: the file is larger than this: a number of bytes, or a text with a unit, as "1GB".
            max_size: the total size of the entries to keep among the matching ones, the newest first:
                a number of bytes, or a text with a unit, as "50GB".
            function: the name of the function.
            state: "finished" or "failed".
            keys: a key or several, or their beginnings; no other entries are removed.
            unreached: a script: the call is one of a function there, or in a module of yours that it finds, whose code
                has changed since. The script is only read.
            dry_run: True to return the entries without removing them.

        Raises:
            CacheError: there is no condition, or one makes no sense; or the cache is read-only.
            KeyError: there is no entry for one of the keys.

        Examples:
            >>> [entry.function for entry in cache.prune(older_than=0, function="divmod", dry_run=True)]
            ['divmod']
        """
        from .jobs.check_and_prune import prune

        only = [keys] if isinstance(keys, str) else keys
        chosen = None if only is None else [self._whole_key(key) for key in only]
        script = None if unreached is None else os.fspath(unreached)
        with self._system_errors_as("pruned"):
            conditions = (older_than, unused_for, larger_than, max_size, function, state, script)
            return prune(self._directory, chosen, *conditions, dry_run)

    @strict()
    def check(self, *, repair: bool = False) -> Check:
        """Read all files, and report damaged, unsafe and foreign ones.

        Args:
            repair: True to set damaged files aside, so that their calls run again, and to remove the files left by
                ended processes.

        Raises:
            CacheError: the directory cannot be read, or repaired.

        >>> cache.check().ok
        True
        """
        return self._check(repair, None)

    def _check(self, repair: bool, jobs_are_over: Callable[[BatchDirectory], bool] | None) -> Check:
        from .jobs.check_and_prune import check

        with self._system_errors_as("repaired" if repair else "checked"):
            return check(self._directory, repair, jobs_are_over)

    @contextmanager
    def _system_errors_as(self, what: str) -> Iterator[None]:
        """Raise an error of the system as a CacheError: the cache cannot be pruned, for example."""
        try:
            yield
        except OSError as error:
            raise CacheError(f"the cache {self.path} cannot be {what}: {error.strerror}") from error

    def __reduce__(self) -> Any:
        make = partial(Cache, mode=self.mode, trust=self.trust, failures=self.failures)
        return make, (self.path,)  # unpickling checks the directory again

    def _repr_html_(self) -> str:
        from .display.notebook_html import card

        facts = [("Entries", f"{len(self):,}"), ("Mode", "" if self.mode == "use" else self.mode)]
        return card(f"Cache {self.path}", [*facts, ("Trust", self.trust or "")])

    def __repr__(self) -> str:
        options = {"mode": (self.mode, "use"), "trust": (self.trust, None), "failures": (self.failures, False)}
        said = [f"{name}={value!r}" for name, (value, default) in options.items() if value != default]
        return f"Cache({', '.join([repr(os.fspath(self.directory)), *said])})"
