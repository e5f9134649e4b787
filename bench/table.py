"""What is measured, against whom, and what Callyard must reach: the table as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench import flux, memories, node_data, recorded, rows, slurm
from bench.peers import Peer

Measure = Callable[[Peer, rows.Effort], float]
Values = dict[str, dict[str, float]]  # row -> peer -> value


def with_workers(peer: Peer) -> bool:
    return peer.workers


def with_dependencies(peer: Peer) -> bool:
    return peer.dependencies


def with_fresh_processes(peer: Peer) -> bool:
    return peer.fresh is not None


def with_memory(peer: Peer) -> bool:
    return peer.memory is not None


def with_digest(peer: Peer) -> bool:
    return peer.digest is not None


def with_jobs(peer: Peer) -> bool:
    return peer.name in slurm.JOBS


def inside_allocations(peer: Peer) -> bool:
    return peer.name in slurm.LIVE


def with_node_data(peer: Peer) -> bool:
    return peer.name in {*slurm.LIVE, "tls"} - {"executorlib-nodeps"}


def with_flux_jobs(peer: Peer) -> bool:
    return flux.present() and peer.name in flux.JOBS


def with_flux_graphs(peer: Peer) -> bool:
    return flux.present() and peer.name in flux.GRAPHS


def inside_flux(peer: Peer) -> bool:
    return flux.present() and peer.name in flux.LIVE


def callyard_alone(peer: Peer) -> bool:
    return peer.name == "callyard"


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    unit: str
    measure: Measure
    limit: float  # what Callyard must reach: times the reference, in `unit` if there is none
    against: tuple[str, str] | None = None  # the reference: a peer, and the row of that peer
    higher: bool = False  # more is better
    takes: Callable[[Peer], bool] = with_workers

    def ratio(self, peer: str, values: Values) -> float | None:
        value = values.get(self.name, {}).get(peer)
        if value is None or self.against is None:
            return None
        reference = values.get(self.against[1], {}).get(self.against[0])
        return value / reference if reference else None

    def met(self, values: Values) -> bool | None:
        """Whether Callyard reaches the target; None if it or the reference was not measured."""
        own = values.get(self.name, {}).get("callyard")
        judged = own if self.against is None else self.ratio("callyard", values)
        if judged is None:
            return None
        return judged >= self.limit if self.higher else judged <= self.limit


NOOP = ("ppe", "noop")
HIT = ("joblib", "hit")

ROWS = (
    Row("noop", "no-op calls, submit then gather", "calls/s", rows.noop_rate, 5, NOOP, True),
    Row(
        "events-noop",
        "no-op calls with `events=`, by calls without",
        "calls/s",
        recorded.noop_rate_with_events,
        0.03,
        ("callyard", "noop"),
        True,
        callyard_alone,
    ),
    Row(
        "events",
        "10,000 calls of 10 ms with events, usage and progress: more time",
        "%",
        recorded.overhead,
        5,
        takes=callyard_alone,
    ),
    Row("roundtrip", "submit to result, one at a time", "us", rows.round_trip, 0.5, ("ppe", "roundtrip")),
    Row("array", "64 MB array there, a new one back", "MB/s", rows.array_rate, 8, ("ppe", "array"), True),
    Row("chain", "chain of 300 calls", "calls/s", rows.chain_rate, 0.8, NOOP, True, with_dependencies),
    Row(
        "reduction",
        "binary reduction of 1,024 leaves",
        "calls/s",
        rows.reduction_rate,
        3,
        NOOP,
        True,
        with_dependencies,
    ),
    Row("construct", "construct to first results", "ms", rows.construction, 0.5, ("loky", "construct")),
    Row(
        "fresh",
        "fresh process per call",
        "calls/s",
        rows.fresh_rate,
        20,
        ("executorlib", "fresh"),
        True,
        with_fresh_processes,
    ),
    Row("memory", "memory per pending call", "B", rows.pending_memory, 1_000),
    Row("submit", "time of one submit, workers busy", "us", rows.submit_time, 0.5, ("ppe", "submit")),
    Row("import", "import", "ms", rows.import_time, 100),
    Row(
        "long-chain",
        "chain of 100,000: cost per call, as against 10,000",
        "x",
        rows.chain_growth,
        1.5,
        takes=callyard_alone,
    ),
    Row(
        "wide-fan",
        "fan-out to 100,000: cost per call, as against 10,000",
        "x",
        rows.fan_growth,
        1.5,
        takes=callyard_alone,
    ),
    Row("idle", "CPU of an idle driver", "ms/s", rows.idle_load, 1),
    Row("hit", "a cached result, one at a time", "us", memories.hit_time, 1, HIT, takes=with_memory),
    Row(
        "miss",
        "what remembering adds to a call",
        "us",
        memories.miss_cost,
        1.5,
        ("joblib", "miss"),
        takes=with_memory,
    ),
    Row(
        "hit-fresh",
        "first cached result of a process",
        "ms",
        memories.first_hit_time,
        1,
        ("joblib", "hit-fresh"),
        takes=with_memory,
    ),
    Row(
        "hit-import",
        "the same, import included",
        "ms",
        memories.first_hit_and_import_time,
        1,
        ("joblib", "hit-import"),
        takes=with_memory,
    ),
    Row(
        "key-array",
        "telling a 64 MB array by its content",
        "MB/s",
        memories.digest_rate,
        1,
        ("joblib", "key-array"),
        True,
        with_digest,
    ),
    Row(
        "jobs",
        "Slurm: 100 calls as jobs, 16 slots",
        "s",
        slurm.jobs_time,
        1.3,
        ("sbatch", "jobs"),
        takes=with_jobs,
    ),
    Row(
        "allocation",
        "Slurm allocation, live workers, 2,000 calls",
        "calls/s",
        slurm.live_rate,
        10,
        ("executorlib", "allocation"),
        True,
        inside_allocations,
    ),
    Row(
        "node-array",
        "200 MB array to a node and a new one back",
        "MB/s",
        node_data.array_rate,
        0.8,
        ("tls", "node-array"),
        True,
        with_node_data,
    ),
    Row(
        "node-one",
        "16 MB array to a call on two nodes",
        "ms",
        partial(node_data.shared_time, calls=1),
        1,
        ("executorlib", "node-one"),
        takes=inside_allocations,
    ),
    Row(
        "node-many",
        "the same array to 16 calls there",
        "ms",
        partial(node_data.shared_time, calls=node_data.CALLS),
        2.5,
        ("callyard", "node-one"),
        takes=inside_allocations,
    ),
    Row(
        "flux-jobs",
        "Flux: 100 calls as jobs, 16 slots",
        "s",
        flux.jobs_time,
        1.3,
        ("flux", "flux-jobs"),
        takes=with_flux_jobs,
    ),
    Row(
        "flux-graph",
        "Flux: a random graph of 10 x 100 jobs submitted",
        "s",
        flux.graph_time,
        2,
        ("flux", "flux-graph"),
        takes=with_flux_graphs,
    ),
    Row(
        "flux-live",
        "Flux instance, live workers, 2,000 calls",
        "calls/s",
        flux.live_rate,
        10,
        ("executorlib", "flux-live"),
        True,
        inside_flux,
    ),
    # The last one: where many files were removed, making new ones is slow for minutes.
    Row(
        "hit-many",
        "a cached result among 100,000",
        "us",
        memories.crowded_hit_time,
        1,
        HIT,
        takes=callyard_alone,
    ),
)

BY_NAME = {row.name: row for row in ROWS}
