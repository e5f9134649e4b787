"""The resources that a call has used. Jobs load this module, so its imports are few."""

from __future__ import annotations

from ..utils.lite_stdlib import Any, Frozen, Iterable, Mapping

__all__ = ["Usage"]


class Usage(Frozen):
    """The resources that a call has used.

    Attributes:
        wall: the time from the start of the function to its end (s).
        cpu: the time of all cores together (s), of the call's process and the processes that it has waited for; None
            if unknown, as for a thread among others.
        peak_memory: the most memory of the call at once (bytes); None if unknown. It is the largest of what is known
            about the call: the peak of its own process, files of libraries included; that of the largest process that
            it has waited for; with a limit of memory also the sum over all its processes, counted by their cgroup or
            sampled ten times a second (then shared memory counts for each process). So without a limit several
            processes at once count as the largest of them. A worker's process brings some 10 MB of its own.
        bytes_in: the size of the packed arguments (bytes); None if unknown.
        bytes_out: the size of the packed result (bytes); None if unknown.
        gpus: the entries of CUDA_VISIBLE_DEVICES that the call had for itself.
    """

    wall: float
    cpu: float | None = None
    peak_memory: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    gpus: tuple[str, ...] = ()

    def known(self) -> dict[str, Any]:
        """Return the fields that have a value, as for JSON."""
        return {name: value for name, value in vars(self).items() if value is not None and value != ()}

    @staticmethod
    def together(parts: Iterable[Usage]) -> Usage:
        """Return the usage of a call that consists of these parts at the same time, as of several ranks."""
        used = tuple(parts)
        return Usage(
            max(part.wall for part in used),
            _sum(part.cpu for part in used),
            _sum(part.peak_memory for part in used),
            _sum(part.bytes_in for part in used),
            _sum(part.bytes_out for part in used),
            tuple(dict.fromkeys(gpu for part in used for gpu in part.gpus)),
        )

    @staticmethod
    def of(known: Mapping[str, Any]) -> Usage:
        """Return the usage with these fields, as from JSON; those that this version does not know are left out.

        Raises:
            ValueError: it is no usage.
        """
        fields = {name: value for name, value in known.items() if name in Usage.fields}
        if type(fields.get("wall")) not in (int, float):
            raise ValueError(f"no usage of a call: {known!r}")
        return Usage(**{**fields, "gpus": tuple(fields.get("gpus", ()))})


def _sum(values: Iterable[Any]) -> Any:
    """Return the sum of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
