"""A call as it lies in a file: all that a job needs to make it, be the submitting process alive or not."""

from __future__ import annotations

import _pickle as pickle

from ..cache.messages import RunRequest
from ..utils.frozen import Frozen
from ..utils.lite_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..hashing.call_key import FunctionPart, KeyContext

__all__ = ["CallFile", "CallInput", "KeyRecipe"]


class CallInput(Frozen):
    """What stands for a future among the arguments: the result of a call, or that result itself.

    `key` and `directory` say which record it is, if that is known; otherwise the batch and the number of the call do.
    `path`: the packed keys and lengths that lead to the part that is taken of it; see `futures.part_of`.
    """

    name: str  # for people
    key: str = ""
    directory: str = ""
    token: str = ""
    number: int = 0
    packed: bytes | None = None
    path: bytes = b""


class KeyRecipe(Frozen):
    """What is needed to make the key of a call, once its inputs are known."""

    part: FunctionPart | None  # None: the key is the user's own
    around: KeyContext


class CallFile(Frozen):
    """A call. Its order has no key as long as that depends on inputs."""

    data: bytes  # function, arguments, keywords; with numbers for inputs
    apart: bytes | None  # the same, with the user's modules inside: for where they are not what was keyed
    inputs: tuple[CallInput, ...]
    order: RunRequest
    meaning: KeyRecipe | None
    initializer: bytes | None
    options: dict[str, Any]  # see `worker.around`
    run_time: float | None
    memory: int | None  # bytes
    ranks: int
    launcher: tuple[str, ...]  # the words that start them
    wait: float  # s for which results may become visible late
    private: bool = False  # nobody else looks for its result, nor at its claim

    def dump(self) -> bytes:
        return pickle.dumps(self, 5)

    @staticmethod
    def load(data: bytes) -> CallFile:
        """Nothing of the user's is in what this opens."""
        parcel = pickle.loads(data)
        assert isinstance(parcel, CallFile)
        return parcel
