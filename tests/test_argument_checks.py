"""Mistakes of somebody new: what each is answered with, at the call in which it was made."""

from __future__ import annotations

import functools
import inspect
import string
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given

from callyard import Cache, CallyardError, Executor, Local, ResourceError, Resources, Slurm, batched, item, keyed, unzip
from callyard.futures import Future
from callyard.resources import NAMES

MISTAKES: dict[str, tuple[Callable[[Executor], object], type[Exception], str]] = {}


def answered(error: type[Exception], message: str) -> Callable[[Callable[[Executor], object]], None]:
    def note(mistake: Callable[[Executor], object]) -> None:
        MISTAKES[f"{len(MISTAKES)}: {message}"] = mistake, error, message

    return note


def work(value: int, factor: int = 1) -> int:
    return value * factor


def anything(*args: object, **kwargs: object) -> dict[str, object]:
    return kwargs


slurm: Any = Slurm  # mypy would not let pass what is tested here
local: Any = Local
executor: Any = Executor

# ------------------------------------------------------------------ Executor

UNEXPECTED = "() got an unexpected keyword argument "
LIMIT = "; to limit what all calls take together, use max_workers= or Local"

for keyword, rest in {
    "cores": "resources go into resource_dict={'cores_per_rank': ...}" + LIMIT + "(cores=)",
    "memory": "resources go into resource_dict={'memory': ...}" + LIMIT + "(memory=)",
    "gpus": "resources go into resource_dict={'gpus_per_rank': ...}" + LIMIT + "(gpus=)",
    "mem": "resources go into resource_dict={'memory': ...}",
    "cores_per_rank": "resources go into resource_dict={'cores_per_rank': ...}",
    "partition": "resources go into resource_dict={'partition': ...}",
    "walltime": "it belongs to the backend, as backend=Slurm(walltime=...)",
    "max_worker": "did you mean 'max_workers'?",
    "n_jobs": "use max_workers=",
    "cache_dir": "use cache=",
    "mp_context": "workers are always fresh processes; leave it out",
}.items():
    answered(TypeError, f"Executor{UNEXPECTED}{keyword!r}: {rest}")(
        lambda ex, keyword=keyword: executor(**{keyword: 2})
    )

answered(TypeError, f"Executor{UNEXPECTED}'zzz'; it has max_workers, backend, cache")(lambda ex: executor(zzz=1))
answered(TypeError, "Executor() takes only max_workers by position; name the rest")(lambda ex: executor(2, "slurm"))
answered(TypeError, "max_workers must be an integer, not 'slurm'; if it is the backend, write backend='slurm'")(
    lambda ex: executor("slurm")
)
answered(TypeError, "max_workers must be an integer, not '4'")(lambda ex: executor("4"))
answered(TypeError, "max_workers must be an integer, not 2.0")(lambda ex: executor(2.0))
answered(TypeError, "max_workers must be an integer, not array([1, 2]); if it is the backend")(
    lambda ex: executor(np.array([1, 2]))
)
answered(ValueError, "max_workers must be greater than 0, not 0")(lambda ex: executor(np.int64(0)))
answered(TypeError, "initargs must be a tuple of arguments, as ('abc',), not 'abc'")(
    lambda ex: executor(initializer=print, initargs="abc")
)
answered(ResourceError, "unknown resource 'partion': did you mean 'partition'?")(
    lambda ex: executor(resource_dict={"partion": "x"})
)

# ------------------------------------------------------------------ backend=

NO_BACKEND = " is not a backend that this version knows"
for given_, rest in {
    "Slurm": ": did you mean 'slurm'?",
    "slrum": ": did you mean 'slurm'?",
    "LOCAL": ": did you mean 'local'?",
    "processes": ": did you mean 'local'?",
    "dask": ": pass the client's own executor, Client().get_executor()",
    "threads": ": pass concurrent.futures.ThreadPoolExecutor()",
    "zzz": "; use 'local', 'slurm', 'flux', 'pbs', 'lsf', 'gridengine', Local(...), Slurm(...) and their like",
}.items():
    answered(CallyardError, f"backend={given_!r}{NO_BACKEND}{rest}")(lambda ex, given_=given_: executor(backend=given_))


class Client:
    """As Dask's."""

    def get_executor(self) -> None: ...


answered(CallyardError, f"{NO_BACKEND}, but the class of another executor: call it, as ThreadPoolExecutor()")(
    lambda ex: executor(backend=ThreadPoolExecutor)
)
answered(CallyardError, f"{NO_BACKEND}, but it has an executor: pass what its get_executor() returns")(
    lambda ex: executor(backend=Client())
)
answered(CallyardError, f"{NO_BACKEND}; use 'local'")(lambda ex: executor(backend=3))

# ------------------------------------------------------------------ descriptions of backends

