"""Show why calls are computed again: how they differ from the most similar call in the cache.

Name a script, a stored call by its key, or any call by its function and arguments:

    callyard explain study.py
    callyard explain --run study.py -- --metal Cu
    callyard explain results 3fa2b1
    callyard explain results lab:relax Cu force=0.01

A script is only read, and its code compared with that of the stored calls. With --run, after a question, it is run by
executors that compute, submit and store nothing, and tell what each call would do.

Arguments of a function are Python literals; any other text is taken as a string. Its module is imported, after a
question if that does more than define. The exit status is then 0 if the call is in the cache, else 1.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from ..cache.inspect.call_parts import CallParts
from ..cache.inspect.explain import Explanation, compared, explain_entry, lines_of
from ..cache.inspect.nearest import nearest
from ..cache.inspect.script_code import module_file, parsed, what_runs
from ..errors import CacheError, NotComputed
from ..jobs.list_job_calls import JobCallStatus
from ..result_cache import Cache
from ..utils.environment import DRY_RUN
from ..utils.paths import expand
from . import UsageError, tables
from .arguments import add_json, add_place, call_of, from_environment, open_cache, print_json
from .confirm import add_yes, confirm
from .explain_script import explain_by_dry_run, explain_by_text, is_script

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--run", action="store_true", help="run the script, with executors that only plan")
    add_yes(parser)
    add_json(parser, "an object")
    add_place(parser, "SCRIPT | KEY | MODULE:FUNCTION [ARG ...] [NAME=VALUE ...]", ", and the call")


def run(options: argparse.Namespace) -> int:
    """Print the explanation."""
    if options.run or any(map(is_script, options.words[:2])):
        return _of_script(options)
    directory, (target, *arguments) = _split(options)
    cache = open_cache(options, directory)
    if _is_function(target):
        found = _of_call(cache, options, target, arguments)
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


def _of_script(options: argparse.Namespace) -> int:
    words: list[str] = options.words
    directory = options.cache
    if len(words) > 1 and not is_script(words[0]):
        directory, words = words[0], words[1:]
    if not words or not is_script(words[0]):
        raise UsageError("which script? --run is for the path of one, as study.py")
    if options.run:
        return explain_by_dry_run(options, words[0], words[1:])
    if len(words) > 1:
        raise UsageError(f"what is {words[1]!r}? Arguments of a script are for --run")
    return explain_by_text(options, directory, words[0])


def _is_function(word: str) -> bool:
    return re.fullmatch(r"[\w.]+:[\w.]+", word) is not None


# ------------------------------------------------------------------ the call


def _of_call(cache: Cache, options: argparse.Namespace, target: str, words: list[str]) -> Explanation:
    args, kwargs = [], {}
    for word in words:
        name, equals, rest = word.partition("=")
        if equals and name.isidentifier():
            kwargs[name] = _literal(rest)
        else:
            args.append(_literal(word))
    _confirm_import(options, target)
    return cache.explain(_function(target), *args, **kwargs)


def _literal(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def _confirm_import(options: argparse.Namespace, target: str) -> None:
    """Ask before the import of a module that does more than define."""
    module = target.partition(":")[0]
    path = module_file(module, [os.getcwd(), *sys.path])
    lines = [] if path is None else what_runs(parsed(path))
    if lines:
        warning = (
            f"callyard explain: {module} is imported, which does more than define (line {lines[0]} of {path}): its "
            "executors compute, submit and store nothing, but whatever else it does happens"
        )
        if options.yes:
            print(warning, file=sys.stderr)
        confirm(options, warning, "Import it?")


def _function(target: str) -> Callable[..., Any]:
    module, _, path = target.partition(":")
    sys.path.insert(0, os.getcwd())  # as Python does for a script in this directory
    before = os.environ.get(DRY_RUN)
    os.environ[DRY_RUN] = "1"  # for executors that the module makes
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise CacheError(f"there is no {target}: {error}") from None
    except NotComputed as error:
        raise CacheError(
            f"{module} cannot be imported without computing, as it asks for results: put that under "
            f"if __name__ == '__main__' ({error})"
        ) from None
    finally:
        sys.path.remove(os.getcwd())
        os.environ.update({} if before is None else {DRY_RUN: before})
        if before is None:
            del os.environ[DRY_RUN]
    if not callable(found):
        raise CacheError(f"{target} is no function but {tables.value(found, 40)}")
    return found  # type: ignore[no-any-return]


def _of_job(cache: Cache, call: JobCallStatus) -> Explanation:
    key, parts, packed = call.key, call.ingredients, call.call_file
    if packed is not None and not key:  # not begun
        key, parts = packed.order.key, packed.order.facts.get("ingredients", {})
    if not key:
        raise CacheError(f"{call.known_as} {_why_without_key(call)}")
    return compared(partial(nearest, cache._directory), key, call.name, CallParts("this call", parts))


def _why_without_key(call: JobCallStatus) -> str:
    """Return why a job that has not begun has no key, as a predicate."""
    packed = call.call_file
    inputs = "" if packed is None else f" ({', '.join(given.name for given in packed.inputs)})"
    if call.state in ("failed", "cancelled"):
        return f"has {call.state} before it began, so no key was made from the results of its inputs{inputs}"
    return f"is {call.state}: its key will be made from the results of its inputs{inputs}"


# ------------------------------------------------------------------ output


def _as_object(found: Explanation) -> dict[str, Any]:
    simple = {name: getattr(found, name) for name in ("key", "function", "hit", "running", "refused")}
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
