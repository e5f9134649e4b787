"""Futures derived from futures: parts of a result, and batches."""

from __future__ import annotations

import concurrent.futures as standard

import hypothesis.strategies as st
import pytest
from future_states import Parcel, done, race
from hypothesis import given

from callyard.errors import UnreadableCall
from callyard.futures import Future, batched, item, unzip

# ------------------------------------------------------------------ parts


def test_item_is_the_part_of_a_result():
    source: Future = Future("fit")
    part, missing = item(source, "a"), item(source, "b")
    assert not part.done()
    assert part.name == "fit['a']"
    source.finish(Parcel({"a": 1}))
    assert part.result() == 1
    with pytest.raises(KeyError, match="b"):
        missing.result()


@pytest.mark.parametrize("make", [Future, standard.Future])
def test_parts_end_as_their_source_does(make):
    error = ValueError()
    good, bad, lost = make(), make(), make()
    parts = [item(source, 0) for source in (good, bad, lost)]
    good.set_result([1])
    bad.set_exception(error)
    lost.cancel()
    assert parts[0].result() == 1
    assert parts[1].exception() is error
    assert parts[2].cancelled()


def test_a_part_does_not_open_its_source():
    parcel = Parcel([1])
    source: Future = Future()
    source.finish(parcel)
    part = item(source, 0)
    assert part.done()
    assert parcel.opened == 0


def test_a_part_of_a_packed_error_shares_the_packed_error():
    parcel = Parcel(ValueError("x"))
    source: Future = Future()
    part = item(source, 0)
    source.fail(parcel)
    assert parcel.opened == 0
    assert part.exception() is parcel.content


def test_to_cancel_a_part_does_not_cancel_the_whole():
    source: Future = Future()
    part, other = unzip(source, 2)
    assert part.cancel()
    source.set_result((1, 2))
    assert part.cancelled()
    assert other.result() == 2


def test_unzip_wants_the_very_number():
    source = done((1, 2, 3))
    assert [part.result() for part in unzip(source, 3)] == [1, 2, 3]
    for part in unzip(source, 2):
        with pytest.raises(ValueError, match="expected 2 values, the result has 3"):
            part.result()
    assert unzip(source, 0) == []


def test_a_part_of_what_cannot_be_opened_says_so():
    source: Future = Future("relax")
    source.finish(Parcel(RuntimeError("boom"), fails=True))
    with pytest.raises(UnreadableCall, match="'relax'"):
        item(source, 0).result()


def test_a_part_of_a_part():
    assert item(item(done([[1, 2]]), 0), 1).result() == 2


# ------------------------------------------------------------------ batches


@given(st.permutations(range(7)), st.integers(1, 8))
def test_batches_are_filled_in_the_order_of_finishing(order, n):
    sources: list[Future] = [Future() for _ in order]
    batches = batched(sources, n)
    for count, i in enumerate(order, 1):
        sources[i].finish(Parcel(i))
        assert [batch.done() for batch in batches] == [
            count >= min((k + 1) * n, len(order)) for k in range(len(batches))
        ]
    flat = [batch.result() for batch in batches]
    assert flat == [tuple(order[k : k + n]) for k in range(0, len(order), n)]


def test_batches_take_futures_of_others_and_what_is_done_already():
    other: standard.Future = standard.Future()
    [batch] = batched(iter([done(1), other]), 2)
    assert not batch.done()
    other.set_result(2)
    assert batch.result() == (1, 2)


def test_a_failure_fails_the_batch_into_which_it_falls():
    sources: list[Future] = [Future() for _ in range(4)]
    first, second = batched(sources, 2)
    error = ValueError()
    sources[3].set_result(3)
    sources[0].set_exception(error)
    assert first.exception() is error
    sources[1].cancel()
    assert second.cancelled()
    sources[2].set_result(2)
    assert second.cancelled()


def test_a_batch_is_at_least_one():
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        batched([], 0)
    assert batched([], 3) == []


@pytest.mark.usefixtures("eager_switching")
def test_batches_of_futures_that_end_in_many_threads():
    for _ in range(20):
        sources: list[Future] = [Future() for _ in range(30)]
        batches = batched(sources, 4)
        race(*(lambda fs=sources[k::3]: [f.finish(Parcel(1)) for f in fs] for k in range(3)))
        assert [len(batch.result(timeout=60)) for batch in batches] == [4] * 7 + [2]
