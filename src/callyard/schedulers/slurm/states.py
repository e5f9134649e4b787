"""The states of Slurm's jobs and the reasons for them, from version 22.05 on, and their meaning for a call.

`state_of` and `reason_of` look up `STATES` and `REASONS`; they also know the texts that Slurm writes in place of codes,
and accept codes newer than these tables. `translated` makes a `Status` of a report.
"""

from __future__ import annotations

import dataclasses
import re

from ...system.exit_status import how_it_ended
from ..base import Phase, Status

__all__ = ["REASONS", "STATES", "JobReport", "JobState", "StateReason", "reason_of", "state_of", "translated"]


@dataclasses.dataclass(frozen=True)
class JobState:
    """A state of jobs.

    Attributes:
        phase: "ended" only if no part of the job will ever run again.
        error: the class of `callyard.errors` for the call of a job that ended so without a result; None for other
            states.
        sentence: a predicate for people, with the job as its subject.
    """

    phase: Phase
    error: str | None
    sentence: str


@dataclasses.dataclass(frozen=True)
class StateReason:
    """A reason for waiting or ending.

    Attributes:
        hopeless: True if a job waiting for this would wait for ever unless somebody changes the job or the cluster. A
            job held by its own user or an administrator is not hopeless: the holder means to release it.
        sentence: a predicate for people, with the job as its subject.
        error: the class of `callyard.errors` for a call with a hopeless job.
    """

    hopeless: bool
    sentence: str
    error: str = "SchedulerError"


@dataclasses.dataclass(frozen=True)
class JobReport:
    """A line of `squeue` or `sacct` about a job or one element of an array.

    Attributes:
        job: "123" or "123_4".
        state: a code, in `STATES` unless it is newer.
        reason: the reason for waiting or ending; empty if Slurm gives none.
        node: the nodes of the job.
        exit_code: the exit code of the script, if it ended by itself.
        signal: the signal that ended the script, if one did.
        begins: the time at which Slurm expects a waiting job to start (s since 1970), if it says so.
    """

    job: str
    state: str
    reason: str = ""
    node: str = ""
    exit_code: int | None = None
    signal: int | None = None
    begins: float | None = None

    @property
    def phase(self) -> Phase:
        """The phase of the job: waiting, running or ended."""
        return state_of(self.state).phase


_ENDED: dict[str, tuple[str | None, str]] = {
    "BOOT_FAIL": ("NodeFailure", "had a node that did not boot"),
    "CANCELLED": ("JobCancelled", "was cancelled"),
    "COMPLETED": (None, "ended with exit code 0"),
    "DEADLINE": ("TimeLimitExceeded", "could not end before its deadline and was ended"),
    "FAILED": ("WorkerLost", "ended with an exit code or a signal"),
    "LAUNCH_FAILED": ("NodeFailure", "could not be started on its node, whose prolog failed perhaps"),
    "NODE_FAIL": ("NodeFailure", "lost one of its nodes"),
    "OUT_OF_MEMORY": ("OutOfMemory", "took more memory than it had asked for"),
    "PREEMPTED": ("NodeFailure", "had to give its nodes to a job of higher priority"),
    "RECONFIG_FAIL": ("NodeFailure", "had a node that could not be configured as it asked for"),
    "REVOKED": ("JobLost", "was taken over by another cluster of the federation"),
    "TIMEOUT": ("TimeLimitExceeded", "reached its time limit"),
}

_RUNNING = {
    "COMPLETING": "has ended on some of its nodes and is being cleaned up on the others",
    "RESIZING": "is about to change its size",
    "RUNNING": "runs",
    "SIGNALING": "is being sent a signal",
    "STAGE_OUT": "has ended, and its files are being copied out of the burst buffer",
    "STOPPED": "was stopped by a signal and keeps its nodes",
    "SUSPENDED": "was suspended, and others may use its nodes",
    "UPDATE_DB": "is being changed in the accounting data base",
}

