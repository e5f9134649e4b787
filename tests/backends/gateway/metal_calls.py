"""The demo's graph in short: energies of strained metals, a fit for each metal, a table of all fits."""

from __future__ import annotations

import os
from concurrent.futures import Future
from typing import Any

from gate import Gate

from callyard import Executor

METALS, STRAINS = ("Al", "Cu"), (-1, 0, 1)


def note(journal: str, *words: object) -> None:
    with open(journal, "a") as file:
        file.write("-".join(map(str, words)) + "\n")


def energy(journal: str, metal: str, strain: int, gate: Gate | None) -> int:
    note(journal, metal, strain)
    if gate is not None:
        gate.hold()
    return strain * strain + len(metal)


def fit(journal: str, metal: str, energies: list[int], gate: Gate | None) -> tuple[str, int]:
    note(journal, metal)
    if gate is not None:
        gate.hold()
    return metal, sum(energies)


def table(journal: str, fits: list[tuple[str, int]]) -> tuple[dict[str, int], int]:
    note(journal, "table")
    return dict(fits), os.getuid()


def graph(ex: Executor, journal: str, gate: Gate) -> list[Future[Any]]:
    """Submit all calls; one energy and one fit are held at the gate. The last one is the table."""
    futures, fits = list[Future[Any]](), list[Future[Any]]()
    for metal in METALS:
        held = gate if metal == "Cu" else None
        energies = [ex.submit(energy, journal, metal, strain, None if strain else held) for strain in STRAINS]
        fits.append(ex.submit(fit, journal, metal, energies, held))
        futures += energies
    return [*futures, *fits, ex.submit(table, journal, fits)]
