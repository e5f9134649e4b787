"""The outcome for people: a plain table, the same as Markdown, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench.peers import BY_NAME as PEER_BY_NAME
from bench.peers import PEERS, Peer
from bench.run import Outcome
from bench.table import ROWS, Row, Values

NOTHING = "-"


def number(value: float) -> str:
    """Three digits, more would be noise."""
    if value >= 100:
        return f"{value:,.0f}"
    digits = 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}"


def target(row: Row) -> str:
    sign = ">=" if row.higher else "<="
    limit = f"{row.limit:,g}"
    if row.against is None:
        return f"{sign} {limit} {row.unit}"
    peer, of_row = row.against
    reference = PEER_BY_NAME[peer].title + (f" {of_row}" if of_row != row.name else "")
    return f"{sign} {limit} x {reference}"


def verdict(row: Row, values: Values) -> str:
    met = row.met(values)
    return NOTHING if met is None else "yes" if met else "no"


def cell(row: Row, peer: Peer, values: Values) -> str:
    value = values.get(row.name, {}).get(peer.name)
    if value is None:
        return NOTHING
    ratio = row.ratio(peer.name, values)
    return number(value) if ratio is None else f"{number(value)} ({number(ratio)}x)"


def measured_peers(values: Values) -> list[Peer]:
    return [peer for peer in PEERS if any(peer.name in of_row for of_row in values.values())]


def measured_rows(values: Values) -> list[Row]:
    return [row for row in ROWS if row.name in values]


def grid(values: Values) -> list[list[str]]:
    peers = measured_peers(values)
    header = ["work", "target", "met", *(peer.title for peer in peers)]
    return [header] + [
        [f"{row.title} ({row.unit})", target(row), verdict(row, values)] + [cell(row, peer, values) for peer in peers]
        for row in measured_rows(values)
    ]


def text(outcome: Outcome) -> str:
    lines = grid(outcome.values())
    widths = [max(map(len, column)) for column in zip_longest(*lines, fillvalue="")]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([*table, "", *outcome.machine, *complaints(outcome)])


def complaints(outcome: Outcome) -> list[str]:
    return [
        f"no value: {row}, {peer}: {why}" for row, of_row in outcome.failures.items() for peer, why in of_row.items()
    ]


def markdown(outcome: Outcome, title: str = "Benchmark table") -> str:
    header, *lines = grid(outcome.values())
    rule = ["---", "---", "---", *("---:" for _ in header[3:])]
    table = [f"| {' | '.join(line)} |" for line in [header, rule, *lines]]
    rounds = max((len(samples) for row in outcome.samples.values() for samples in row.values()), default=0)
    about = [
        f"Median of {rounds} rounds in turn. In brackets: times the reference that the target names.",
        *(f"- {line}" for line in outcome.machine),
    ]
    return "\n".join([f"# {title}", "", *table, "", about[0], "", *about[1:]]) + "\n"


def write(outcome: Outcome, directory: Path) -> None:
    (directory / "benchmarks-table.md").write_text(markdown(outcome))
    plot(outcome.values(), directory / "benchmarks.png")


def advantage(row: Row, ratio: float) -> float:
    """How many times better than the reference, whichever direction is better."""
    return ratio if row.higher else 1 / ratio


def plot(values: Values, file: Path) -> None:
    """Every row that has a reference on one logarithmic scale; nothing without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return
    rows = [row for row in measured_rows(values) if row.against is not None]
    if not rows:
        return
    figure: Any = Figure(figsize=(9, 0.55 * len(rows) + 1.6), layout="constrained")
    axes = figure.subplots()
    draw(axes, rows, values)
    FigureCanvasAgg(figure)
    figure.savefig(file, dpi=120, metadata={"Software": None})


def draw(axes: Any, rows: Sequence[Row], values: Values) -> None:
    heights = range(len(rows))
    limits = [advantage(row, row.limit) for row in rows]
    axes.scatter(limits, heights, marker="|", s=500, color="black", label="target", zorder=1)
    for peer, marker in zip(measured_peers(values), "osD^v<>PX", strict=False):
        ratios = [(height, row, row.ratio(peer.name, values)) for height, row in enumerate(rows)]
        points = [(advantage(row, ratio), height) for height, row, ratio in ratios if ratio is not None]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, s=60, label=peer.title, zorder=2)
    axes.set_xscale("log")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_yticks(heights, [f"{row.title}\n{target(row)}" for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times better than the reference of the row")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
