"""Write the report of a run: one page for a browser, with timeline, graph, table of calls, failures, and what was asked
for against what was used. The page needs no network and nothing else beside it.
"""

from __future__ import annotations

import argparse
import time

from ..report.output_file import write_file
from ..report.page import page
from ..utils import quantities
from .run_source import add_source, the_run

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_source(parser)
    parser.add_argument("-o", "--output", default="run.html", metavar="FILE", help="the page (default: run.html)")


def run(options: argparse.Namespace) -> int:
    """Write the page."""
    record = the_run(options)
    write_file(options.output, page(record, time.time()))
    print(f"The report of {quantities.calls(len(record.calls))} is in {options.output}.")
    return 0
