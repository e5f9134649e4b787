"""At most one living process has the claim to a key, however they interleave, and whoever of them is killed."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callyard.cache import claims as claims_module
from callyard.cache import directory as directory_module
from callyard.cache.claims import Claim, ClaimOwner, Claims, UnreadableClaim
from callyard.cache.directory import CacheDirectory
from callyard.errors import CacheError, UnsafeCache
from callyard.system import process_identity
from callyard.system.process_identity import ProcessIdentity, State, this_process

KEY = "3f" + "a2" * 19


@pytest.fixture
def home(tmp_path: Path) -> CacheDirectory:
    return CacheDirectory.open(tmp_path / "cache")


@pytest.fixture
def claims(home: CacheDirectory) -> Claims:
    return Claims(home)


def take(claims: Claims, key: str = KEY, name: str = "relax") -> Claim:
    claim = claims.take(key, name)
    assert isinstance(claim, Claim)
    return claim


def files(home: CacheDirectory) -> list[str]:
    return sorted(os.listdir(f"{home.path}/claims"))


def write(home: CacheDirectory, name: str, owner: ClaimOwner) -> None:
    Path(home.subdirectory("claims"), name).write_text(json.dumps(vars(owner)))


def owner(token: str, **changes: object) -> ClaimOwner:
    here = ClaimOwner(**vars(this_process()), name="relax", since=1e9, token=token)
    return here.replace(**changes)


def dead(token: str) -> ClaimOwner:
    """The claim of a process whose number is used again by this one."""
    return owner(token, start=1) if this_process().start else owner(token, pid=free_pid())


def free_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


# ------------------------------------------------------------------ one process


def test_a_claim_is_held_until_it_is_released(claims: Claims, home: CacheDirectory) -> None:
    assert claims.holder(KEY) is None
    claim = take(claims)
    assert claims.take(KEY, "another") == claims.holder(KEY) == claim.owner
    assert claim.key == KEY
    assert claim.owner.state() == "alive"
    assert files(home) == [KEY]
    claim.release()
    assert claims.holder(KEY) is None
    assert not files(home)
    take(claims).release()


def test_an_owner_is_the_process_and_the_function(claims: Claims) -> None:
    before = time.time()
    claim = claims.take(KEY, "relax", job_id="17_4")
    assert isinstance(claim, Claim)
    owner = claim.owner
    assert ProcessIdentity.from_label(owner.label) == this_process()
    assert (owner.name, owner.job_id) == ("relax", "17_4")
    assert before <= owner.since <= time.time()
    claim.release()


def test_releasing_again_does_nothing(claims: Claims) -> None:
    claim = take(claims)
    claim.release()
    other = take(claims)
    claim.release()
    assert claims.holder(KEY) == other.owner
    other.release()


def test_different_keys_do_not_meet(claims: Claims) -> None:
    taken = [take(claims, key) for key in (KEY, "mine", "mine.0", "m")]
    assert dict(claims.running()) == {claim.key: claim.owner for claim in taken}
    taken[0].release()
    assert {key for key, _ in claims.running()} == {"mine", "mine.0", "m"}


@pytest.mark.parametrize("call", ["take", "holder", "force"])
def test_what_is_no_key_cannot_be_claimed(claims: Claims, call: str) -> None:
    with pytest.raises(CacheError, match="cannot be a key"):
        getattr(claims, call)("../x", *["f"] * (call == "take"))


def test_nothing_is_running_in_a_new_cache(claims: Claims) -> None:
    assert not list(claims.running())
    assert claims.sweep() == 0
    assert not claims.force(KEY)


def test_of_threads_exactly_one_gets_it(claims: Claims) -> None:
    barrier = threading.Barrier(8)
    results: list[Claim | ClaimOwner] = []

    def work() -> None:
        barrier.wait()
        results.append(claims.take(KEY, "relax"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (claim,) = [result for result in results if isinstance(result, Claim)]
    assert [result for result in results if isinstance(result, ClaimOwner)] == [claim.owner] * 7


# ------------------------------------------------------------------ successors


def test_who_is_gone_is_succeeded(claims: Claims, home: CacheDirectory) -> None:
    write(home, KEY, dead("a1"))
    write(home, f"{KEY}+a1", dead("b2"))
    assert claims.holder(KEY) == dead("b2")
    claim = take(claims)
    assert files(home) == [KEY, f"{KEY}+a1", f"{KEY}+b2"]
    assert dict(claims.running()) == {KEY: claim.owner}
    assert claims.take(KEY, "another") == claim.owner
    claim.release()
    assert not files(home)


@pytest.mark.parametrize("change", [{"host": "elsewhere", "boot": "b007"}, {"namespace": "1.2"}])
def test_who_may_live_is_not_succeeded(claims: Claims, home: CacheDirectory, change: dict[str, str]) -> None:
    elsewhere = dead("a1").replace(**change)
    write(home, KEY, elsewhere)
    assert claims.take(KEY, "another") == claims.holder(KEY) == elsewhere
    assert elsewhere.state() == "unknown"
    assert claims.sweep() == 0


def test_a_release_begins_at_the_root(claims: Claims, home: CacheDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were another removed first, the dead one before it would be the last one."""
    write(home, KEY, dead("a1"))
    write(home, f"{KEY}+a1", dead("b2"))
    claim = take(claims)
    removed = []
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda path: (removed.append(os.path.basename(path)), unlink(path)))
    claim.release()
    assert removed == [KEY, f"{KEY}+a1", f"{KEY}+b2"]