_WAITING = {
    "CONFIGURING": "has its nodes, which are being made ready",
    "EXPEDITING": "waits to be started again before others",
    "GETENV_FAILED": "is held, because the environment of its user could not be made",
    "PENDING": "waits",
    "POWER_UP_NODE": "has its nodes, which are being switched on",
    "REQUEUED": "goes back into the queue",
    "REQUEUE_FED": "goes back into the queue of another cluster of the federation",
    "REQUEUE_HOLD": "goes back into the queue, and is held there until somebody releases it",
    "RESV_DEL_HOLD": "is held, because its reservation was deleted",
    "SPECIAL_EXIT": "ended with an exit code for which it is held in the queue until somebody releases it",
}

STATES: dict[str, JobState] = {
    **{code: JobState("ended", error, sentence) for code, (error, sentence) in _ENDED.items()},
    **{code: JobState("running", None, sentence) for code, sentence in _RUNNING.items()},
    **{code: JobState("waiting", None, sentence) for code, sentence in _WAITING.items()},
}

# ------------------------------------------------------------------ reasons

_PASSING = {
    "AccountingPolicy": "waits for a limit of its account or quality of service",
    "AssocGrpJobsLimit": "waits until fewer jobs of its account run",
    "AssocGrpSubmitJobsLimit": "waits until its account has fewer jobs in the queue",
    "AssocGrpWallLimit": "waits, because its account has used up its wall time",
    "AssocMaxJobsLimit": "waits until fewer jobs of its user run",
    "AssocMaxSubmitJobLimit": "waits until its user has fewer jobs in the queue",
    "AssociationJobLimit": "waits until fewer jobs of its user or account run",
    "AssociationResourceLimit": "waits until its user or account uses less",
    "AssociationTimeLimit": "waits until its user or account has used less time",
    "BeginTime": "waits for its earliest start, which a job that was started again has some minutes later",
    "BlockFreeAction": "waits for blocks of nodes to be freed",
    "BlockMaxError": "waits for blocks of nodes to be repaired",
    "BurstBufferOperation": "waits, because an operation of the burst buffer failed",
    "BurstBufferResources": "waits for space in the burst buffer",
    "BurstBufferStageIn": "waits for its files to be copied into the burst buffer",
    "Cleaning": "is being cleaned up before it is started again",
    "Constraints": "waits for nodes that have what it asks for",
    "Dependency": "waits for the jobs that it depends on",
    "FedJobLock": "waits for the clusters of the federation to agree on who runs it",
    "FrontEndDown": "waits for a front end, of which all are down",
    "JobArrayTaskLimit": "waits until fewer elements of its array run",
    "JobHeldAdmin": "is held by an administrator, or because starting it failed",
    "JobHeldUser": "is held by its user, until `scontrol release`",
    "Licenses": "waits for licenses",
    "MaxJobsPerAccount": "waits until fewer jobs of its account run",
    "MaxPoweredUpNodes": "waits until fewer nodes are switched on",
    "MaxSubmitJobsPerAccount": "waits until its account has fewer jobs in the queue",
    "MpiPortsBusy": "waits for free ports for MPI",
    "None": "has only just been submitted",
    "NvidiaImexChannels": "waits for a channel between GPUs",
    "PartitionDown": "waits for its partition, which starts no jobs now",
    "PartitionInactive": "waits for its partition, which is switched off",
    "PowerNotAvail": "waits for electric power",
    "PowerReserved": "waits for electric power, which is reserved for others",
    "Priority": "waits for jobs of higher priority",
    "Prolog": "has its nodes, where the prolog runs",
    "QOSGrpJobsLimit": "waits until fewer jobs of its quality of service run",
    "QOSGrpSubmitJobsLimit": "waits until its quality of service has fewer jobs in the queue",
    "QOSGrpWallLimit": "waits, because its quality of service has used up its wall time",
    "QOSJobLimit": "waits until fewer jobs of its quality of service run",
    "QOSMaxJobsPerUserLimit": "waits until fewer jobs of its user run in its quality of service",
    "QOSMaxSubmitJobPerUserLimit": "waits until its user has fewer jobs in the queue of its quality of service",
    "QOSResourceLimit": "waits until jobs of its quality of service use less",
    "QOSTimeLimit": "waits until jobs of its quality of service have used less time",
    "QOSUsageThreshold": "waits until its account has used less of what its quality of service allows",
    "ReqNodeNotAvail": "waits for nodes that are down, drained or reserved",
    "Reservation": "waits for its reservation to begin, or for nodes in it",
    "Resources": "waits for free nodes, cores, memory or GPUs",
    "SchedDefer": "waits for the scheduler's next round",
    "SystemFailure": "waits, because something failed in Slurm itself",
}

