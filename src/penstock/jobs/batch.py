"""What is written down of one submission, and of how its calls begin and end."""

from __future__ import annotations

import _pickle as pickle

from ..plain import Plain
from ..system import json_text
from ..typed import Any

__all__ = ["FORMAT", "Batch", "Begun", "CallPlace", "End", "Part"]

FORMAT = 1


class CallPlace(Plain):
    """A call of a batch: by which id others know it, and where in the file `calls` it is."""

    id: str
    name: str
    at: int
    size: int


class Batch(Plain):
    """One submission: a job, or an array of jobs each of which makes one call, or `calls_per_job` after another."""

    token: str
    scheduler: str
    calls: tuple[CallPlace, ...]
    elements: tuple[int, ...] | None  # their numbers in the array; None: a single job
    calls_per_job: int
    needs: tuple[str, ...]  # tokens of the batches whose results these calls take
    resources: dict[str, Any]  # that were asked for, for people
    environment: dict[str, str]
    restart_limit: int
    paths: tuple[str, ...]  # sys.path
    cwd: str
    umask: int  # of the submitter: what calls write is for whom it would be there
    submitter: str  # the label of its identity
    created: float
    python: str
    penstock: str
    request: dict[str, Any]  # what the scheduler is asked, to ask it again

    def element_of(self, number: int) -> int | None:
        """The array's element that makes a call."""
        return None if self.elements is None else self.elements[number // self.calls_per_job]

    def of_element(self, element: int | None) -> range:
        """The numbers of the calls that an element makes."""
        place = 0 if self.elements is None or element is None else self.elements.index(element)
        first = place * self.calls_per_job
        return range(first, min(first + self.calls_per_job, len(self.calls)))

    @property
    def size(self) -> int:
        """How many elements it has; a single job counts as one."""
        return 1 if self.elements is None else len(self.elements)

    def dump(self) -> bytes:
        about = {"format": FORMAT, **vars(self), "calls": [vars(call) for call in self.calls]}
        return json_text.dumps(about).encode()

    @staticmethod
    def from_fields(found: dict[str, Any]) -> Batch:
        """What was dumped, without its format."""
        found["calls"] = tuple(CallPlace(**call) for call in found["calls"])
        for name in ("needs", "paths"):
            found[name] = tuple(found[name])
        found["elements"] = None if found["elements"] is None else tuple(found["elements"])
        return Batch(**found)


class Part(Plain):
    """Elements of a batch that the scheduler has got, or is to get, as one job: from the `first` on, up to `end`.

    They are counted, not named by their numbers. A batch has one part, unless the scheduler did not take so many.
    """

    first: int
    end: int
    job: str = ""

    @property
    def name(self) -> str:
        return f"{self.first}-{self.end - 1}"

    @staticmethod
    def from_name(name: str, job: str) -> Part:
        first, _, last = name.partition("-")
        return Part(int(first), int(last) + 1, job)


class Begun(Plain):
    """Where a call runs. The file is touched while it does, every so many seconds: who sees that need not be told."""

    job: str
    node: str
    key: str
    beat: float = 0.0

    def dump(self) -> bytes:
        return json_text.dumps(vars(self)).encode()


class End(Plain):
    """How a call ended: "finished" (its result is the record of `key`), "failed", "cancelled".

    Or "withdrawn": its submitter has cancelled it, and saw nobody else who waits for it.
    """

    state: str
    key: str = ""
    directory: str = ""  # of the cache that has the record
    failure: bytes = b""  # the pickled error and its traceback

    def error(self) -> tuple[BaseException, Any]:
        """The error of a call that failed, and its traceback as text."""
        error, text = pickle.loads(self.failure)
        return error, text
