"""The slurm.conf of a test cluster, as text."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """What the files are made from. `port`: the first of as many free ports as there are nodes, and two more."""

    directory: Path
    port: int
    nodes: tuple[str, ...]
    cpus: int
    memory: int  # MiB
    gpus: tuple[str, ...]  # device files
    cgroups: bool
    accounting: bool
    user: str
    settings: dict[str, object] = field(default_factory=dict)  # take the place of those below
    lines: tuple[str, ...] = ()

    @property
    def munge(self) -> Path:
        return self.directory / "munge.socket"

    @property
    def mysql(self) -> Path:
        return self.directory / "mysql.sock"

    @property
    def fail_prolog(self) -> Path:
        return self.directory / "fail-prolog"


def slurm_conf(layout: Layout) -> str:
    settings = general(layout) | tracking(layout.cgroups) | accounting(layout) | layout.settings
    text = [f"{key}={value}" for key, value in settings.items()]
    text += [node(layout, number) for number in range(len(layout.nodes))]
    text += partitions(layout.nodes[0], layout.nodes[-1])
    return "\n".join([*text, *layout.lines, ""])


def general(layout: Layout) -> dict[str, object]:
    place = layout.directory
    return {
        "ClusterName": "test",
        # The controller looks for the name that it finds itself under.
        "SlurmctldHost": f"{socket.gethostname().partition('.')[0]}(127.0.0.1)",
        "SlurmctldPort": layout.port,
        "SlurmUser": layout.user,
        "SlurmdUser": layout.user,
        "AuthType": "auth/munge",
        # A job that is requeued waits until its old credential has expired: 2 minutes by default.
        "AuthInfo": f"socket={layout.munge},cred_expire=5",
        "CredType": "cred/munge",
        "StateSaveLocation": place / "state",
        "SlurmdSpoolDir": place / "spool/%n",
        "SlurmctldPidFile": place / "slurmctld.pid",
        "SlurmdPidFile": place / "%n.pid",
        "Prolog": place / "prolog",
        "SwitchType": "switch/none",
        "MpiDefault": "none",
        "MailProg": "/bin/true",
        **({"CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny"} if loopback_only() else {}),
        "SlurmdParameters": "config_overrides",  # nodes may be larger than the machine
        "ReturnToService": 1,
        "GresTypes": "gpu",
        "Licenses": "tool:2",
        # The controller starts batch jobs once a second; nothing else need be waited for.
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1,bf_continue,"
        "default_queue_depth=1000",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "PriorityType": "priority/basic",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "DefMemPerCPU": layout.memory // layout.cpus // 2,
        "MaxJobCount": 20000,
        "SlurmctldTimeout": 30,
        "SlurmdTimeout": 10,
        "BatchStartTimeout": 10,
        "MessageTimeout": 10,
        "KillWait": 1,
        "InactiveLimit": 0,
        "UnkillableStepTimeout": 50,  # five times MessageTimeout, as Slurm wants it
        "EpilogMsgTime": 0,
    }


def loopback_only() -> bool:
    """Slurm can bind one address only: that of the host's name, which must then be a loopback address."""
    return socket.gethostbyname(socket.gethostname()).startswith("127.")


def tracking(cgroups: bool) -> dict[str, object]:
    if cgroups:
        return {
            "ProctrackType": "proctrack/cgroup",
            "TaskPlugin": "task/cgroup",
            "JobAcctGatherType": "jobacct_gather/cgroup",
            "JobAcctGatherFrequency": "task=1",
        }
    return {
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=1",
        "JobAcctGatherParams": "OverMemoryKill",
    }


def accounting(layout: Layout) -> dict[str, object]:
    if not layout.accounting:
        return {"AccountingStorageType": "accounting_storage/none"}
    return {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": layout.port + 1,
        "AccountingStoragePass": layout.munge,  # sacct does not look at AuthInfo
        "AccountingStoreFlags": "job_comment",
    }


def node(layout: Layout, number: int) -> str:
    return (
        f"NodeName={layout.nodes[number]} NodeHostname={layout.nodes[number]} NodeAddr=127.0.0.1 "
        f"Port={layout.port + 2 + number} CPUs={layout.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={layout.cpus} "
        f"ThreadsPerCore=1 RealMemory={layout.memory} Feature=virtual,number{number} "
        + (f"Gres=gpu:{len(layout.gpus)} " if layout.gpus else "")
        + "State=UNKNOWN"
    )


def partitions(first: str, last: str) -> list[str]:
    usual = "Nodes=ALL MaxTime=INFINITE DefaultTime=10 State=UP"
    return [
        f"PartitionName=main {usual} Default=YES PriorityTier=10 PreemptMode=OFF",
        f"PartitionName=low {usual} PriorityTier=1 PreemptMode=REQUEUE",
        f"PartitionName=spare {usual} PriorityTier=1 PreemptMode=CANCEL GraceTime=5",
        f"PartitionName=short Nodes={first} MaxTime=1 DefaultTime=1 State=UP PriorityTier=10 PreemptMode=OFF",
        f"PartitionName=gpu Nodes={last} MaxTime=INFINITE DefaultTime=10 State=UP PriorityTier=10 PreemptMode=OFF",
    ]
