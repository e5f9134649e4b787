"""The pilot jobs of all kinds of nodes of one executor, without I/O.

Each kind has a state of its own (`cluster/pilot_state_machine.py`), with its own number of nodes, its own failures and
pauses, so no kind can harm another. They share the calls (`cluster/node_placement.py`) and the questions to the
scheduler: one question is about the jobs of all kinds, and one is under way at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import VersionMismatch
from ..pool.call_shape import NodeCapacity, NodeNeed
from ..schedulers.base import Status
from .autoscaler import Block
from .base import GivenUpCalls
from .node_placement import NodePlacement
from .pilot_state_machine import Action, AskStatus, PilotState
from .placement_state import NodeState


class PilotKinds:
    """The states of all kinds; the number of a kind is its place among them."""

    def __init__(self, states: Sequence[PilotState], placement: NodePlacement) -> None:
        self.states, self._placement = states, placement
        self._asking = False  # a question is under way; another one would only make the scheduler slower

    @property
    def blocks(self) -> list[Block]:
        return [block for state in self.states for block in state.blocks]

    @property
    def complete(self) -> bool:
        return all(state.complete for state in self.states)

    def of(self, block: Block) -> PilotState:
        """Return the state of the block's kind."""
        return self.states[block.kind]

    def job_on(self, node: str) -> Block | None:
        """Return the latest pilot job that brought an agent to this node, which may be a node of several kinds."""
        found = [block for state in self.states if (block := state.job_on(node)) is not None]
        return max(found, key=lambda block: block.since, default=None)

    # -- decisions -------------------------------------------------------------------------------------

    def look(self, now: float, wanted: bool) -> list[Action]:
        """Decide on the due actions. `wanted`: there are calls, or calls to come."""
        actions: list[Action] = []
        for state in self.states:
            # The kind of a call to come is not known. With one kind its node is asked for at once; with several, nodes
            # of the wrong kinds would be kept for nothing.
            alone = len(self.states) == 1
            actions += state.look(now, wanted if alone else self._placement.waits(state.kind))
        if not self._asking and any(state.has_question(now) for state in self.states):
            blocks = [block for state in self.states for block in state.ask(now)]
            self._asking = bool(blocks)
            actions += [AskStatus(blocks)] if blocks else []
        return actions

    def next_look(self) -> float | None:
        """Return the time of the next look, if no event comes before; None for no time."""
        times = [when for state in self.states if (when := state.next_look(self._asking)) is not None]
        return min(times, default=None)

    # -- events ----------------------------------------------------------------------------------------

    def joined(self, name: str, node: str, capacity: NodeCapacity, job: str, now: float) -> NodeState | None:
        """Return the node of a new agent of the block with this name; None if the node was given back."""
        found = (state.joined(name, node, capacity, job, now) for state in self.states)
        return next((state for state in found if state is not None), None)

    def mismatched(self, name: str, mismatch: VersionMismatch) -> None:
        """Note that an agent of the block with this name was refused, because its version is another."""
        for block in self.blocks:
            if block.name == name:
                self.of(block).mismatched(mismatch)

    def gone(self, node: NodeState, now: float) -> None:
        """Note that the agent on this node cannot be reached any more."""
        self.states[node.kind].gone(node, now)

    def answered(
        self, blocks: Sequence[Block], statuses: Mapping[str, Status] | None, ends: Mapping[str, float], now: float
    ) -> list[Action]:
        """Note an answer of the scheduler, or None without one; `ends` has the known ends of the jobs' time."""
        self._asking = False
        actions: list[Action] = []
        for state in self.states:
            own = [block for block in blocks if block.kind == state.kind]
            actions += state.answered(own, statuses, ends, now) if own else ()
        return actions

    # -- failures and the end --------------------------------------------------------------------------

    def give_up(self, needs: Sequence[NodeNeed], nobody_came: Sequence[str]) -> list[GivenUpCalls]:
        """Return the needs to give up, of needs that no node can hold, with the errors; nothing if all may wait.

        `nobody_came` has, for each kind, the beginning of the message about jobs without an agent.
        """
        given_up = []
        for state, words in zip(self.states, nobody_came, strict=True):
            own = [need for need in needs if need.kind == state.kind]
            found = state.give_up(own, words) if own else None
            given_up += [] if found is None else [found]
        return given_up

    def to_cancel(self, orderly: bool) -> list[str]:
        """Return the jobs to cancel at the end.

        `orderly`: the agents have ended by themselves, and so do their jobs.
        """
        return [job for state in self.states for job in state.to_cancel(orderly)]