_HOPELESS = {
    "AccountNotAllowed": "waits in a partition or quality of service that its account may not use",
    "AssocMaxWallDurationPerJobLimit": "asks for more time than its account allows a job",
    "BadConstraints": "asks for what no node has",
    "DependencyNeverSatisfied": "depends on a job that has failed or was cancelled",
    "InvalidAccount": "names an account that its user does not have",
    "InvalidQOS": "names a quality of service that its account does not have",
    "JobHoldMaxRequeue": "was started too often and is held",
    "MaxMemPerLimit": "asks for more memory per core or node than its partition allows",
    "PartitionConfig": "asks for what its partition does not give",
    "PartitionNodeLimit": "asks for more nodes, or fewer, than its partition gives to a job",
    "PartitionTimeLimit": "asks for more time than its partition gives to a job",
    "QOSMaxWallDurationPerJobLimit": "asks for more time than its quality of service allows a job",
    "QOSNotAllowed": "names a quality of service that its account or partition does not allow",
    "ReservationDeleted": "names a reservation that was deleted",
    "ReservationInvalid": "names a reservation that it cannot use",
}

# Reasons of ended jobs; the state tells them too. No job waits for one.
_ENDS = {
    "DeadLine": "could not end before its deadline",
    "InactiveLimit": "was idle for too long",
    "JobLaunchFailure": "could not be started on its node, or was killed there",
    "NodeDown": "lost one of its nodes",
    "NonZeroExitCode": "ended with an exit code other than 0",
    "OutOfMemory": "took more memory than it had asked for",
    "RaisedSignal": "was ended by a signal",
    "TimeLimit": "reached its time limit",
}

# In the place of a code Slurm may give a text; these texts say more than the code.
_TEXTS = {
    "job requeued in held state": StateReason(
        False, "was put back into the queue, and is held until `scontrol release`"
    ),
    "launch failed requeued held": StateReason(
        True,
        "could not be started on its node, whose prolog failed perhaps, and is held until `scontrol release`",
        "NodeFailure",
    ),
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": StateReason(
        False, "waits for nodes that are down, drained or reserved for partitions of higher priority"
    ),
    "user env retrieval failed requeued held": StateReason(
        True, "is held until `scontrol release`, because the environment of its user could not be made"
    ),
}

# Things counted against a limit, in Slurm's spellings, and for people.
_COUNTED = {
    "BB": "burst buffer",
    "Billing": "billing units",
    "CPU": "cores",
    "Cpu": "cores",
    "Energy": "energy",
    "GRES": "generic resources such as GPUs",
    "License": "licenses",
    "Mem": "memory",
    "Memory": "memory",
    "Node": "nodes",
    "Unknown": "a resource",
}
_LIMIT = re.compile(
    rf"(?P<whose>Assoc|QOS|)(?P<kind>Grp|Max|Min)(?P<what>{'|'.join(_COUNTED)})"
    r"(?:Run)?(?P<minutes>Minutes|Mins)?(?:Per(?P<per>Job|Node|User|Account))?(?:Limit|NotSatisfied)?"
)
_OWNERS = {"Assoc": "account", "QOS": "quality of service"}