OF_CALLS = "it is a resource of calls, as Executor(backend=..., resource_dict="
answered(TypeError, f"Slurm{UNEXPECTED}'partion': did you mean 'partition'?")(lambda ex: slurm(partion="x"))
answered(TypeError, f"Slurm{UNEXPECTED}'wall_time': did you mean 'walltime'?")(lambda ex: slurm(wall_time=1))
answered(TypeError, f"Slurm{UNEXPECTED}'memory': {OF_CALLS}{{'memory': ...}})")(lambda ex: slurm(memory=1))
answered(TypeError, f"Slurm{UNEXPECTED}'cores': {OF_CALLS}{{'cores_per_rank': ...}})")(lambda ex: slurm(cores=1))
answered(TypeError, f"Slurm{UNEXPECTED}'cache': it belongs to the executor")(lambda ex: slurm(cache="x"))
answered(TypeError, f"Local{UNEXPECTED}'core': did you mean 'cores'?")(lambda ex: local(core=1))
answered(TypeError, f"Local{UNEXPECTED}'threads': {OF_CALLS}{{'cores_per_rank': ...}})")(lambda ex: local(threads=1))
answered(
    TypeError, f"Local{UNEXPECTED}'max_workers': it belongs to the executor, as Executor(backend=..., max_workers"
)(lambda ex: local(max_workers=2))
answered(TypeError, f"Cache{UNEXPECTED}'failure': did you mean 'failures'?")(lambda ex: Cache("x", failure=True))  # type: ignore[call-arg]
answered(ResourceError, "memory must be a positive number of GiB or a text as")(lambda ex: local(memory="4"))
answered(ResourceError, "walltime must be a positive number of seconds or a text as")(lambda ex: slurm(walltime="90"))
answered(ResourceError, "poll must be two numbers of seconds, the smaller first, not 5")(lambda ex: slurm(poll=5))
answered(ResourceError, "ports must be (lowest, highest) of a range of ports, not 80")(lambda ex: slurm(ports=80))
answered(ResourceError, "partition must be a string, not 3")(lambda ex: slurm(partition=3))
answered(ResourceError, "python must be a path, not 3")(lambda ex: slurm(python=3))
answered(ResourceError, "setup must be a string or several of them, not 3")(lambda ex: slurm(setup=3))
answered(ResourceError, "launcher must be a string or several of them, not [3]")(lambda ex: slurm(launcher=[3]))
answered(ResourceError, "detached must be True, False or None, not 'yes'")(lambda ex: slurm(detached="yes"))

# ------------------------------------------------------------------ submit, map, with_resources

MEANT = "if a resource of the call is meant, use resource_dict="
answered(TypeError, f"work{UNEXPECTED}'cores_per_rank': {MEANT}{{'cores_per_rank': ...}}")(
    lambda ex: ex.submit(work, 3, cores_per_rank=2)
)
answered(TypeError, f"work{UNEXPECTED}'ncores': {MEANT}{{'cores_per_rank': ...}}")(
    lambda ex: ex.submit(work, 3, ncores=2)
)
answered(TypeError, f"work{UNEXPECTED}'resource_dct': {MEANT}")(lambda ex: ex.submit(work, 3, resource_dct={}))
answered(TypeError, f"work{UNEXPECTED}'resources': {MEANT}")(lambda ex: ex.submit(work, 3, resources={}))
answered(TypeError, "submit() takes a function and its arguments, as submit(f, 3) for f(3); 9 is not callable")(
    lambda ex: ex.submit(work(3, 3))  # type: ignore[arg-type]
)
answered(TypeError, "'work' is not callable")(lambda ex: ex.submit("work"))  # type: ignore[arg-type]
answered(TypeError, "map() takes a function and iterables, as map(f, [3, 4]); 9 is not callable")(
    lambda ex: ex.map(work(3, 3), [1])  # type: ignore[arg-type]
)
answered(TypeError, f"map{UNEXPECTED}'memory': if the resource is meant, use with_resources(memory=...).map(...)")(
    lambda ex: ex.map(work, [1], memory=2)  # type: ignore[call-arg]
)
answered(TypeError, f"map{UNEXPECTED}'resource_dict': use with_resources(...).map(...)")(
    lambda ex: ex.map(work, [1], resource_dict={})  # type: ignore[call-arg]
)
answered(TypeError, f"map{UNEXPECTED}'chunk_size': did you mean 'chunksize'?")(
    lambda ex: ex.map(work, [1], chunk_size=2)  # type: ignore[call-arg]
)
answered(TypeError, "chunksize must be an integer, not '2'")(lambda ex: ex.map(work, [1], chunksize="2"))  # type: ignore[arg-type]
answered(TypeError, "timeout must be a number of seconds, not '2'")(lambda ex: ex.map(work, [1], timeout="2"))  # type: ignore[arg-type]
answered(TypeError, "takes resources by name, as with_resources(cores_per_rank=2); of a dict, with_resources(**")(
    lambda ex: ex.with_resources({"ranks": 2})  # type: ignore[arg-type]
)
answered(ResourceError, "unknown resource 'self'")(lambda ex: ex.with_resources(self=3))
answered(TypeError, "Future' is not its result: callyard.item(future, 0)")(
    lambda ex: ex.map(work, Future("Future"))  # type: ignore[arg-type]
)

