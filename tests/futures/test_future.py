"""The future: that it is one of the standard library, its states, and results that are opened late."""

from __future__ import annotations

import collections.abc
import concurrent.futures as standard
import gc
import pickle
import threading
import weakref
from concurrent.futures import CancelledError, InvalidStateError

import pytest
from future_states import Parcel, Thing, cancelled, done, failed

from callyard.errors import UnreadableCall
from callyard.futures import Future

# ------------------------------------------------------------------ states


def test_it_is_a_future_of_the_standard_library():
    assert isinstance(Future(), standard.Future)


def test_the_states_of_a_call_that_succeeds():
    future: Future = Future()
    assert (future.running(), future.done(), future.cancelled()) == (False, False, False)
    assert future.set_running_or_notify_cancel()
    assert (future.running(), future.done(), future.cancelled()) == (True, False, False)
    future.set_result(5)
    assert (future.running(), future.done(), future.cancelled()) == (False, True, False)
    assert future.result() == 5
    assert future.exception() is None


def test_the_states_of_a_call_that_fails():
    error = ValueError("no")
    future = failed(error)
    assert future.done()
    assert future.exception() is error
    with pytest.raises(ValueError, match="no") as caught:
        future.result()
    assert caught.value is error


def test_the_states_of_a_call_that_is_cancelled():
    future = cancelled()
    assert (future.running(), future.done(), future.cancelled()) == (False, True, True)
    assert future.cancel()
    assert not future.set_running_or_notify_cancel()
    for ask in (future.result, future.exception):
        with pytest.raises(CancelledError):
            ask()


def test_a_running_call_cannot_be_cancelled():
    future: Future = Future()
    future.set_running_or_notify_cancel()
    assert not future.cancel()
    assert future.running()


def test_a_call_that_runs_again_can_be_cancelled():
    future: Future = Future()
    future.set_running_or_notify_cancel()
    future.again()
    assert not future.running()
    assert future.cancel()


@pytest.mark.parametrize("future", [done(1), failed(ValueError()), cancelled()], ids=["done", "failed", "cancelled"])
def test_what_has_ended_stays_as_it_is(future):
    before = repr(future)
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    with pytest.raises(InvalidStateError):
        future.set_exception(KeyError())
    assert not future.finish(Parcel(1))
    assert not future.fail(Parcel(KeyError()))
    assert not future.fail_with(KeyError())
    future.again()
    assert future.cancel() is future.cancelled()
    assert repr(future) == before


def test_a_call_starts_only_once():
    future: Future = Future()
    future.set_running_or_notify_cancel()
    with pytest.raises(InvalidStateError):
        future.set_running_or_notify_cancel()


def test_cancelling_tells_the_executor_once():
    told: list[int] = []
    future: Future = Future("f", on_cancel=lambda: told.append(1))
    future.cancel()
    future.cancel()
    assert told == [1]


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_waiting_ends_at_the_timeout(ask):
    with pytest.raises(standard.TimeoutError):
        getattr(Future(), ask)(timeout=0)
    with pytest.raises(standard.TimeoutError, match=r"^'relax' has not ended after 0.001 s$"):
        getattr(Future("relax"), ask)(timeout=0.001)


def test_without_a_cache_or_a_scheduler_there_is_nothing_to_tell():
    assert (Future().key, Future().cached, Future().job_id) == (None, None, None)
    with pytest.raises(AttributeError):
        Future().key = "x"


@pytest.mark.parametrize(
    "take",
    [lambda f: f["a"], lambda f: f[0], list, lambda f: 3 in f, lambda f: print(*f)],
    ids=["key", "index", "list", "in", "star"],
)
def test_it_is_not_its_result(take):
    with pytest.raises(
        TypeError, match=r"'relax' is not its result: callyard.item\(future, .*callyard.unzip\(future, n"
    ):
        take(Future("relax"))


def test_it_does_not_look_like_a_collection():
    assert not isinstance(Future(), collections.abc.Iterable)
    assert not isinstance(Future(), collections.abc.Sized)


