"""Kinds of nodes to ask a scheduler for: the public class `NodeKind`, and the kinds with all defaults filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import ResourceError
from ..errors.suggestions import strict_init
from ..resource_values import Amount, whole
from ..resources import Resources
from ..utils.quantities import counted

__all__ = ["AskedKind", "NodeKind", "asked_kinds", "check_kinds", "check_nodes"]

_PLACES = ("partition", "queue")
_WORDS = (*_PLACES, "account", "qos", "constraint", "reservation", "exclude", "gres")


@strict_init()
@dataclass(frozen=True)
class NodeKind:
    """One kind of the nodes that `Slurm(kinds=[...])` asks for: CPU nodes, GPU nodes, nodes with much memory.

    Each kind grows with the calls that need it, and shrinks without them. What a kind does not say has the value that
    the backend has.

    Attributes:
        nodes: the number of nodes (count), or (fewest, most).
        walltime: the time limit of their jobs (s, or a text as "2h").
        partition: their partition (Slurm).
        queue: their queue (Flux).
        account: the account to charge.
        qos: the quality of service (Slurm).
        constraint: the features of the nodes.
        reservation: their reservation (Slurm).
        exclude: nodes not to use, as "n[1-4],n9" (Slurm).
        gpus: the GPUs of each node (count; 0: none is asked for); default: as many as each node of the partition has.
        gres: how to ask for them, as "gpu:a100:4", together with `gpus` (Slurm); default: "gpu:" and their number.
        memory: the memory to ask for on each node (GiB, or a text as "500GB"); default: all that the node has.

    Raises:
        ResourceError: a value makes no sense.
        TypeError: an argument is unknown.

    >>> NodeKind(nodes=(0, 2), partition="gpu", walltime="4h").walltime
    14400.0
    """

    nodes: int | tuple[int, int] | None = None
    walltime: Amount = Amount()
    partition: str | None = None
    queue: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    exclude: str | None = None
    gpus: int | None = None
    gres: str | None = None
    memory: Amount = Amount()

    def __post_init__(self) -> None:
        check_nodes(self.nodes)
        if self.gpus is not None:
            whole("gpus", self.gpus, 0)
        Resources().updated(self.words())  # refuses values that make no sense
        if self.gres is not None and not self.gpus:
            raise ResourceError(
                f"gres={self.gres!r} of a kind of nodes is how to ask for its GPUs; say also how many each node has, "
                "with gpus="
            )

    def words(self) -> dict[str, str]:
        """Return the scheduler's words for these nodes, as far as they are given."""
        return {name: value for name in _WORDS if (value := getattr(self, name)) is not None}


class AskedKind(NamedTuple):
    """A kind of nodes with all defaults filled in.

    Attributes:
        least: the fewest nodes.
        most: the most nodes.
        walltime: the time limit of their jobs (s); None for the scheduler's.
        words: the scheduler's words for them, as their partition.
        gpus: the GPUs of each node; None for as many as each is known to have.
        memory: the memory of each node (GiB); None for all.
        where: the words for people that tell them from the other kinds, as " in partition gpu".
    """

    least: int
    most: int
    walltime: float | None
    words: Mapping[str, object]
    gpus: int | None = None
    memory: float | None = None
    where: str = ""


def asked_kinds(
    kinds: Sequence[NodeKind], nodes: int | tuple[int, int] | None, walltime: float | None, words: Mapping[str, str]
) -> tuple[AskedKind, ...]:
    """Return the kinds to ask for, one if none is given; the other arguments are what a kind has that says nothing.

    Raises:
        ResourceError: the number of nodes of a kind is nowhere.
    """
    found = []
    for kind in kinds or [NodeKind()]:
        count = nodes if kind.nodes is None else kind.nodes
        if count is None:
            raise ResourceError(f"the number of nodes of {kind} is not known; say nodes= there, or for all kinds")
        least, most = (count, count) if isinstance(count, int) else count
        time = walltime if kind.walltime is None else kind.walltime
        own = Resources().updated({**words, **kind.words()})
        asked = {name: getattr(own, name) for name in _WORDS if getattr(own, name) is not None}
        found.append(AskedKind(least, most, time, asked, kind.gpus, kind.memory))
    return tuple(kind._replace(where=_where(kind, found)) for kind in found)


def _where(kind: AskedKind, kinds: Sequence[AskedKind]) -> str:
    """Return what tells a kind from the others; of the only one its partition or queue."""
    place = "".join(
        f" in {name} {kind.words[name]}" if name in kind.words else f" in the default {name}"
        for name in _PLACES
        if _differ(each.words.get(name) for each in kinds) or (len(kinds) == 1 and name in kind.words)
    )
    others = [
        f"{name} {kind.words[name]}"
        for name in _WORDS
        if name not in _PLACES and name in kind.words and _differ(each.words.get(name) for each in kinds)
    ]
    if kind.gpus is not None and _differ(each.gpus for each in kinds) and "gres" not in kind.words:
        others.append(counted(kind.gpus, "GPU"))
    if kind.memory is not None and _differ(each.memory for each in kinds):
        others.append(f"{kind.memory:g} GiB")
    if kind.walltime is not None and _differ(each.walltime for each in kinds):
        others.append(f"walltime {kind.walltime:g} s")
    return f"{place} with {', '.join(others)}" if others else place


def _differ(values: Iterable[object]) -> bool:
    return len(set(values)) > 1


def check_kinds(kinds: object) -> tuple[NodeKind, ...]:
    """Return the kinds as a tuple; refuse other values, and a kind that no call would ever be for."""
    found = tuple(kinds) if isinstance(kinds, Iterable) else (None,)
    for kind in found:
        if not isinstance(kind, NodeKind):
            raise ResourceError(f"kinds must be a list, as [NodeKind(partition='gpu')], not {kinds!r}")
        if found.count(kind) > 1:
            raise ResourceError(f"{kind} is there twice in kinds; say a larger number of nodes instead")
    return found


def check_nodes(nodes: object) -> None:
    """Raise ResourceError for a number of nodes that makes no sense; None is fine."""
    if nodes is None or isinstance(nodes, int):
        whole("nodes", 1 if nodes is None else nodes, 1)
        return
    if isinstance(nodes, tuple) and len(nodes) == 2 and all(type(number) is int for number in nodes):
        low, high = nodes
        if 0 <= low <= high and high >= 1:
            return
    raise ResourceError(f"nodes must be a number of nodes or (fewest, most), not {nodes!r}")
