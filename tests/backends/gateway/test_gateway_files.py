"""Files in arguments and results of calls on another computer: each content crosses once, and whole."""

from __future__ import annotations

import os
import re
import shutil
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from gate import until
from relay import Relay
from sshd import Server

from callyard import Cache, CallyardError, Executor, File, Local
from callyard.backends.gateway import backend as backend_module
from callyard.backends.gateway import private_copies
from callyard.backends.gateway.contents import FileSource

PATIENCE = 60
MEGABYTE = 1_000_000
CHANGES = ((b"b" * 10, "was changed meanwhile"), (b"a", "has become shorter meanwhile"), (None, "cannot be read"))


@dataclass
class Relaxed:
    structure: File
    energy: float


def relax(size: int, name: str = "out.xyz", byte: bytes = b"r") -> list[Any]:
    Path(name).write_bytes(byte * size)
    return [Relaxed(File(name), -3.1), {"again": File(name)}]


def facts(relaxed: list[Any]) -> tuple[str, int]:
    path = os.fspath(relaxed[0].structure)
    return path, os.path.getsize(path)


def size_of_file(file: File) -> int:
    return os.path.getsize(file)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


@pytest.fixture(autouse=True)
def no_private_copies() -> Iterator[None]:
    """Those of this process go at the end of each test, not of the process."""
    yield
    known = private_copies._made.pop(os.getpid(), None)
    if known is not None:
        shutil.rmtree(os.path.dirname(known._own.path))


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_the_content_of_a_result_comes_here(
    sshd: Server, relay: Relay, tmp_path: Path, there: Path, detached: bool, cached: bool
) -> None:
    name = f"results-{detached}-{cached}"
    backend = Local(detached=detached, host=sshd.host(sshd.account(name, port=relay.port), directory=there))
    cache = {"cache": tmp_path / "results"} if cached else {}
    with Executor(backend=backend, **cache) as executor:
        future = executor.submit(relax, 3 * MEGABYTE)
        path_there, size = executor.submit(facts, future).result(PATIENCE)
        assert path_there.startswith(f"{there}/")
        assert size == 3 * MEGABYTE
        relaxed, more = future.result(PATIENCE)
    path = Path(relaxed.structure)
    assert path.read_bytes() == b"r" * (3 * MEGABYTE)
    assert (path.name, path.stat().st_mode & 0o777) == ("out.xyz", 0o400)
    assert os.fspath(more["again"]) == str(path)
    assert str(path).startswith(f"{tmp_path}/results/files/") is cached
    assert 3 * MEGABYTE < relay.down < 4 * MEGABYTE
    assert relay.up < MEGABYTE


def test_a_content_that_is_here_or_there_already_does_not_travel(
    sshd: Server, relay: Relay, tmp_path: Path, there: Path
) -> None:
    backend = Local(host=sshd.host(sshd.account("known-files", port=relay.port), directory=there))
    with Executor(backend=backend, cache=tmp_path / "results") as executor:
        first = executor.submit(relax, 2 * MEGABYTE).result(PATIENCE)
        other = executor.submit(relax, 2 * MEGABYTE, "other.xyz").result(PATIENCE)
        assert Path(other[0].structure).name == "other.xyz"
        assert os.path.samefile(other[0].structure, first[0].structure)
        assert executor.submit(size_of_file, first[0].structure).result(PATIENCE) == 2 * MEGABYTE
    assert relay.down < 3 * MEGABYTE
    assert relay.up < MEGABYTE


def test_a_second_run_is_answered_here_without_a_connection(
    sshd: Server, relay: Relay, tmp_path: Path, there: Path
) -> None:
    backend = Local(host=sshd.host(sshd.account("second-files", port=relay.port), directory=there))
    with Executor(backend=backend, cache=tmp_path / "results") as executor:
        executor.submit(relax, 10).result(PATIENCE)
    for path in there.glob("out.xyz"):
        path.unlink()
    relay.cut = True
    with Executor(backend=backend, cache=tmp_path / "results") as executor:
        future = executor.submit(relax, 10)
        assert future.cached
        assert Path(future.result()[0].structure).read_bytes() == b"r" * 10