# Limits of resources; their meaning follows from their names.
_LIMITS = """
AssocGrpBB AssocGrpBBMinutes AssocGrpBBRunMinutes AssocGrpBilling AssocGrpBillingMinutes AssocGrpBillingRunMinutes
AssocGrpCPUMinutesLimit AssocGrpCPURunMinutesLimit AssocGrpCpuLimit AssocGrpEnergy AssocGrpEnergyMinutes
AssocGrpEnergyRunMinutes AssocGrpGRES AssocGrpGRESMinutes AssocGrpGRESRunMinutes AssocGrpLicense
AssocGrpLicenseMinutes AssocGrpLicenseRunMinutes AssocGrpMemLimit AssocGrpMemMinutes AssocGrpMemRunMinutes
AssocGrpNodeLimit AssocGrpNodeMinutes AssocGrpNodeRunMinutes AssocGrpUnknown AssocGrpUnknownMinutes
AssocGrpUnknownRunMinutes AssocMaxBBMinutesPerJob AssocMaxBBPerJob AssocMaxBBPerNode AssocMaxBillingMinutesPerJob
AssocMaxBillingPerJob AssocMaxBillingPerNode AssocMaxCpuMinutesPerJobLimit AssocMaxCpuPerJobLimit AssocMaxCpuPerNode
AssocMaxEnergyMinutesPerJob AssocMaxEnergyPerJob AssocMaxEnergyPerNode AssocMaxGRESMinutesPerJob AssocMaxGRESPerJob
AssocMaxGRESPerNode AssocMaxLicenseMinutesPerJob AssocMaxLicensePerJob AssocMaxMemMinutesPerJob AssocMaxMemPerJob
AssocMaxMemPerNode AssocMaxNodeMinutesPerJob AssocMaxNodePerJobLimit AssocMaxUnknownMinutesPerJob
AssocMaxUnknownPerJob AssocMaxUnknownPerNode MaxBBPerAccount MaxBBRunMinsPerAccount MaxBBRunMinsPerUser
MaxBillingPerAccount MaxBillingRunMinsPerAccount MaxBillingRunMinsPerUser MaxCpuPerAccount MaxCpuRunMinsPerAccount
MaxCpuRunMinsPerUser MaxEnergyPerAccount MaxEnergyRunMinsPerAccount MaxEnergyRunMinsPerUser MaxGRESPerAccount
MaxGRESRunMinsPerAccount MaxGRESRunMinsPerUser MaxLicensePerAccount MaxLicenseRunMinsPerAccount
MaxLicenseRunMinsPerUser MaxMemoryPerAccount MaxMemoryRunMinsPerAccount MaxMemoryRunMinsPerUser MaxNodePerAccount
MaxNodeRunMinsPerAccount MaxNodeRunMinsPerUser MaxUnknownPerAccount MaxUnknownRunMinsPerAccount
MaxUnknownRunMinsPerUser QOSGrpBB QOSGrpBBMinutes QOSGrpBBRunMinutes QOSGrpBilling QOSGrpBillingMinutes
QOSGrpBillingRunMinutes QOSGrpCPUMinutesLimit QOSGrpCPURunMinutesLimit QOSGrpCpuLimit QOSGrpEnergy QOSGrpEnergyMinutes
QOSGrpEnergyRunMinutes QOSGrpGRES QOSGrpGRESMinutes QOSGrpGRESRunMinutes QOSGrpLicense QOSGrpLicenseMinutes
QOSGrpLicenseRunMinutes QOSGrpMemLimit QOSGrpMemoryMinutes QOSGrpMemoryRunMinutes QOSGrpNodeLimit QOSGrpNodeMinutes
QOSGrpNodeRunMinutes QOSGrpUnknown QOSGrpUnknownMinutes QOSGrpUnknownRunMinutes QOSMaxBBPerJob QOSMaxBBPerNode
QOSMaxBBPerUser QOSMaxBillingMinutesPerJob QOSMaxBillingPerJob QOSMaxBillingPerNode QOSMaxBillingPerUser
QOSMaxCpuMinutesPerJobLimit QOSMaxCpuPerJobLimit QOSMaxCpuPerNode QOSMaxCpuPerUserLimit QOSMaxEnergyMinutesPerJob
QOSMaxEnergyPerJob QOSMaxEnergyPerNode QOSMaxEnergyPerUser QOSMaxGRESMinutesPerJob QOSMaxGRESPerJob QOSMaxGRESPerNode
QOSMaxGRESPerUser QOSMaxLicenseMinutesPerJob QOSMaxLicensePerJob QOSMaxLicensePerUser QOSMaxMemoryMinutesPerJob
QOSMaxMemoryPerJob QOSMaxMemoryPerNode QOSMaxMemoryPerUser QOSMaxNodeMinutesPerJob QOSMaxNodePerJobLimit
QOSMaxNodePerUserLimit QOSMaxUnknownMinutesPerJob QOSMaxUnknownPerJob QOSMaxUnknownPerNode QOSMaxUnknownPerUser
QOSMinBB QOSMinBilling QOSMinCpuNotSatisfied QOSMinEnergy QOSMinGRES QOSMinLicense QOSMinMemory QOSMinNode
QOSMinUnknown
"""


