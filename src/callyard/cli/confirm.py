"""The question before a command removes or ends much: asked on a terminal, and answered by --yes in scripts."""

from __future__ import annotations

import argparse
import sys

from ..errors import CallyardError

__all__ = ["NotConfirmed", "add_yes", "confirm"]


class NotConfirmed(CallyardError):
    """Nobody has agreed, so nothing was done."""


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add the option that answers the question beforehand."""
    parser.add_argument("-y", "--yes", action="store_true", help="do it without a question, as in scripts")


def confirm(options: argparse.Namespace, preview: str, question: str, instead: str = "") -> None:
    """Return if the user agrees, by --yes or on the terminal; `instead` names what else could be done.

    The preview and the question go to stderr, because the output may be JSON.

    Raises:
        NotConfirmed: the answer was another than yes, or there is no terminal to ask on.
    """
    if options.yes:
        return
    print(preview, file=sys.stderr)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotConfirmed(f"nothing was done, as there is no terminal to ask on: say --yes{instead}")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfirmed("nothing was done")
