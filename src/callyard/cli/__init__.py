"""The command line: `callyard COMMAND`, one module for each command."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from ..errors import CallyardError
from ..errors.suggestions import nearest

__all__ = ["COMMANDS", "UsageError", "main", "parser_of", "version"]

# Each module has configure(parser), which adds its options, and run(options), which returns the exit status.
COMMANDS = {
    "list": "the calls in a cache, and those that wait or run",
    "show": "one call: function, arguments, result, where and how it ran",
    "explain": "what went into the key of a call, and why it was not in the cache",
    "logs": "what a call wrote",
    "status": "what runs now: executors, calls, resources in use",
    "watch": "the same, live in the terminal, with keys to open, read and cancel calls",
    "report": "a page about a run: timeline, graph, table of calls, failures, asked against used",
    "graph": "the calls of a run, or their functions, as a drawing or text",
    "cancel": "end calls of running executors, and calls that are jobs or are going to be",
    "retry": "remove a failure, or the claim of a process that has died, so that the call runs again",
    "resume": "submit batches that have not reached the scheduler",
    "prune": "remove what is old, large, or no longer wanted",
    "check": "read a whole cache, and report damaged files and files that do not belong there",
    "doctor": "the resources of this machine, and what is missing",
    "completion": "a script for a shell, to complete commands, options and keys",
}
_MODULES = {"list": "list_calls"}  # a module `list` here would hide the builtin

STATUSES = """\
The exit status is 0 after success, 1 if something is missing, wrong or impossible, and 2 if the command line
makes no sense."""


class UsageError(Exception):  # no CallyardError, because the exit status is another
    """A command line that makes no sense."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; exit with 2 if the command line makes no sense."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in COMMANDS:
        _no_command(words)
    name, rest = words[0], words[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names and messages of calls may have letters unknown to the terminal
            stream.reconfigure(errors="backslashreplace")
    parser, run = parser_of(name)
    options = parser.parse_intermixed_args(rest)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_, **__: print(f"callyard {name}: {message}", file=sys.stderr)
            status = run(options)
        sys.stdout.flush()
        return status
    except UsageError as error:
        parser.error(str(error))
    except BrokenPipeError:  # `callyard list | head`
        with open(os.devnull, "wb") as nowhere:  # takes the output that Python flushes at its end
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 128 + 13
    except (CallyardError, OSError) as error:
        print(f"callyard {name}: {_sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + 2


def _sentence(error: CallyardError | OSError) -> str:
    if isinstance(error, OSError) and not isinstance(error, CallyardError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def parser_of(name: str) -> tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int]]:
    """Return the parser of a command, and the function that runs it."""
    module: Any = import_module(f"{__name__}.{_MODULES.get(name, name)}")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=f"callyard {name}", description=module.__doc__, formatter_class=form)
    module.configure(parser)
    return parser, module.run


def _no_command(words: list[str]) -> None:
    """Answer --help and --version; exit with 2 for anything else."""
    table = "\n".join(f"  {name:11} {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="callyard",
        usage="callyard COMMAND ...",
        description="Python functions in parallel, each with the cores, GPUs, memory and time it needs.",
        epilog=f"commands:\n{table}\n\n`callyard COMMAND --help` says more. {STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"callyard {version('callyard')}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args(words)
    if options.command is None:
        parser.error(f"which command? There are {', '.join(COMMANDS)}")
    near = nearest(options.command, COMMANDS)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
    parser.error(f"there is no command {options.command!r}: {hint}")


def version(package: str) -> str | None:
    """Return the version of an installed package without importing the package."""
    from importlib import metadata  # here, because it takes long to load

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
