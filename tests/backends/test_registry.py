"""Backends and schedulers by name: ours without a look at installed packages, and those of other packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from callyard import (
    LSF,
    PBS,
    CallyardError,
    Executor,
    Flux,
    GridEngine,
    Jobs,
    Local,
    ResourceError,
    SchedulerError,
    Slurm,
)
from callyard.backends import registry as backends
from callyard.backends.base import Backend, BackendFactory, Settings
from callyard.schedulers import registry as schedulers
from callyard.schedulers.base import Scheduler

ROOT = Path(__file__).parent.parent.parent
MODULE = """
from callyard import Local
from callyard.schedulers.slurm.scheduler import SlurmScheduler

class Cloud(Local):
    other_resources = ("zone",)

class Queues(SlurmScheduler):
    name = "Queues"
"""
ENTRY_POINTS = """
[callyard.backends]
cloud = {module}:Cloud
broken = {module}:Nothing
local = {module}:Cloud

[callyard.schedulers]
Queues = {module}:Queues
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Another package, as pip would install it."""
    name = f"plugin_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    about = tmp_path / f"{name}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS.format(module=name))
    monkeypatch.syspath_prepend(tmp_path)


def test_a_backend_of_another_package(installed: None) -> None:
    with Executor(backend="cloud", resource_dict={"zone": "north"}) as ex:
        assert ex.submit(pow, 2, 10).result() == 1024


def test_no_other_package_takes_our_names(installed: None) -> None:
    assert backends.other_resources("local") == ()
    assert backends.other_resources("cloud") == ("zone",)


def test_names_of_other_packages_are_told_too(installed: None) -> None:
    with pytest.raises(CallyardError, match="did you mean 'cloud'"):
        Executor(backend="clout")
    with pytest.raises(CallyardError, match=r"'lsf', 'gridengine', 'broken', 'cloud', 'queues', Local\(...\)"):
        Executor(backend="zzz")


def test_an_entry_point_that_leads_nowhere(installed: None) -> None:
    with pytest.raises(ImportError, match=r":Nothing, the entry point 'broken' of callyard.backends, is not there"):
        Executor(backend="broken")


def test_a_description_of_ones_own() -> None:
    class Here:
        other_resources = ("mood",)

        def open(self, settings: Settings, cache: object) -> Backend:
            return Local(cores=1).open(settings)

    factory: BackendFactory = Here()
    for choice in (factory, Here):
        with Executor(backend=choice, resource_dict={"mood": "good"}) as ex:
            assert ex.submit(pow, 2, 10).result() == 1024


def test_what_only_looks_like_a_description(tmp_path: Path) -> None:
    for nothing in (tmp_path, Path):  # it can be opened
        with pytest.raises(CallyardError, match="not a backend that this version knows"):
            Executor(backend=nothing)


def test_a_scheduler_of_another_package(installed: None) -> None:
    assert schedulers.open_scheduler("Queues").name == "Queues"
    assert schedulers.open_scheduler("Slurm").name == "Slurm"
    with pytest.raises(SchedulerError, match="does not speak with the scheduler 'Cues'"):
        schedulers.open_scheduler("Cues")


def test_a_scheduler_of_another_package_needs_no_backend(installed: None, tmp_path: Path) -> None:
    for choice in ("Queues", "queues", Jobs("queues", queue="north")):
        with Executor(backend=choice, cache=tmp_path / "cache") as ex:
            assert "each call a job of Queues" in repr(ex)
    with pytest.raises(SchedulerError, match="no installed package has a scheduler 'Cues'"):
        Jobs("Cues")
    with pytest.raises(ResourceError, match="options must be a mapping of names to texts"):
        Jobs("Queues", options={"a": 1})  # type: ignore[dict-item]


def test_live_calls_are_refused_where_there_are_none() -> None:
    for factory in (PBS, LSF, GridEngine):
        with pytest.raises(CallyardError, match=f"Callyard keeps no workers in jobs of {factory.__name__}"):
            factory(detached=False)
    with pytest.raises(ResourceError, match="memory_unit must be 'KB'"):
        LSF(memory_unit="KiB")


def test_ours_follow_the_protocols() -> None:
    factories: list[Callable[[], BackendFactory]] = [Local, Slurm, Flux, PBS, LSF, GridEngine]
    assert {tuple(factory().other_resources) for factory in factories} == {()}
    opened: list[Scheduler] = [schedulers.open_scheduler(name) for name in schedulers.OWN]
    assert [scheduler.name for scheduler in opened] == list(schedulers.OWN)


@pytest.mark.parametrize("registry", [backends, schedulers], ids=["backends", "schedulers"])
def test_what_is_installed_is_what_is_in_the_table(registry: object) -> None:
    group, own = registry.GROUP, registry.OWN  # type: ignore[attr-defined]
    for reference in own.values():
        module, _, attribute = reference.partition(":")
        assert getattr(import_module(module), attribute)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition(f'[project.entry-points."{group}"]\n')[2]
    assert text.partition("\n\n")[0].splitlines() == [f'{name} = "{reference}"' for name, reference in own.items()]


def test_names_of_ours_need_no_look_at_installed_packages() -> None:
    code = "import sys, callyard; callyard.Executor(backend='local'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "callyard.backends.local" in loaded
    assert not {"importlib.metadata", "callyard.backends.slurm", "callyard.schedulers.base"} & set(loaded)


@pytest.mark.parametrize(
    ("variables", "commands", "expected"),
    [
        ({}, (), ""),
        ({}, ("flux",), "Flux"),
        ({}, ("flux", "sbatch"), "Slurm"),
        ({"SLURM_JOB_ID": "7"}, ("flux",), "Slurm"),
        ({"FLUX_URI": "local:///run/flux"}, ("sbatch",), "Flux"),
        ({"FLUX_URI": "local:///run/flux", "SLURM_JOB_ID": "7"}, (), "Flux"),
        ({}, ("qsub", "pbsnodes"), "PBS"),
        ({}, ("qsub", "qconf"), "GridEngine"),
        ({}, ("bsub",), "LSF"),
        ({"PBS_JOBID": "7.server"}, ("sbatch",), "PBS"),
        ({"JOB_ID": "7", "SGE_TASK_ID": "undefined"}, (), "GridEngine"),
        ({"JOB_ID": "7"}, (), ""),
        ({"LSB_JOBID": "7"}, (), "LSF"),
    ],
)
def test_the_scheduler_here(
    variables: dict[str, str], commands: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    for command in commands:
        (tmp_path / command).touch(0o755)
    assert schedulers.scheduler_here({"PATH": str(tmp_path), **variables}) == expected


def test_the_automatic_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "FLUX_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with Executor(backend="auto") as ex:
        assert ex.submit(pow, 2, 10).result() == 1024
    monkeypatch.setenv("FLUX_URI", "local:///run/flux")
    with Executor(backend="auto", cache=tmp_path / "cache") as ex:
        assert "each call a job of Flux" in repr(ex)