@pytest.mark.parametrize("harm", ["link", "gateway"])
def test_a_content_cut_in_the_middle(
    sshd: Server, relay: Relay, tmp_path: Path, there: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half that came does not count; another connection brings the rest."""
    monkeypatch.setattr(backend_module, "_FIRST", 0.1)  # s before it connects again
    backend = Local(host=sshd.host(sshd.account(f"cut-{harm}", port=relay.port), directory=there))
    if harm == "gateway":
        relay.at_limit = partial(kill_gateway, there)
    (tmp_path / "large.dat").write_bytes(content := os.urandom(20 * MEGABYTE))
    with Executor(backend=backend, cache=tmp_path / "results") as executor, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        for more in (12, 24):  # on its way there, and on the way back
            relay.limit = relay.up + relay.down + more * MEGABYTE
            if more == 12:
                future = executor.submit(copied, File(tmp_path / "large.dat"))
            until(lambda: relay.limit is None)
        assert not future.done()
        assert Path(future.result(PATIENCE)).read_bytes() == content
    assert max(relay.up, relay.down) < 28 * MEGABYTE  # what was on its way in buffers went twice
    assert not list(there.glob(".callyard/**/.tmp-*"))
    assert not list((tmp_path / "results").glob("**/.tmp-*"))
    assert Cache(tmp_path / "results").check().ok


def kill_gateway(place: Path) -> None:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(place) in words and any(word.startswith("callyard-gateway-") for word in words):
            process.kill()


def copied(file: File) -> File:
    Path("copy.dat").write_bytes(Path(file).read_bytes())
    return File("copy.dat")


def test_a_file_that_changes_before_it_is_sent(
    sshd: Server, tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is run with another content than that of the key."""
    data = tmp_path / "start.dat"
    pieces = FileSource.pieces

    def changed(source: FileSource, most: int) -> Iterator[Any]:
        data.unlink() if change is None else data.write_bytes(change)
        return pieces(source, most)

    monkeypatch.setattr(FileSource, "pieces", changed)
    with Executor(backend=Local(detached=False, host=sshd.host("plain", directory=there))) as executor:
        for change, why in CHANGES:  # noqa: B007  # `changed` reads it
            data.write_bytes(b"a" * 10)
            future = executor.submit(size_of_file, File(data))
            with pytest.raises(CallyardError, match=rf"the file 'start.dat' cannot be used in .*{re.escape(why)}"):
                future.result(PATIENCE)
        assert executor.submit(abs, -1).result(PATIENCE) == 1
    assert not list((there / ".callyard" / "files").glob("*"))


def test_a_result_without_its_file_fails(sshd: Server, there: Path) -> None:
    with Executor(backend=Local(detached=False, host=sshd.host("plain", directory=there))) as executor:
        with pytest.raises(FileNotFoundError, match="gone"):
            executor.submit(without_the_file).result(PATIENCE)
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def without_the_file() -> File:
    Path("gone").touch()
    file = File("gone")
    os.unlink("gone")
    return file


TABLE: Any = None  # a file as a global of the user's script


def size_of_table() -> int:
    return os.path.getsize(TABLE)


def test_files_that_are_no_arguments(
    sshd: Server, tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A global of a function, and the result of a call that ran here."""
    (tmp_path / "table.dat").write_bytes(b"t" * 100)
    monkeypatch.setattr(f"{__name__}.TABLE", File(tmp_path / "table.dat"))
    monkeypatch.chdir(tmp_path)
    with Executor(backend=Local(cores=1)) as here:
        with Executor(backend=Local(detached=False, host=sshd.host("plain", directory=there))) as executor:
            assert executor.submit(size_of_table).result(PATIENCE) == 100
            future = executor.submit(facts, here.submit(relax, 2 * MEGABYTE))
            path, size = future.result(PATIENCE)
            assert path.startswith(f"{there}/.callyard/files/")
            assert size == 2 * MEGABYTE


def test_a_future_shows_what_is_on_its_way(sshd: Server, relay: Relay, tmp_path: Path, there: Path) -> None:
    (tmp_path / "large.dat").write_bytes(os.urandom(20 * MEGABYTE))
    seen: list[str] = []
    backend = Local(detached=False, host=sshd.host(sshd.account("progress", port=relay.port), directory=there))
    with Executor(backend=backend, cache=tmp_path / "results") as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        submitted = threading.Event()
        relay.at_limit = lambda: submitted.wait(PATIENCE) and seen.append(repr(future))
        relay.limit = relay.up + relay.down + 8 * MEGABYTE
        future = executor.submit(copied, File(tmp_path / "large.dat"))
        submitted.set()
        until(lambda: relay.limit is None)
        relay.limit = relay.up + relay.down + 20 * MEGABYTE
        until(lambda: relay.limit is None)
        future.result(PATIENCE)
    assert re.search(r"state=sending [\d.]+ of 20 MB to progress>", seen[0])
    assert re.search(r"state=receiving [\d.]+ of 20 MB from progress>", seen[1])
