"""Checks of the arguments of `Executor`, its methods and backends; each error names the right way."""

from __future__ import annotations

import numbers
import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import ResourceError
from .errors.suggestions import nearest
from .resources import OF_SLURM, resource_meant

__all__ = [
    "check_flag",
    "check_host",
    "check_initializers",
    "check_keywords",
    "check_map",
    "no_function",
    "place_in_backend",
    "place_in_executor",
    "place_in_map",
    "positive_count",
]

_OF_MACHINES = ("cores", "memory", "gpus")
_MANY = {"workers", "num_workers", "n_workers", "nworkers", "processes", "n_jobs", "max_cores", "max_threads"}
_OTHERS = {
    **dict.fromkeys(_MANY, "use max_workers="),
    **dict.fromkeys(("cache_directory", "cache_dir", "cachedir"), "use cache="),
    **{
        name: f"it belongs to the backend, as backend=Slurm({name}=...)"
        for name in ("walltime", "mpi", *OF_SLURM.split())
    },
    "mp_context": "workers are always fresh processes; leave it out",
}


def place_in_executor(name: str) -> str | None:
    """Return the place of a keyword unknown to `Executor`; None if unknown everywhere."""
    if name in _OTHERS:
        return _OTHERS[name]
    ours = resource_meant(name)
    if ours is None:
        return None
    limit = f"; to limit what all calls take together, use max_workers= or Local({name}=)"
    return f"resources go into resource_dict={{{ours!r}: ...}}{limit if name in _OF_MACHINES else ''}"


def place_in_backend(name: str) -> str | None:
    """Return the place of a keyword unknown to a backend, `Executor` or its calls; None if unknown everywhere."""
    if name in ("max_workers", "cache", "resource_dict"):
        return f"it belongs to the executor, as Executor(backend=..., {name}=...)"
    ours = resource_meant(name)
    return ours and f"it is a resource of calls, as Executor(backend=..., resource_dict={{{ours!r}: ...}})"


def place_in_map(name: str) -> str | None:
    """Return the place of a keyword unknown to `map`; None if unknown everywhere."""
    if name in ("resource_dict", "resources"):
        return "use with_resources(...).map(...)"
    ours = resource_meant(name)
    return ours and f"if the resource is meant, use with_resources({ours}=...).map(...)"


def no_function(method: str, given: object) -> TypeError:
    """Return the error for an object that is not callable, such as the result of a call made too early."""
    form = "iterables, as map(f, [3, 4])" if method == "map" else f"its arguments, as {method}(f, 3) for f(3)"
    return TypeError(f"{method}() takes a function and {form}; {reprlib.repr(given)} is not callable")


def check_keywords(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse a resource or a misspelt `resource_dict` among the keywords of a function without such a parameter."""
    for name in kwargs:
        ours = resource_meant(name)
        if (ours or _like_resource_dict(name)) and not _takes(function, name):
            shown = getattr(function, "__name__", type(function).__name__)
            use = f"resource_dict={{{ours!r}: ...}}" if ours else "resource_dict="
            raise TypeError(
                f"{shown}() got an unexpected keyword argument {name!r}: if a resource of the call is meant, use {use}"
            )


def _like_resource_dict(name: str) -> bool:
    return name.startswith("resource") and bool(nearest(name, ["resource_dict", "resources"]))


def _takes(function: Callable[..., Any], name: str) -> bool:
    import inspect  # here, because it loads slowly and few calls have such names

    try:
        # Not that of a wrapped function: a decorator may take keywords of its own, and pass on the rest.
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):  # no signature: a wrong call will fail by itself
        return True
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (parameter.name == name and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY))
        for parameter in parameters
    )


def check_map(function: object, timeout: object, chunksize: Any, buffersize: object, cache_key: str | None) -> None:
    """Refuse arguments of `map` with a wrong type, numbers that are too small, and one key for all its calls."""
    if not callable(function):
        raise no_function("map", function)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, numbers.Real)):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
    if not hasattr(chunksize, "__index__"):
        raise TypeError(f"chunksize must be an integer, not {chunksize!r}")
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if cache_key is not None:
        raise ResourceError(
            f"cache_key={cache_key!r} is the key of one call, and map() makes several, which would all have the result "
            "of the first: submit each with a key of its own"
        )


def positive_count(name: str, value: Any, alternative: str = "") -> int | None:
    """Return a positive integer of any library as Python's own, and None for None; refuse other values.

    Args:
        name: the parameter.
        value: the parameter's value; None stands for a default and is fine.
        alternative: another parameter for a value that is a text.
    """
    if value is None:
        return None
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None:
        other = alternative and not isinstance(value, (int, float)) and not str(value).isdigit()
        hint = f"; if it is the {alternative}, write {alternative}={value!r}" if other else ""
        raise TypeError(f"{name} must be an integer, not {value!r}{hint}")
    if count < 1:
        raise ValueError(f"{name} must be greater than 0, not {count}")
    return count


def check_flag(name: str, value: object) -> None:
    """Refuse a value that is neither True nor False: any other text or object would count as True."""
    if value not in (0, 1):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def check_initializers(initializer: object, initargs: object, init_function: object) -> None:
    """Refuse initializers that are not callable, and `initargs` without arguments to iterate over."""
    for name, function in (("initializer", initializer), ("init_function", init_function)):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be a callable, not {function!r}")
    if isinstance(initargs, (str, bytes)) or not isinstance(initargs, Iterable):
        raise TypeError(f"initargs must be a tuple of arguments, as ({initargs!r},), not {initargs!r}")


def check_host(host: object) -> None:
    """Raise ResourceError unless this is a host of a backend."""
    if host is not None and not callable(getattr(host, "open", None)):
        raise ResourceError(f"host must be SSH(...), as SSH('me@login'), not {host!r}")