def test_what_no_chain_leads_to_does_not_hold(claims: Claims, home: CacheDirectory) -> None:
    """Whoever was killed in the middle of a release left it."""
    write(home, f"{KEY}+a1", dead("b2"))
    write(home, f"{KEY}+b2", dead("c3"))
    assert claims.holder(KEY) is None
    claim = take(claims)
    assert claims.holder(KEY) == claim.owner
    claim.release()
    assert claims.sweep() == 1
    assert not files(home)


def test_a_successor_that_comes_too_late_gives_way(
    claims: Claims, home: CacheDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees that the owner is gone; before it links, another one succeeds, releases, and a third one claims."""
    write(home, KEY, dead("a1"))
    link, third = os.link, []

    def late(source: str, target: str) -> None:
        if not third:
            third.append(None)
            take(claims).release()
            third[0] = take(claims)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert claims.take(KEY, "late") == third[0].owner
    assert files(home) == [KEY]


def test_a_link_whose_success_was_not_told(
    claims: Claims, home: CacheDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS asks again when the answer is lost, and is told that the name is taken: by this very request."""
    link = os.link

    def linked(source: str, target: str) -> None:
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", linked)
    claim = take(claims)
    assert claims.holder(KEY) == claim.owner
    claim.release()
    write(home, KEY, dead("a1"))
    take(claims).release()
    assert not files(home)


# ------------------------------------------------------------------ all interleavings

STEPS = ("link", "unlink", "open", "listdir")  # what others may see, or may have changed meanwhile


class Killed(BaseException):
    pass


class Actor(threading.Thread):
    """A process, as far as claims are concerned. It stops before each step until it is its turn."""

    def __init__(self, world: World, number: int, provable: bool, program: Callable[[Claims], None]) -> None:
        super().__init__()
        self.world, self.provable, self.program = world, provable, program
        self.identity = ProcessIdentity("host", "machine", "boot", "namespace", number, 1)
        self.go = threading.Semaphore(0)
        self.action, self.killed, self.finished = "go", False, False

    def run(self) -> None:
        try:
            self.step()
            self.program(Claims(self.world.home))
        except Killed:
            pass
        except BaseException as error:
            self.world.errors.append(error)
        self.finished = True
        self.world.arrived.release()

    def step(self) -> str:
        """Wait for the turn. Who is killed does not even tidy up."""
        if not self.killed:
            self.world.arrived.release()
            self.go.acquire()
            self.killed = self.action == "kill"
        if self.killed:
            raise Killed
        return self.action


class World:
    """Actors with one cache, of which one at a time makes one step."""

    def __init__(self, home: CacheDirectory) -> None:
        self.home = home
        self.actors: list[Actor] = []
        self.arrived = threading.Semaphore(0)
        self.holding: dict[str, Actor] = {}
        self.errors: list[BaseException | str] = []

    # -- what replaces parts of the module

    def __getattr__(self, name: str) -> object:
        """Be the module `os`, with a step before whatever matters to others."""
        function = getattr(os, name)
        if name not in STEPS or not isinstance(threading.current_thread(), Actor):
            return function

        def stepped(*args: object) -> object:
            action = self.me().step()
            if action == "stale" and name == "open":  # NFS may not see yet what another machine made
                raise FileNotFoundError
            result = function(*args)
            if action == "lose" and name == "link":
                raise FileExistsError
            return result

        return stepped

    def me(self) -> Actor:
        thread = threading.current_thread()
        assert isinstance(thread, Actor)
        return thread

    def this_process(self) -> ProcessIdentity:
        thread = threading.current_thread()
        return thread.identity if isinstance(thread, Actor) else this_process()

    def state(self, who: ProcessIdentity) -> State:
        if not who.pid:
            return "gone"
        actor = self.actors[who.pid - 1]
        if actor.killed or actor.finished:
            return "gone" if actor.provable else "unknown"
        return "alive"

    def take(self, claims: Claims, key: str, name: str) -> Claim | ClaimOwner:
        result = PLAIN_TAKE(claims, key, name)
        if isinstance(result, Claim):
            others = [actor for actor in self.holding.values() if not (actor.killed and actor.provable)]
            if others:
                self.errors.append(f"{self.me().identity.pid} and {others[0].identity.pid} hold at once")
            self.holding[result.owner.token] = self.me()
        return result

    def release(self, claim: Claim) -> None:
        del self.holding[claim.owner.token]
        PLAIN_RELEASE(claim)

    # -- running

    def run(self, turns: Iterator[tuple[int, str]]) -> None:
        for actor in self.actors:
            actor.start()
        for _ in self.actors:
            self.arrived.acquire()
        while waiting := [actor for actor in self.actors if not actor.finished]:
            number, action = next(turns)
            actor = waiting[number % len(waiting)]
            actor.action = action
            actor.go.release()
            self.arrived.acquire()
        for actor in self.actors:
            actor.join()


PLAIN_TAKE = Claims.take
PLAIN_RELEASE = Claim.release


def work(claims: Claims) -> None:
    for _ in range(2):
        claim = claims.take(KEY, "relax")
        if isinstance(claim, Claim):
            threading.current_thread().step()  # type: ignore[attr-defined]
            claim.release()


def tidy(claims: Claims) -> None:
    for _ in range(2):
        claims.sweep()


def turns(seed: int) -> Iterator[tuple[int, str]]:
    """One actor goes on for some steps, so that what takes many of them happens between two of another one."""
    dice = random.Random(seed)
    deadly = dice.choice([0, 0.02, 0.1])
    forgetful = dice.choice([0, 0.05])
    while True:
        number = dice.randrange(6)
        for _ in range(dice.choice([1, 1, 2, 4, 8, 16])):
            chance = dice.random()
            yield number, "kill" if chance < deadly else "lose" if chance > 1 - forgetful else "go"
        if dice.random() < forgetful:
            yield number, "stale"


@settings(max_examples=500)
@given(st.integers(0, 1 << 32), st.sampled_from([0, 1, 2, "empty", "directory"]), st.integers(0, 2), st.booleans())
def test_never_do_two_living_processes_hold(seed: int, before: int | str, sweepers: int, provable: bool) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        world = World(CacheDirectory.open(place))
        programs = [work] * 4 + [tidy] * sweepers
        world.actors = [Actor(world, n, provable or n > 1, program) for n, program in enumerate(programs, 1)]
        patch.setattr(claims_module, "os", world)
        # `remove_file` is in the module of the directory, whose other functions make no steps.
        patch.setattr(directory_module, "os", SimpleNamespace(**{**vars(os), "unlink": world.unlink}))
        patch.setattr(claims_module, "this_process", world.this_process)
        patch.setattr(ProcessIdentity, "state", lambda who: world.state(who))
        patch.setattr(Claims, "take", lambda *args, **kwargs: world.take(*args, **kwargs))
        patch.setattr(Claim, "release", lambda claim: world.release(claim))
        if isinstance(before, str):
            JUNK[before](Path(world.home.subdirectory("claims"), KEY))
        else:
            for number, name in enumerate([KEY, f"{KEY}+d0"][:before]):
                write(world.home, name, owner(f"d{number}", pid=0))
        world.run(turns(seed))
        assert not world.errors
        check_the_end(world, patch)


def check_the_end(world: World, patch: pytest.MonkeyPatch) -> None:
    """Nobody lives any more: the key can be claimed, unless by one that cannot be proven gone."""
    patch.setattr(Claims, "take", PLAIN_TAKE)
    patch.setattr(Claim, "release", PLAIN_RELEASE)
    claims = Claims(world.home)
    holder = claims.holder(KEY)
    if holder is not None and holder.state() == "unknown":
        assert claims.take(KEY, "end") == holder
        return
    take(claims).release()
    assert claims.holder(KEY) is None
    claims.sweep()
    assert [name for name in files(world.home) if not name.startswith(".tmp-")] == []


# ------------------------------------------------------------------ many processes

TAKE = """
import sys
from callyard.cache.claims import Claim, Claims
from callyard.cache.directory import CacheDirectory
claims = Claims(CacheDirectory.open(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
found = claims.take(sys.argv[2], "relax")
print("mine" if isinstance(found, Claim) else found.pid, flush=True)
import signal
signal.pause()
"""


def race(home: CacheDirectory, count: int) -> tuple[list[subprocess.Popen[bytes]], list[str]]:
    """Start processes that all try to take the key at the same moment; return them and what they got."""
    start, go = os.pipe()  # all of them start when its other end is closed
    command = [sys.executable, "-c", TAKE, home.path, KEY]
    processes = [subprocess.Popen(command, stdin=start, stdout=-1) for _ in range(count)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    os.close(go)
    os.close(start)
    return processes, [process.stdout.readline().decode().strip() for process in processes if process.stdout]


def kill(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def test_a_killed_owner_has_exactly_one_successor(claims: Claims, home: CacheDirectory) -> None:
    for generation in range(4):
        processes, found = race(home, 4)
        (winner,) = [process for process, text in zip(processes, found, strict=True) if text == "mine"]
        assert sorted(found) == sorted(["mine", *[str(winner.pid)] * 3])
        holder = claims.holder(KEY)
        assert holder is not None
        assert (holder.pid, holder.state()) == (winner.pid, "alive")
        kill(processes)
        assert holder.state() == "gone"
        assert len(files(home)) == generation + 1
    take(claims).release()
    assert not files(home)


HAMMER = """
import fcntl, os, random, signal, sys
from callyard.cache.claims import Claim, Claims
from callyard.cache.directory import CacheDirectory
dice = random.Random(int(sys.argv[2]))
claims, count = Claims(CacheDirectory.open(sys.argv[1])), 0
witness = os.open(os.path.join(sys.argv[1], "witness"), os.O_CREAT | os.O_RDWR)
link, unlink = os.link, os.unlink
def dying(call, chance):
    def called(*args):
        if dice.random() < chance: os.kill(os.getpid(), signal.SIGKILL)
        return call(*args)
    return called
os.link, os.unlink = dying(link, 0.01), dying(unlink, 0.02)
for _ in range(300):
    claim = claims.take("key", "hammer")
    if isinstance(claim, Claim):
        try:
            fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel gives it back when we are killed
        except BlockingIOError:
            print("two hold at once", flush=True)
        if dice.random() < 0.03: os.kill(os.getpid(), signal.SIGKILL)
        fcntl.flock(witness, fcntl.LOCK_UN)
        claim.release()
    elif dice.random() < 0.1:
        claims.sweep()
"""


def test_processes_that_are_killed_at_random(claims: Claims, home: CacheDirectory) -> None:
    for round_ in range(3):
        command = [sys.executable, "-c", HAMMER, home.path]
        processes = [subprocess.Popen([*command, str(10 * round_ + n)], stdout=-1, stderr=-1) for n in range(4)]
        for process in processes:
            assert process.communicate() == (b"", b"")
            assert process.returncode in (0, -signal.SIGKILL)
    take(claims, "key").release()
    claims.sweep()
    home.sweep()
    assert not files(home)


# ------------------------------------------------------------------ what goes wrong


JUNK: dict[str, Callable[[Path], object]] = {
    "empty": Path.touch,
    "zeros": lambda path: path.write_bytes(bytes(300)),
    "half": lambda path: path.write_text('{"host": "vm", "mach'),
    "noise": lambda path: path.write_bytes(os.urandom(1 << 18)),
    "array": lambda path: path.write_text("[1]"),
    "nested": lambda path: path.write_text("[" * 60000),
    "object": lambda path: path.write_text('{"host": "a"}'),
    "directory": Path.mkdir,
    "full directory": lambda path: (path / "x").mkdir(parents=True),
    "pipe": lambda path: os.mkfifo(path),
    "dangling link": lambda path: path.symlink_to("/nonexistent"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to a file": lambda path: path.symlink_to("/etc/passwd"),
    **{
        f"{name}={value!r}": lambda path, name=name, value=value: path.write_text(
            json.dumps({**vars(owner("a1")), name: value})
        )
        for name, value in [
            ("pid", "1"), ("pid", 1.5), ("pid", -1), ("pid", True), ("start", None), ("start", math.inf),
            ("since", "x"),
            ("since", math.nan), ("since", 1e300), ("since", -1), ("token", "../a"), ("token", ""), ("token", 1),
            ("host", 1), ("host", "a~b"), ("name", []), ("job_id", 7), ("boot", None),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("junk", JUNK)
def test_what_is_no_claim_has_exactly_one_successor(claims: Claims, home: CacheDirectory, junk: str) -> None:
    path = Path(home.subdirectory("claims"), KEY)
    JUNK[junk](path)
    found = claims.holder(KEY)
    assert isinstance(found, UnreadableClaim)
    assert found.state() == "gone"
    assert found.where().startswith(f"somebody whose claim {path} cannot be read, since ")
    assert [key for key, _ in claims.running()] == [KEY]
    claim = take(claims)
    assert claims.take(KEY, "another") == claims.holder(KEY) == claim.owner
    claim.release()
    assert not files(home)
    assert claims.holder(KEY) is None


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("remove", [Claims.sweep, lambda claims: claims.force(KEY)], ids=["sweep", "force"])
def test_what_is_no_claim_can_be_removed(
    claims: Claims, home: CacheDirectory, junk: str, remove: Callable[[Claims], object]
) -> None:
    JUNK[junk](Path(home.subdirectory("claims"), KEY))
    JUNK[junk](Path(home.subdirectory("claims"), f"{KEY}+a1"))
    assert remove(claims)
    assert not files(home)


def test_several_that_are_no_claims_in_a_row(claims: Claims, home: CacheDirectory) -> None:
    Path(home.subdirectory("claims"), KEY).touch()
    first = claims.holder(KEY)
    assert first is not None
    Path(home.subdirectory("claims"), f"{KEY}+{first.token}").mkdir()
    claim = take(claims)
    assert len(files(home)) == 3
    claim.release()
    assert not files(home)


@pytest.mark.parametrize("tokens", [["a1"], ["a1", "b2"], ["a1", "b2", "c3"]])
def test_a_chain_that_leads_to_itself(claims: Claims, home: CacheDirectory, tokens: list[str]) -> None:
    for name, token in zip([KEY, *(f"{KEY}+{token}" for token in tokens)], [*tokens, tokens[0]], strict=True):
        write(home, name, dead(token))
    claim = take(claims)
    assert claims.holder(KEY) == claim.owner
    claim.release()
    assert not files(home)


@pytest.fixture
def signed(tmp_path: Path) -> None:
    """Only where files have attributes."""
    try:
        os.setxattr(tmp_path, "user.test", b"1")
    except (AttributeError, OSError):
        pytest.skip("the file system has no attributes")


@pytest.mark.usefixtures("signed")
def test_whose_claim_was_overwritten_may_live(
    claims: Claims, home: CacheDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = take(claims)
    Path(home.path, "claims", KEY).write_text("?")
    found = claims.take(KEY, "another")
    assert isinstance(found, UnreadableClaim)
    assert found.state() == "alive"
    assert claims.sweep() == 0
    claim.release()  # it does not know its own claim any more
    monkeypatch.setattr(process_identity, "_look", lambda pid, start: "gone")
    take(claims).release()
    assert not files(home)


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("text", [b"", b"?", b"\xff", b"a~b~c~d~e~f", b"a~b~c~d~1~1" * 20])
def test_an_attribute_that_names_nobody(claims: Claims, home: CacheDirectory, text: bytes) -> None:
    path = Path(home.subdirectory("claims"), KEY)
    path.touch()
    os.setxattr(path, "user.callyard.owner", text)
    take(claims).release()
    assert not files(home)


def test_a_claim_that_may_not_be_opened_holds(
    claims: Claims, home: CacheDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, KEY, dead("a1"))
    plain = os.open

    def refusing(path: str, *args: int) -> int:
        if path.endswith(KEY):
            raise PermissionError(errno.EACCES, "Permission denied")
        return plain(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        found = claims.take(KEY, "another")
        assert isinstance(found, UnreadableClaim)
        assert found.state() == "unknown"
        assert f"callyard retry --force {home.path} {KEY}" in found.awaited(KEY, home.path)
        assert claims.sweep() == 0
        assert claims.force(KEY)
    take(claims).release()


def test_a_claim_of_a_newer_version_may_say_more(claims: Claims, home: CacheDirectory) -> None:
    path = Path(home.subdirectory("claims"), KEY)
    path.write_text(json.dumps(vars(owner("a1")) | {"colour": "blue"}))
    assert claims.holder(KEY) == owner("a1")


def test_foreign_files_are_left_alone(claims: Claims, home: CacheDirectory) -> None:
    for name in (".nfs0001", "a b", "x~"):
        Path(home.subdirectory("claims"), name).touch()
    assert not list(claims.running())
    assert claims.sweep() == 0
    assert len(files(home)) == 3


def test_a_file_that_was_removed_elsewhere(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*args: object) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    claim = take(claims)
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", stale)
        assert claims.holder(KEY) is None
    claim.release()


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_what_the_system_cannot_do_is_no_answer(
    claims: Claims, home: CacheDirectory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Neither that nobody holds, nor that somebody does; and a claim that was just linked is taken back."""
    write(home, KEY, dead("a1"))
    plain, calls = os.open, itertools.count()

    def failing(path: str, *args: int) -> int:
        if path.endswith(KEY) and next(calls):
            raise OSError(number, os.strerror(number))
        return plain(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        with pytest.raises(OSError, match=os.strerror(number)):
            claims.take(KEY, "relax")
    assert files(home) == [KEY]


def test_a_full_disk_is_told(claims: Claims, home: CacheDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, content: len(content) // 2)
    with pytest.raises(OSError, match="No space left"):
        claims.take(KEY, "relax")
    assert not files(home)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links(
    claims: Claims, home: CacheDirectory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(CacheError, match="knows no hard links"):
        claims.take(KEY, "relax")
    assert not files(home)


def test_the_cache_is_deleted_meanwhile(claims: Claims, home: CacheDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = take(claims)
    os.unlink(f"{home.path}/claims/{KEY}")
    os.rmdir(f"{home.path}/claims")
    claim.release()
    link = os.link

    def deleted(source: str, target: str) -> None:
        monkeypatch.setattr(os, "link", link)
        os.unlink(source)
        os.rmdir(os.path.dirname(source))
        link(source, target)

    monkeypatch.setattr(os, "link", deleted)
    take(claims).release()
    assert not files(home)


def test_a_cache_that_is_only_read_is_not_claimed(claims: Claims, home: CacheDirectory) -> None:
    claim = take(claims)
    reader = Claims(CacheDirectory.open(home.path, writable=False))
    assert reader.holder(KEY) == claim.owner
    assert dict(reader.running()) == {KEY: claim.owner}
    for change in (lambda: reader.take("mine", "relax"), lambda: reader.force(KEY)):
        with pytest.raises(CacheError, match="is only read here"):
            change()
    assert files(home) == [KEY]


def test_claims_that_others_could_write(claims: Claims, home: CacheDirectory) -> None:
    os.chmod(home.subdirectory("claims"), 0o777)
    with pytest.raises(UnsafeCache, match="claims can be written by everybody"):
        claims.take(KEY, "relax")


# ------------------------------------------------------------------ the user's word, and words for the user


def test_force_forgets_all_claims_to_a_key(claims: Claims, home: CacheDirectory) -> None:
    write(home, KEY, dead("a1"))
    old, other = take(claims), take(claims, "other")
    assert claims.force(KEY)
    assert not claims.force(KEY)
    new = take(claims)
    old.release()
    assert dict(claims.running()) == {KEY: new.owner, "other": other.owner}


def test_sweeping_removes_the_claims_of_the_dead(claims: Claims, home: CacheDirectory) -> None:
    write(home, KEY, dead("a1"))
    write(home, f"{KEY}+a1", dead("b2"))
    write(home, "other", dead("c3"))
    write(home, "elsewhere", owner("d4", host="elsewhere"))
    mine = take(claims, "mine")
    assert claims.sweep() == 2
    assert claims.sweep() == 0
    assert files(home) == ["elsewhere", "mine"]
    mine.release()


def test_a_successor_may_be_faster_than_the_sweep(
    claims: Claims, home: CacheDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, KEY, dead("a1"))
    holder = Claims.holder
    taken = []

    def overtaken(claims: Claims, key: str) -> ClaimOwner | None:
        found = holder(claims, key)
        if not taken:
            taken.append(take(claims))
        return found

    monkeypatch.setattr(Claims, "holder", overtaken)
    assert claims.sweep() == 0
    assert claims.holder(KEY) == taken[0].owner


def test_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    today = time.mktime((2030, 5, 17, 12, 3, 4, 0, 0, -1))
    here = owner("a1", host="node7", pid=123, since=today)
    local = time.localtime
    monkeypatch.setattr(time, "localtime", lambda *args: local(*(args or (today,))))
    assert here.where() == "process 123 on node7, since 12:03:04"
    assert here.replace(job_id="17_4").where() == "job 17_4, process 123 on node7, since 12:03:04"
    assert here.replace(since=today - 86400).where() == "process 123 on node7, since 2030-05-16 12:03:04"


def test_the_state_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    states: Iterator[State] = iter(["alive", "gone"])
    monkeypatch.setattr(process_identity, "_look", lambda pid, start: next(states))
    if this_process().boot:
        other = owner("a1", pid=1)
        assert (other.state(), other.state()) == ("alive", "gone")
