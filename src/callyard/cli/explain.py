"""Show the ingredients of a call's key, the most similar other call, and the differences between the two.

Name a stored call by its key, or any call by its function and arguments:

    callyard explain results 3fa2b1
    callyard explain results lab:relax Cu force=0.01

Arguments are Python literals; any other text is taken as a string. The exit status is 0 if the call is in the cache.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..cache.inspect.call_parts import CallParts
from ..cache.inspect.explain import Explanation, compared, explain_entry, lines_of
from ..cache.inspect.nearest import EntryIndex
from ..errors import CacheError
from ..jobs.list_job_calls import JobCallStatus
from ..result_cache import Cache
from ..utils.paths import expand
from . import UsageError, tables
from .arguments import add_json, add_place, call_of, from_environment, open_cache, print_json

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_json(parser, "an object")
    add_place(parser, "KEY | MODULE:FUNCTION [ARG ...] [NAME=VALUE ...]", ", and the call")


def run(options: argparse.Namespace) -> int:
    """Print the explanation."""
    directory, (target, *arguments) = _split(options)
    cache = open_cache(options, directory)
    if _is_function(target):
        found = _of_call(cache, target, arguments)
        print_json(_as_object(found)) if options.json else print(found)
        return 0 if found.hit else 1
    if arguments:
        raise UsageError(f"what is {arguments[0]!r}? Arguments follow MODULE:FUNCTION, not a key")
    call = call_of(cache, target)
    found = _of_job(cache, call) if isinstance(call, JobCallStatus) else explain_entry(cache._directory, call)
    print_json(_as_object(found)) if options.json else print(_as_text(found))
    return 0


def _split(options: argparse.Namespace) -> tuple[str, list[str]]:
    words: list[str] = options.words
    if options.cache is not None:
        place = options.cache
    elif words and (os.path.isdir(expand(words[0])) or (len(words) > 1 and not _is_function(words[0]))):
        place, words = words[0], words[1:]
    else:
        place = from_environment()
    if not words:
        raise UsageError("which call? Give the beginning of its key, or MODULE:FUNCTION and arguments")
    return place, words


def _is_function(word: str) -> bool:
    return re.fullmatch(r"[\w.]+:[\w.]+", word) is not None


# ------------------------------------------------------------------ the call


def _of_call(cache: Cache, target: str, words: list[str]) -> Explanation:
    args, kwargs = [], {}
    for word in words:
        name, equals, rest = word.partition("=")
        if equals and name.isidentifier():
            kwargs[name] = _literal(rest)
        else:
            args.append(_literal(word))
    return cache.explain(_function(target), *args, **kwargs)


def _literal(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def _function(target: str) -> Callable[..., Any]:
    module, _, path = target.partition(":")
    sys.path.insert(0, os.getcwd())  # as Python does for a script in this directory
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise CacheError(f"there is no {target}: {error}") from None
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise CacheError(f"{target} is no function but {tables.value(found, 40)}")
    return found  # type: ignore[no-any-return]


def _of_job(cache: Cache, call: JobCallStatus) -> Explanation:
    key, parts, packed = call.key, call.ingredients, call.call_file
    if packed is not None and not key:  # not begun
        key, parts = packed.order.key, packed.order.facts.get("ingredients", {})
    if not key and packed is not None:
        inputs = ", ".join(given.name for given in packed.inputs)
        raise CacheError(
            f"{call.known_as} is {call.state}: its key will be made from the results of its inputs ({inputs})"
        )
    return compared(EntryIndex(cache._directory), key or call.known_as, call.name, CallParts("this call", parts))


# ------------------------------------------------------------------ output


def _as_object(found: Explanation) -> dict[str, Any]:
    simple = {"key": found.key, "function": found.function, "hit": found.hit, "running": found.running}
    nearest = None if found.nearest is None else found.nearest.key
    lists = {name: list(getattr(found, name)) for name in ("differences", "unfollowed", "missing")}
    return simple | {"nearest": nearest} | lists | {"diffs": found.diffs, "ingredients": dict(found.ingredients)}


def _as_text(found: Explanation) -> str:
    width = max(map(len, found.ingredients), default=0)
    parts = [f"  {label:{width}}  {digest}" for label, digest in found.ingredients.items()]
    lines = [f"{found.function!r}, key {found.key}", "what went into the key:", *(parts or ["  (not noted)"])]
    if found.nearest is not None:
        lines += [f"from the nearest other entry, {found.nearest.key}, it differs in:"]
        lines += lines_of(found.found)
    return "\n".join(lines)