def _limit(code: str) -> StateReason | None:
    """Return the meaning of a code made from a limit's name; None for other codes."""
    if not (found := _LIMIT.fullmatch(code)):
        return None
    owner, thing = _OWNERS.get(found["whose"], "account"), _COUNTED[found["what"]]
    if found["minutes"]:
        thing += ", counted in minutes"
    if found["kind"] == "Min":
        return StateReason(True, f"asks for less than its {owner} demands: {thing}")
    if found["per"] in ("Job", "Node"):
        where = " on each node" if found["per"] == "Node" else ""
        return StateReason(True, f"asks for more than its {owner} allows a job{where}: {thing}")
    if found["per"] == "User":
        owner = "user"
    return StateReason(False, f"waits for a limit of all jobs of its {owner}: {thing}")


REASONS: dict[str, StateReason] = {
    **{code: StateReason(False, sentence) for code, sentence in (_PASSING | _ENDS).items()},
    **{code: StateReason(True, sentence) for code, sentence in _HOPELESS.items()},
    **{code: reason for code in _LIMITS.split() if (reason := _limit(code))},
    **_TEXTS,
}

# ------------------------------------------------------------------ looking up


def state_of(code: str) -> JobState:
    """Return the meaning of a state; an unknown one counts as running, so that no job is given up too early."""
    return STATES.get(code) or JobState("running", None, f"is in the state {code}, which Callyard does not know")


def reason_of(text: str) -> StateReason:
    """Return the meaning of a reason from `squeue` or `sacct`: a code, a code with a suffix, or any text."""
    code = text.partition(",")[0]  # "ReqNodeNotAvail, UnavailableNodes:c[1-4]"
    known = REASONS.get(text) or REASONS.get(text.replace("_", " ")) or REASONS.get(code) or _limit(code)
    return known or StateReason(False, f"waits; Slurm says: {text}")


# ------------------------------------------------------------------ as a status


def translated(report: JobReport) -> Status:
    """Return a report as a neutral `Status`."""
    state = state_of(report.state)
    sentence, error = state.sentence, state.error
    if state.phase == "waiting":
        reason = reason_of(report.reason)
        # A dependency that failed ends the job soon, and then gives a better reason.
        if reason.hopeless and report.reason != "DependencyNeverSatisfied":
            sentence, error = reason.sentence, reason.error
    elif error == "WorkerLost":
        sentence, error = _failed(report)
    return Status(
        state.phase, sentence, error, report.reason, report.node, report.exit_code, report.signal,
        *_failed_node(report), begins=report.begins,
    )  # fmt: skip


_FAULTS_OF_NODES = frozenset({"BOOT_FAIL", "LAUNCH_FAILED", "NODE_FAIL", "RECONFIG_FAIL"})


def _failed_node(report: JobReport) -> tuple[str, str]:
    """Return the node whose fault has ended the job; if the job had several, "" and these."""
    if report.state not in _FAULTS_OF_NODES:
        return "", ""
    is_alone = re.search(r"[,\[]", report.node) is None
    return (report.node, "") if is_alone else ("", report.node)


def _failed(report: JobReport) -> tuple[str, str]:
    """Return the predicate for a job in the state FAILED, and the error of its call."""
    launch_failed = report.reason == "JobLaunchFailure"
    if report.signal:
        # Slurm also reports a failed launch after it has killed a job, for its memory or for anything else.
        return how_it_ended(-report.signal), "WorkerLost"
    if launch_failed:
        return reason_of(report.reason).sentence, "NodeFailure"
    return "failed" if report.exit_code is None else f"ended with exit code {report.exit_code}", "WorkerLost"
