"""One measurement of one peer, in a process of its own: `python -m bench.child PEER ROW EFFORT FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench import peers, table
from bench.rows import QUICK, Effort


def main(peer: str, row: str, effort: str, file: str) -> None:
    # Into a file, because some peers and their workers write to standard output.
    value = table.BY_NAME[row].measure(peers.BY_NAME[peer], QUICK if effort == "quick" else Effort())
    Path(file).write_text(json.dumps({"value": value}))


if __name__ == "__main__":
    main(*sys.argv[1:])
