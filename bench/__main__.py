"""`python -m bench`: Callyard beside whatever of its peers is installed.

Ratios need their references: a part of the table is asked for as `--only noop chain --peers callyard ppe`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import peers, report, scale, table
from bench.run import ROOT, Outcome, run

SLURM = ("jobs", "allocation", "node-array", "node-one", "node-many")
FLUX = ("flux-jobs", "flux-graph", "flux-live")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=table.BY_NAME, help=", ".join(table.BY_NAME))
    parser.add_argument("--peers", nargs="+", metavar="PEER", choices=peers.BY_NAME, help=", ".join(peers.BY_NAME))
    parser.add_argument("--rounds", type=int, help="the median of so many is shown (3, or 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="little work: to see that it runs, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every single value there")
    parser.add_argument("--again", type=Path, metavar="FILE", help="measure nothing, show what --json kept")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="write table and plot there (docs, for a full run)")
    parser.add_argument("--slurm", action="store_true", help="Slurm's rows only, which have a page of their own")
    parser.add_argument("--flux", action="store_true", help="Flux's rows only, where there is a flux")
    parser.add_argument("--scale", action="store_true", help="instead: what a thousand nodes cost their driver")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> Outcome:
    chosen = [peers.BY_NAME[name] for name in options.peers or peers.BY_NAME]
    installed = [peer for peer in chosen if peer.installed()]
    for peer in chosen:
        if peer not in installed:
            tell(f"{peer.title} is not installed: left out")
    group = SLURM if options.slurm else FLUX if options.flux else table.BY_NAME
    rows = [table.BY_NAME[name] for name in options.only or group]
    rounds = options.rounds or (1 if options.quick else 3)
    if options.quick:
        tell("quick: fewer and smaller calls than the titles say")
    return run(rows, installed, rounds, "quick" if options.quick else "full", tell)


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def documented(options: argparse.Namespace) -> Path | None:
    """A part, or a quick look, must not replace the table of a full run unless asked to."""
    partial = options.only or options.peers or options.quick or options.again or options.flux
    return options.docs or (None if partial else ROOT / "docs")


def measure_scale(options: argparse.Namespace) -> None:
    text = scale.markdown(scale.table(options.quick, tell))
    print(text)
    docs = documented(options)
    if docs is not None:
        docs.mkdir(parents=True, exist_ok=True)
        (docs / "benchmarks-scale.md").write_text(text)


def main() -> None:
    options = arguments()
    if options.scale:
        measure_scale(options)
        return
    outcome = Outcome.load(options.again) if options.again else measure(options)
    if options.json:
        outcome.save(options.json)
    print(report.text(outcome))
    docs = documented(options)
    if docs is not None:
        docs.mkdir(parents=True, exist_ok=True)
        if options.slurm:
            (docs / "benchmarks-slurm.md").write_text(report.markdown(outcome, "Slurm"))
        else:
            report.write(outcome, docs)


if __name__ == "__main__":
    main()