def test_it_cannot_be_pickled():
    with pytest.raises(TypeError, match="stands for its result"):
        pickle.dumps(Future())


def test_the_repr_tells_the_state():
    future: Future = Future("relax")
    assert repr(future) == f"<Future at {id(future):#x} 'relax' state=pending>"
    future.set_running_or_notify_cancel()
    assert repr(future).endswith("'relax' state=running>")
    future.finish(Parcel(5))
    assert repr(future).endswith("'relax' state=finished>")  # does not open it
    future.result()
    assert repr(future).endswith("state=finished returned int>")
    assert repr(cancelled()).endswith("state=cancelled>")
    assert repr(failed(KeyError())).endswith("state=finished raised KeyError>")
    packed: Future = Future()
    packed.fail(Parcel(KeyError()))
    assert repr(packed).endswith("state=finished raised>")
    packed.exception()
    assert repr(packed).endswith("state=finished raised KeyError>")


# ------------------------------------------------------------------ what is opened late


def test_a_result_is_opened_once_when_it_is_asked_for():
    parcel = Parcel(Thing())
    future: Future = Future()
    future.finish(parcel)
    assert future.done()
    assert not future.failed()
    assert parcel.opened == 0
    assert future.result() is future.result() is parcel.content
    assert parcel.opened == 1


def test_an_error_is_opened_once_when_it_is_asked_for():
    parcel = Parcel(KeyError())
    future: Future = Future()
    future.fail(parcel)
    assert future.failed()
    assert future.packed_failure() is parcel
    assert parcel.opened == 0
    assert future.exception() is future.exception() is parcel.content
    assert parcel.opened == 1
    assert future.packed_failure() is None


@pytest.mark.parametrize("how", ["finish", "fail"])
@pytest.mark.parametrize("failure", [RuntimeError("boom"), SystemExit("boom")], ids=["exception", "exit"])
def test_what_cannot_be_opened_is_an_error_with_its_cause(how, failure):
    future: Future = Future("relax")
    getattr(future, how)(Parcel(failure, fails=True))
    with pytest.raises(UnreadableCall, match="'relax' cannot be opened here: boom") as caught:
        future.result()
    assert caught.value.__cause__ is failure
    assert future.exception() is caught.value


def test_ctrl_c_while_it_is_opened_leaves_it_packed():
    parcel = Parcel(KeyboardInterrupt(), fails=True)
    future: Future = Future()
    future.finish(parcel)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    parcel.content, parcel.fails = 7, False
    assert future.result() == 7


def test_two_threads_that_open_it_get_the_same_object():
    both_there = threading.Barrier(2)

    class Slow:
        def load(self) -> object:
            both_there.wait(60)
            return Thing()

    future: Future = Future()
    future.finish(Slow())
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(future.result())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] is got[1] is future.result()


# ------------------------------------------------------------------ nothing is kept alive


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_callback_is_not_kept_after_it_ran():
    future: Future = Future()
    thing = Thing()
    future.add_done_callback(lambda f, thing=thing: None)
    alive = weakref.ref(thing)
    del thing
    future.set_result(1)
    assert alive() is None


@pytest.mark.usefixtures("no_collector")
def test_what_was_packed_is_not_kept_after_it_was_opened():
    future: Future = Future()
    parcel = Parcel(1)
    future.finish(parcel)
    alive = weakref.ref(parcel)
    del parcel
    future.result()
    assert alive() is None


@pytest.mark.usefixtures("no_collector")
def test_cancelling_lets_go_of_the_executor():
    thing = Thing()
    future: Future = Future("f", on_cancel=lambda thing=thing: None)
    alive = weakref.ref(thing)
    del thing
    future.cancel()
    assert alive() is None


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("make", [lambda: failed(ValueError()), cancelled, Future], ids=["failed", "cancelled", "open"])
def test_an_error_that_was_raised_does_not_keep_the_future(make):
    future = make()
    alive = weakref.ref(future)
    with pytest.raises((ValueError, CancelledError, standard.TimeoutError)) as caught:
        future.result(timeout=0)
    del future
    assert caught.value is not None
    assert alive() is None
