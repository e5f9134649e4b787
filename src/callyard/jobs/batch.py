"""The records of a submission: the batch, the calls for their jobs, the starts and the outcomes."""

from __future__ import annotations

import _pickle as pickle

from ..cache.messages import RunRequest
from ..errors import CacheError
from ..events.usage import Usage
from ..utils.lite_stdlib import TYPE_CHECKING, Any, Frozen, json_dumps, json_loads, suppress

if TYPE_CHECKING:
    from ..hashing.call_key import FunctionPart, KeyContext

__all__ = [
    "FORMAT",
    "Batch",
    "BatchPart",
    "CallAgain",
    "CallFile",
    "CallInput",
    "CallOutcome",
    "CallPosition",
    "CallStart",
    "KeyRecipe",
    "StoredPickle",
]

FORMAT = 1
_STATES = ("finished", "failed", "cancelled", "withdrawn", "moved")
_LATEST = 253402214400  # s: the last day that `datetime` can represent in every time zone


class CallPosition(Frozen):
    """The ID and the name of a call of a batch, and its position in the file `calls` (bytes)."""

    id: str
    name: str
    at: int
    size: int


class Batch(Frozen):
    """One submission: a job, or an array of jobs each of which makes one call, or `calls_per_job` after another."""

    token: str
    scheduler: str
    calls: tuple[CallPosition, ...]
    elements: tuple[int, ...] | None  # their numbers in the array; None: a single job
    calls_per_job: int
    needs: tuple[str, ...]  # tokens of the batches with inputs of these calls
    resources: dict[str, Any]  # as asked for, for people
    environment: dict[str, str]
    restart_limit: int
    paths: tuple[str, ...]  # sys.path
    cwd: str
    umask: int  # the submitter's, so that calls write files for the same readers
    submitter: str  # the label of its identity
    created: float
    python: str
    callyard: str
    request: dict[str, Any]  # the request to the scheduler, kept to be repeated
    log_limit: int = 100 << 20  # bytes that a log may have
    executor: str = ""  # the submitter's name, if other processes may act for it later

    def element_of(self, number: int) -> int | None:
        """Return the array's element that makes a call."""
        return None if self.elements is None else self.elements[number // self.calls_per_job]

    def of_element(self, element: int | None) -> range:
        """Return the numbers of an element's calls."""
        place = 0 if self.elements is None or element is None else self.elements.index(element)
        first = place * self.calls_per_job
        return range(first, min(first + self.calls_per_job, len(self.calls)))

    def waited_for(self) -> set[str]:
        """Return the tokens of the batches for which the scheduler waits: all of them are submitted first, or over."""
        named = (self.request.get("after", ()), *self.request.get("after_each", ()))
        return {token for each in named for _, token, _ in each}

    @property
    def has_next_limits(self) -> bool:
        """Whether a call that goes beyond a limit may have another one to try."""
        asked = self.request.get("resources", {})
        return any(isinstance(asked.get(name), list) for name in ("memory", "run_time"))

    @property
    def limit(self) -> str:
        """The limit that lets a call run again in this batch, as "memory=16 GiB"; "" for a first attempt."""
        return str(self.request.get("limit", ""))

    @property
    def tried(self) -> str:
        """The limits of earlier attempts, as the end of an error's sentence; "" if there were none."""
        earlier = self.request.get("tried", ())
        return f"; earlier attempts had {', '.join(earlier)}" if earlier else ""

    @property
    def size(self) -> int:
        """The number of elements; a single job counts as one."""
        return 1 if self.elements is None else len(self.elements)

    def dump(self) -> bytes:
        about = {"format": FORMAT, **vars(self), "calls": [vars(call) for call in self.calls]}
        return json_dumps(about).encode()

    @staticmethod
    def from_fields(found: dict[str, Any]) -> Batch:
        """Return the batch of these fields, without the format. Senseless fields raise several kinds of exceptions."""
        found["calls"] = tuple(CallPosition(**call) for call in found["calls"])
        for name in ("needs", "paths"):
            found[name] = tuple(found[name])
        found["elements"] = None if found["elements"] is None else tuple(found["elements"])
        batch = Batch(**found)
        batch.check()
        return batch

    def check(self) -> None:
        """Check the numbers and names.

        Raises:
            ValueError: some of them make no sense.
        """
        spans = [number for call in self.calls for number in (call.at, call.size)]
        counts = [self.calls_per_job - 1, self.restart_limit, self.log_limit, *spans, *(self.elements or ())]
        if not all(type(count) is int and count >= 0 for count in counts) or not 0 <= self.created < _LATEST:
            raise ValueError("numbers that make no sense")
        if not (self.size - 1) * self.calls_per_job < len(self.calls) <= self.size * self.calls_per_job:
            raise ValueError("more or fewer calls than its elements make")
        texts = [
            self.scheduler,
            self.submitter,
            self.executor,
            *self.needs,
            *(word for call in self.calls for word in (call.id, call.name)),
        ]
        if not all(type(text) is str for text in texts):
            raise ValueError("names that are none")


class BatchPart(Frozen):
    """Elements of a batch that are one job to the scheduler, now or soon: from the `first` on, up to `end`.

    They are counted, not named by their numbers. A batch has one part, unless the scheduler has refused so many
    elements. `job` is the ID of the job or array; where elements are jobs of their own, their IDs, each followed by a
    comma.
    """

    first: int
    end: int
    job: str = ""

    @property
    def jobs(self) -> tuple[str, ...]:
        """The IDs of its jobs; one for an array."""
        return tuple(self.job.split(",")[:-1]) if self.is_separate else (self.job,)

    @property
    def is_separate(self) -> bool:
        """Whether its elements are jobs of their own."""
        return self.job.endswith(",")

    def job_of(self, place: int, element: int | None) -> str:
        """Return the ID of the job at a place of the batch, which is that element of the array."""
        if self.is_separate:
            return self.jobs[place - self.first]
        return self.job if element is None else f"{self.job}_{element}"

    @property
    def name(self) -> str:
        return f"{self.first}-{self.end - 1}"

    @staticmethod
    def from_name(name: str, job: str) -> BatchPart:
        """Return the part of this name.

        Raises:
            ValueError: no part has such a name.
        """
        first, _, last = name.partition("-")
        return BatchPart(int(first), int(last) + 1, job)


class CallInput(Frozen):
    """The input in the place of a future among the arguments: the result of a call, by its name or as bytes.

    `key` and `directory` name the record of the result, if they are known; otherwise batch and number name the call.
    `path` has the packed keys and lengths that lead to the wanted part of the result; see `futures.part_of`.
    """

    name: str  # for people
    key: str = ""
    directory: str = ""
    token: str = ""
    number: int = 0
    packed: bytes | None = None
    path: bytes = b""


class KeyRecipe(Frozen):
    """The parts of a call's key, which is made once the inputs are known."""

    part: FunctionPart | None  # None: the key is the user's own
    around: KeyContext


class StoredPickle(Frozen):
    """A pickle with its large buffers in the file `buffers` of the batch, at these places (position, bytes)."""

    data: bytes  # b"" for a large pickle: then the first of the buffers has the data
    buffers: tuple[tuple[int, int], ...] = ()


class CallFile(Frozen):
    """A call as a file, with all data for the job. The order has no key while the key depends on inputs.

    It is one pickle of function, arguments and keywords, or one of the function and one of the rest.
    """

    data: tuple[StoredPickle, ...]  # with numbers for inputs
    apart: tuple[StoredPickle, ...] | None  # the same, with the user's modules inside: for where these have changed
    inputs: tuple[CallInput, ...]
    order: RunRequest
    meaning: KeyRecipe | None
    initializer: bytes | None
    options: dict[str, Any]  # see `worker.call_context`
    run_time: float | None
    memory: int | None  # bytes
    ranks: int
    launcher: tuple[str, ...]  # before the command of the ranks; "mpiexec" stands for the one in the node's PATH
    wait: float  # s for which a finished result may stay invisible
    private: bool = False  # no other process looks for its result or claim
    spread: tuple[str, ...] = ()  # in the place of `launcher` in a job with several nodes
    gpus_per_rank: int | None = None  # of the GPUs that all ranks on a node see; None: the launcher or the user decides

    @property
    def size(self) -> int:
        """The bytes of the packed function and arguments, with large parts, without inputs."""
        return sum(len(part.data) + sum(size for _, size in part.buffers) for part in self.data)

    def dump(self) -> bytes:
        return pickle.dumps(self, 5)

    @staticmethod
    def load(data: bytes | bytearray) -> CallFile:
        """Return the call; no object of the user's is unpickled here."""
        call_file = pickle.loads(data)
        assert isinstance(call_file, CallFile)
        return call_file


class CallStart(Frozen):
    """The place where a call runs.

    The file is touched every `beat` seconds during the run, to show that the job lives.
    """

    job: str
    node: str
    key: str
    beat: float = 0.0
    at: float = 0.0  # the time of the start, on the node's clock; again after a requeue
    ingredients: dict[str, str] = {}  # noqa: RUF012  # of the key, for people; no start changes them

    def dump(self) -> bytes:
        return json_dumps(vars(self)).encode()

    @staticmethod
    def load(data: bytes) -> CallStart:
        """Return the start. Damaged data raise several kinds of exceptions."""
        begun = CallStart(**json_loads(data))
        texts = (begun.job, begun.node, begun.key, *begun.ingredients.values())
        if not all(type(text) is str for text in texts) or not all(0 <= s < _LATEST for s in (begun.beat, begun.at)):
            raise ValueError("it is not said where the call runs")
        return begun


class CallAgain(Frozen):
    """The next attempt of a call that has raised `Again`, gone beyond a limit, or was lost with its process or node."""

    attempt: int  # its number; the first attempt was 1
    restarts: int  # of its job for the sake of the attempts
    arguments: bytes  # pickled, positional ones and keywords; b"" for those of the call itself
    losses: int = 0  # of its process or job, in this batch; each counts for `restart_limit`

    @staticmethod
    def load(data: bytes) -> CallAgain:
        """Return the kept attempt. Damaged data raise several kinds of exceptions."""
        head, _, arguments = data.partition(b"\n")
        attempt, restarts, losses = map(int, head.split())
        return CallAgain(attempt, restarts, arguments, losses)

    def dump(self) -> bytes:
        return f"{self.attempt} {self.restarts} {self.losses}\n".encode() + self.arguments


class CallOutcome(Frozen):
    """The outcome of a call: "finished" (with the record of `key`), "failed", "cancelled", "withdrawn" or "moved".

    A withdrawn call was cancelled by its submitter, who saw no other waiting process. A moved call goes on in another
    batch, whose token is the `key`, as its call of this `number`.
    """

    state: str
    key: str = ""
    directory: str = ""  # of the cache with the record
    failure: bytes = b""  # the pickled error and its traceback
    attempts: int = 1  # runs so far; more than one after an `Again`
    number: int = 0
    usage: Usage | None = None  # of the last run
    inherited: bool = False  # the failure is that of an input

    def dump(self) -> bytes:
        fields = {name: value for name, value in vars(self).items() if name not in ("failure", "usage")}
        if self.usage is not None:
            fields["usage"] = self.usage.known()
        return json_dumps(fields).encode() + b"\n" + self.failure

    @staticmethod
    def load(data: bytes) -> CallOutcome:
        """Return the outcome from a line of JSON and the failure. Damaged data raise several kinds of exceptions."""
        if not data:  # the call failed, and the disk took no words about that
            return CallOutcome("failed")
        head, _, failure = data.partition(b"\n")
        fields = json_loads(head)
        usage = fields.pop("usage", None)
        end = CallOutcome(**fields, failure=failure, usage=None if usage is None else Usage.of(usage))
        is_named = all(type(text) is str for text in (end.key, end.directory)) and type(end.number) is int
        if end.state not in _STATES or not is_named:
            raise ValueError("it is not said how the call ended")
        return end

    def error(self) -> tuple[BaseException, Any]:
        """Return a failed call's error and its traceback as text; or a CacheError, if the error cannot be opened."""
        try:
            error, text = pickle.loads(self.failure)
            if isinstance(error, BaseException):
                return error, text
            problem = f"it holds a {type(error).__name__}"
        except Exception as reason:  # from the user's classes, or from a damaged file
            problem = f"{type(reason).__name__}: {reason}"
        return CacheError(
            f"the call failed, and its error cannot be opened here ({problem}): run it again"
        ), self._text()

    def _text(self) -> str:
        """Return the traceback of an error that cannot be opened: its class may be in a script that is not here."""
        from ..serialize.stand_ins import load_with_stand_ins  # here, because few errors are such

        with suppress(Exception):
            _, text = load_with_stand_ins(self.failure)
            return text if isinstance(text, str) else ""
        return ""