# ------------------------------------------------------------------ the rest

answered(TypeError, "keyed() says something of a function: write @keyed(version=...) or @keyed(ignore=[...])")(
    lambda ex: keyed(work)  # type: ignore[call-arg]
)
answered(TypeError, f"keyed{UNEXPECTED}'versoin': did you mean 'version'?")(lambda ex: keyed(versoin=1))  # type: ignore[call-arg]
answered(TypeError, f"Cache.prune{UNEXPECTED}'older': did you mean 'older_than'?")(
    lambda ex: Cache.prune(None, older=1)  # type: ignore[call-arg, arg-type]
)
answered(TypeError, "item: 3 is not a future")(lambda ex: item(3, "a"))  # type: ignore[arg-type]
answered(TypeError, "unzip: n must be an integer, not '2'")(lambda ex: unzip(Future(), "2"))  # type: ignore[arg-type]
answered(ValueError, "unzip: n must be at least 0, not -1")(lambda ex: unzip(Future(), -1))
answered(TypeError, "batched: n must be an integer, not None")(lambda ex: batched([Future()], None))  # type: ignore[arg-type]
answered(TypeError, "batched: give it a list of futures, not the one <Future")(lambda ex: batched(Future("x"), 2))  # type: ignore[arg-type]


@pytest.fixture
def ex() -> Iterator[Executor]:
    with Executor(1) as executor:  # which starts nothing before it has a call
        yield executor


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_sentence_that_says_what_to_do(mistake: str, ex: Executor) -> None:
    make, error, message = MISTAKES[mistake]
    with pytest.raises(error) as caught:
        make(ex)
    said = str(caught.value)
    assert message in said
    assert "\n" not in said


def test_numbers_of_other_libraries_are_numbers() -> None:
    future: Future[list[int]] = Future()
    future.set_result([1, 2])
    assert [part.result() for part in unzip(future, np.int64(2))] == [1, 2]  # type: ignore[arg-type]
    assert batched([future], np.int8(1))[0].result() == ([1, 2],)  # type: ignore[arg-type]
    with Executor(1) as ex:
        assert list(ex.map(abs, [-1, 2], chunksize=np.int64(2), timeout=np.float32(60))) == [1, 2]


def test_a_long_thing_that_is_no_function_is_not_shown_whole(ex: Executor) -> None:
    with pytest.raises(TypeError) as caught:
        ex.submit(list(range(100_000)))  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


def test_functions_keep_their_parameters_that_are_named_as_resources_are() -> None:
    with Executor(1) as ex:
        assert ex.submit(anything, memory=3, resources={}).result() == {"memory": 3, "resources": {}}
        assert ex.submit(lambda cores: cores, cores=2).result() == 2
        assert ex.submit(lambda timeout=1: timeout, timeout=5, resource_dict={"priority": 1}).result() == 5


CONSTRUCTORS: list[Any] = [Executor, Resources, Local, Slurm, Cache, keyed]

PARAMETERS = {make: [name for name in inspect.signature(make).parameters if name != "others"] for make in CONSTRUCTORS}


def test_keywords_of_a_decorator_are_its_own() -> None:
    @functools.wraps(work)
    def patient(value: int, timeout: float = 0, **kwargs: int) -> tuple[float, int]:
        return timeout, work(value, **kwargs)

    with Executor(1) as ex:
        assert ex.submit(patient, 3, timeout=5, factor=2).result() == (5, 6)


def test_counts_of_other_libraries_are_counts() -> None:
    with Executor(np.int64(1), max_tasks_per_child=np.uint8(2)) as ex:
        assert ex.submit(work, 3).result() == 3


@given(st.sampled_from(CONSTRUCTORS), st.data())
def test_a_misspelt_parameter_of_a_constructor_is_answered_with_the_right_one(make: Any, data: st.DataObject) -> None:
    names = PARAMETERS[make]
    name = data.draw(st.sampled_from(names))
    at = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from(string.ascii_lowercase))
    wrong = data.draw(st.sampled_from([name[:at] + name[at + 1 :], name[:at] + letter + name[at:]]))
    assume(wrong.isidentifier() and wrong not in {*names, "cores"})
    with pytest.raises((TypeError, ResourceError), match=rf"did you mean .*\b{name}\b"):
        make(**{wrong: 1})


@pytest.mark.parametrize("make", CONSTRUCTORS)
def test_an_unknown_parameter_of_a_constructor_is_answered_with_more_than_that(make: Any) -> None:
    for wrong in {"zzz", *NAMES} - set(inspect.signature(make).parameters):
        with pytest.raises((TypeError, ResourceError), match=r"'[;:] "):
            make(**{wrong: 1})
