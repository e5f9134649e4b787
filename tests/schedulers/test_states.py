"""Every word of Slurm's for the state of a job, and for why it waits, has a meaning and a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from callyard import errors
from callyard.schedulers.base import CANCELLED
from callyard.schedulers.slurm.states import REASONS, STATES, JobReport, reason_of, state_of, translated

ROOT = Path(__file__).parent.parent.parent


def words(text: str) -> list[str]:
    return text.split()


# As Slurm's commands print them, from 22.05 to 25.11.
ALL_STATES = words("""
BOOT_FAIL CANCELLED COMPLETED COMPLETING CONFIGURING DEADLINE EXPEDITING FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY
PENDING POWER_UP_NODE PREEMPTED RECONFIG_FAIL REQUEUED REQUEUE_FED REQUEUE_HOLD RESIZING RESV_DEL_HOLD REVOKED RUNNING
SIGNALING SPECIAL_EXIT STAGE_OUT STOPPED SUSPENDED TIMEOUT UPDATE_DB
""")
ALL_REASONS = words("""
AccountNotAllowed AccountingPolicy AssocGrpBB AssocGrpBBMinutes AssocGrpBBRunMinutes AssocGrpBilling
AssocGrpBillingMinutes AssocGrpBillingRunMinutes AssocGrpCPUMinutesLimit AssocGrpCPURunMinutesLimit AssocGrpCpuLimit
AssocGrpEnergy AssocGrpEnergyMinutes AssocGrpEnergyRunMinutes AssocGrpGRES AssocGrpGRESMinutes AssocGrpGRESRunMinutes
AssocGrpJobsLimit AssocGrpLicense AssocGrpLicenseMinutes AssocGrpLicenseRunMinutes AssocGrpMemLimit AssocGrpMemMinutes
AssocGrpMemRunMinutes AssocGrpNodeLimit AssocGrpNodeMinutes AssocGrpNodeRunMinutes AssocGrpSubmitJobsLimit
AssocGrpUnknown AssocGrpUnknownMinutes AssocGrpUnknownRunMinutes AssocGrpWallLimit AssocMaxBBMinutesPerJob
AssocMaxBBPerJob AssocMaxBBPerNode AssocMaxBillingMinutesPerJob AssocMaxBillingPerJob AssocMaxBillingPerNode
AssocMaxCpuMinutesPerJobLimit AssocMaxCpuPerJobLimit AssocMaxCpuPerNode AssocMaxEnergyMinutesPerJob
AssocMaxEnergyPerJob AssocMaxEnergyPerNode AssocMaxGRESMinutesPerJob AssocMaxGRESPerJob AssocMaxGRESPerNode
AssocMaxJobsLimit AssocMaxLicenseMinutesPerJob AssocMaxLicensePerJob AssocMaxMemMinutesPerJob AssocMaxMemPerJob
AssocMaxMemPerNode AssocMaxNodeMinutesPerJob AssocMaxNodePerJobLimit AssocMaxSubmitJobLimit
AssocMaxUnknownMinutesPerJob AssocMaxUnknownPerJob AssocMaxUnknownPerNode AssocMaxWallDurationPerJobLimit
AssociationJobLimit AssociationResourceLimit AssociationTimeLimit BadConstraints BeginTime BlockFreeAction
BlockMaxError BurstBufferOperation BurstBufferResources BurstBufferStageIn Cleaning Constraints DeadLine Dependency
DependencyNeverSatisfied FedJobLock FrontEndDown InactiveLimit InvalidAccount InvalidQOS JobArrayTaskLimit
JobHeldAdmin JobHeldUser JobHoldMaxRequeue JobLaunchFailure Licenses MaxBBPerAccount MaxBBRunMinsPerAccount
MaxBBRunMinsPerUser MaxBillingPerAccount MaxBillingRunMinsPerAccount MaxBillingRunMinsPerUser MaxCpuPerAccount
MaxCpuRunMinsPerAccount MaxCpuRunMinsPerUser MaxEnergyPerAccount MaxEnergyRunMinsPerAccount MaxEnergyRunMinsPerUser
MaxGRESPerAccount MaxGRESRunMinsPerAccount MaxGRESRunMinsPerUser MaxJobsPerAccount MaxLicensePerAccount
MaxLicenseRunMinsPerAccount MaxLicenseRunMinsPerUser MaxMemPerLimit MaxMemoryPerAccount MaxMemoryRunMinsPerAccount
MaxMemoryRunMinsPerUser MaxNodePerAccount MaxNodeRunMinsPerAccount MaxNodeRunMinsPerUser MaxPoweredUpNodes
MaxSubmitJobsPerAccount MaxUnknownPerAccount MaxUnknownRunMinsPerAccount MaxUnknownRunMinsPerUser MpiPortsBusy
NodeDown NonZeroExitCode None NvidiaImexChannels OutOfMemory PartitionConfig PartitionDown PartitionInactive
PartitionNodeLimit PartitionTimeLimit PowerNotAvail PowerReserved Priority Prolog QOSGrpBB QOSGrpBBMinutes
QOSGrpBBRunMinutes QOSGrpBilling QOSGrpBillingMinutes QOSGrpBillingRunMinutes QOSGrpCPUMinutesLimit
QOSGrpCPURunMinutesLimit QOSGrpCpuLimit QOSGrpEnergy QOSGrpEnergyMinutes QOSGrpEnergyRunMinutes QOSGrpGRES
QOSGrpGRESMinutes QOSGrpGRESRunMinutes QOSGrpJobsLimit QOSGrpLicense QOSGrpLicenseMinutes QOSGrpLicenseRunMinutes
QOSGrpMemLimit QOSGrpMemoryMinutes QOSGrpMemoryRunMinutes QOSGrpNodeLimit QOSGrpNodeMinutes QOSGrpNodeRunMinutes
QOSGrpSubmitJobsLimit QOSGrpUnknown QOSGrpUnknownMinutes QOSGrpUnknownRunMinutes QOSGrpWallLimit QOSJobLimit
QOSMaxBBPerJob QOSMaxBBPerNode QOSMaxBBPerUser QOSMaxBillingMinutesPerJob QOSMaxBillingPerJob QOSMaxBillingPerNode
QOSMaxBillingPerUser QOSMaxCpuMinutesPerJobLimit QOSMaxCpuPerJobLimit QOSMaxCpuPerNode QOSMaxCpuPerUserLimit
QOSMaxEnergyMinutesPerJob QOSMaxEnergyPerJob QOSMaxEnergyPerNode QOSMaxEnergyPerUser QOSMaxGRESMinutesPerJob
QOSMaxGRESPerJob QOSMaxGRESPerNode QOSMaxGRESPerUser QOSMaxJobsPerUserLimit QOSMaxLicenseMinutesPerJob
QOSMaxLicensePerJob QOSMaxLicensePerUser QOSMaxMemoryMinutesPerJob QOSMaxMemoryPerJob QOSMaxMemoryPerNode
QOSMaxMemoryPerUser QOSMaxNodeMinutesPerJob QOSMaxNodePerJobLimit QOSMaxNodePerUserLimit QOSMaxSubmitJobPerUserLimit
QOSMaxUnknownMinutesPerJob QOSMaxUnknownPerJob QOSMaxUnknownPerNode QOSMaxUnknownPerUser QOSMaxWallDurationPerJobLimit
QOSMinBB QOSMinBilling QOSMinCpuNotSatisfied QOSMinEnergy QOSMinGRES QOSMinLicense QOSMinMemory QOSMinNode
QOSMinUnknown QOSNotAllowed QOSResourceLimit QOSTimeLimit QOSUsageThreshold RaisedSignal ReqNodeNotAvail Reservation
ReservationDeleted ReservationInvalid Resources SchedDefer SystemFailure TimeLimit
""")
HOPELESS = words("""
AccountNotAllowed BadConstraints DependencyNeverSatisfied InvalidAccount InvalidQOS JobHoldMaxRequeue MaxMemPerLimit
PartitionConfig PartitionNodeLimit PartitionTimeLimit QOSNotAllowed ReservationDeleted ReservationInvalid
AssocMaxWallDurationPerJobLimit QOSMaxWallDurationPerJobLimit QOSMaxCpuPerJobLimit QOSMinCpuNotSatisfied
AssocMaxGRESPerJob QOSMaxMemoryPerNode AssocMaxCpuMinutesPerJobLimit QOSMinGRES
""")
PASSING = words("""
None Priority Resources Dependency BeginTime JobHeldUser JobHeldAdmin JobArrayTaskLimit ReqNodeNotAvail PartitionDown
PartitionInactive Licenses Reservation AssocGrpCpuLimit AssocGrpCPUMinutesLimit QOSMaxCpuPerUserLimit QOSGrpGRES
MaxMemoryRunMinsPerUser QOSMaxJobsPerUserLimit AssocMaxJobsLimit Prolog Cleaning
""")


def test_every_state_and_reason_is_known() -> None:
    assert set(ALL_STATES) <= set(STATES)
    assert set(ALL_REASONS) <= set(REASONS)


@pytest.mark.parametrize("code", STATES)
def test_errors_of_states(code: str) -> None:
    state = STATES[code]
    assert state.error is None or (state.phase == "ended" and issubclass(getattr(errors, state.error), Exception))
    assert (state.error is None) == (state.phase != "ended" or code == "COMPLETED")


def test_sentences_have_the_job_as_their_subject() -> None:
    sentences = [entry.sentence for entry in [*STATES.values(), *REASONS.values()]]
    assert [sentence for sentence in sentences if not re.fullmatch(r"[a-z]+,? .*[^.]|waits|runs", sentence)] == []


@pytest.mark.parametrize("code", HOPELESS)
def test_what_never_ends_by_itself(code: str) -> None:
    assert reason_of(code).hopeless


@pytest.mark.parametrize("code", PASSING)
def test_what_may_pass(code: str) -> None:
    assert not reason_of(code).hopeless


@pytest.mark.parametrize(
    ("text", "hopeless", "part"),
    [
        ("ReqNodeNotAvail, UnavailableNodes:c[1-4]", False, "down, drained"),
        ("launch failed requeued held", True, "prolog"),
        ("launch_failed_requeued_held", True, "prolog"),
        ("job requeued in held state", False, "held"),
        ("QOSMaxTeapotPerJob", False, "QOSMaxTeapotPerJob"),  # newer than these tables
        ("QOSMaxEnergyPerNodeLimit", True, "energy"),  # spelled differently in another version
    ],
)
def test_texts_in_place_of_codes(text: str, hopeless: bool, part: str) -> None:
    reason = reason_of(text)
    assert reason.hopeless == hopeless
    assert part in reason.sentence


def test_an_unknown_state_is_not_given_up() -> None:
    assert state_of("DANCING").phase == "running"
    assert "DANCING" in state_of("DANCING").sentence


def test_the_phase_of_a_status() -> None:
    assert [JobReport("1", code).phase for code in ("PENDING", "COMPLETING", "TIMEOUT")] == [
        "waiting",
        "running",
        "ended",
    ]


@pytest.mark.parametrize(
    ("report", "error", "sentence"),
    [
        (JobReport("1", "COMPLETED", exit_code=0), None, "ended with exit code 0"),
        (JobReport("1", "FAILED", "NonZeroExitCode", exit_code=3), "WorkerLost", "ended with exit code 3"),
        (JobReport("1", "FAILED", "RaisedSignal", signal=11), "WorkerLost", "was killed by SIGSEGV"),
        (JobReport("1", "FAILED"), "WorkerLost", "failed"),
        (JobReport("1", "FAILED", "JobLaunchFailure", signal=9), "WorkerLost", "was killed by SIGKILL"),
        (JobReport("1", "FAILED", "JobLaunchFailure", signal=10), "WorkerLost", "was killed by SIGUSR1"),
        (
            JobReport("1", "FAILED", "JobLaunchFailure", exit_code=0),
            "NodeFailure",
            "could not be started on its node, or was killed there",
        ),
        (JobReport("1", "TIMEOUT", "TimeLimit"), "TimeLimitExceeded", "reached its time limit"),
        (JobReport("1", "PENDING", "Resources"), None, "waits"),
        (JobReport("1", "PENDING", "BadConstraints"), "SchedulerError", "asks for what no node has"),
        (JobReport("1", "PENDING", "DependencyNeverSatisfied"), None, "waits"),
        (JobReport("1", "RUNNING", "BadConstraints"), None, "runs"),
    ],
)
def test_in_words_that_are_not_slurms_own(report: JobReport, error: str | None, sentence: str) -> None:
    status = translated(report)
    assert (status.error, status.sentence, status.phase) == (error, sentence, report.phase)
    assert status.hopeless is (report.reason == "BadConstraints" and report.state == "PENDING")
    assert (status.reason, status.exit_code, status.signal) == (report.reason, report.exit_code, report.signal)


@pytest.mark.parametrize(
    ("state", "nodes", "failed"),
    [
        ("NODE_FAIL", "n1", "n1"),
        ("LAUNCH_FAILED", "n1", "n1"),
        ("NODE_FAIL", "n[1-2]", ""),  # which one, only another command says
        ("NODE_FAIL", "n1,m1", ""),
        ("PREEMPTED", "n1", ""),
        ("PREEMPTED", "n[1-2]", ""),
        ("FAILED", "n1", ""),
    ],
)
def test_the_node_that_has_failed(state: str, nodes: str, failed: str) -> None:
    status = translated(JobReport("1", state, node=nodes))
    assert status.failed_node == failed
    assert status.failed_among == ("" if failed or state != "NODE_FAIL" else nodes)


def test_what_is_cancelled_is_the_same_in_both_words() -> None:
    assert translated(JobReport("1", "CANCELLED")) == CANCELLED
    assert [code for code, state in STATES.items() if state.error == CANCELLED.error] == ["CANCELLED"]


def test_the_page_of_the_documentation_is_current() -> None:
    tool = [sys.executable, ROOT / "tools" / "slurm_states.py"]
    page = subprocess.run(tool, check=True, capture_output=True, encoding="utf-8").stdout
    shown = (ROOT / "docs" / "slurm-states.md").read_text(encoding="utf-8")
    assert shown == page, "python tools/slurm_states.py > docs/slurm-states.md"
