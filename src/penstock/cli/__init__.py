"""The command line: `penstock COMMAND`, one module for each command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module, metadata

__all__ = ["main", "version"]

# Each module has configure(parser), which adds its options, and run(options), which returns the exit status.
COMMANDS = {
    "doctor": "what this machine offers, and what is missing",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a command line that makes no sense exits with 2."""
    parser = argparse.ArgumentParser(prog="penstock", description="Function calls with the resources they need.")
    parser.add_argument("--version", action="version", version=f"penstock {version('penstock')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        module = import_module(f"penstock.cli.{name}")
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.configure(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(argv)
    return int(options.run(options))


def version(package: str) -> str | None:
    """Return the version of an installed package without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
