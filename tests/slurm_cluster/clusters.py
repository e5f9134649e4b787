"""Clusters for the tests that need one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cluster import OF_A_JOB, Cluster

NEEDS = {"cluster": "slurm", "accounted_cluster": "slurmdbd"}  # what a fixture needs


def pytest_itemcollected(item: pytest.Item) -> None:
    for name in getattr(item, "fixturenames", ()):
        if name in NEEDS:
            item.add_marker(pytest.mark.needs(NEEDS[name]))
            item.add_marker(pytest.mark.once)  # a cluster takes its time, and does the same whatever Python asks it


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without accounting, as many are."""
    with Cluster(tmp_path_factory.getbasetemp() / "c") as cluster:  # a short name: see there
        yield cluster


@pytest.fixture(scope="session")
def accounted_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with slurmdbd, so that sacct answers."""
    with Cluster(tmp_path_factory.getbasetemp() / "a", accounting=True) as cluster:
        yield cluster


@pytest.fixture
def slurm(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, as if this process were on its login node."""
    yield from lend(cluster, monkeypatch)


@pytest.fixture
def accounted_slurm(accounted_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster with accounting, as if this process were on its login node."""
    yield from lend(accounted_cluster, monkeypatch)


def lend(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Point this process at a cluster; afterwards put the cluster in order, and fail where jobs were left."""
    for name in [name for name in os.environ if name.startswith(OF_A_JOB)]:
        monkeypatch.delenv(name)
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield cluster
    left = cluster.restore()
    if left:
        pytest.fail(f"this test left jobs behind: {left}", pytrace=False)
