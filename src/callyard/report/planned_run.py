"""The plan of a dry run as the record of a run, so that it is drawn as one."""

from __future__ import annotations

from collections.abc import Mapping

from ..backends.dry_run.plan import Plan
from ..backends.dry_run.planned_call import PlannedState
from ..events.call_record import CallRecord, CallState, RunRecord

__all__ = ["run_of_plan"]

_STATES: Mapping[PlannedState, CallState] = {
    "cached": "cached",
    "failed": "failed",
    "running": "running",
    "to compute": "planned",
    "after inputs": "planned",
}


def run_of_plan(plan: Plan) -> RunRecord:
    """Return the record of a plan; its times mean nothing."""
    run = RunRecord()
    for call in plan.calls:
        asked, inputs, state = call.asked, call.inputs, _STATES[call.state]
        run.calls[call.number] = CallRecord(
            call.number, call.name, 0.0, state, call.reason, asked=asked, inputs=inputs, key=call.key
        )
    return run
