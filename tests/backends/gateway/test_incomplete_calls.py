"""Calls that wait for contents or inputs on the side of the gateway: each goes on once, and after its inputs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from callyard.backends.gateway.incomplete_calls import IncompleteCalls
from callyard.backends.gateway.protocol import ContentName, SentCall, SentInput


def call(*inputs: int) -> SentCall:
    return SentCall("call", None, None, 0, (), [SentInput(number) for number in inputs], ())


def content(number: int) -> ContentName:
    return ContentName(False, f"{number}-0")


def test_a_call_waits_for_its_contents_alone() -> None:
    waiting = IncompleteCalls()
    assert waiting.add(1, call(), [content(1), content(2)])
    assert not waiting.add(2, call(), [])
    assert waiting.add(3, call(1), [])  # its input is not submitted yet
    assert list(waiting.arrived(content(1))) == []
    assert waiting.that_need(content(2)) == [1]
    assert [number for number, _ in waiting.arrived(content(2))] == [1, 3]
    assert len(waiting) == 0


def test_a_dropped_call_frees_those_behind_it() -> None:
    waiting = IncompleteCalls()
    waiting.add(1, call(), [content(1)])
    waiting.add(2, call(1), [])
    waiting.add(3, call(2), [content(1)])
    assert [number for number, _ in waiting.drop(1)] == [2]
    assert list(waiting.drop(1)) == []
    assert [number for number, _ in waiting.arrived(content(1))] == [3]
    waiting.add(4, call(), [content(1)])
    assert waiting.clear() == [4]
    assert waiting.that_need(content(1)) == []


def test_a_long_chain_needs_no_deep_stack() -> None:
    waiting = IncompleteCalls()
    waiting.add(1, call(), [content(1)])
    for number in range(2, 5000):
        waiting.add(number, call(number - 1), [])
    assert [number for number, _ in waiting.arrived(content(1))] == list(range(1, 5000))


@given(data=st.data())
def test_each_call_goes_on_once_and_after_its_inputs(data: st.DataObject) -> None:
    waiting, gone, dropped = IncompleteCalls(), list[int](), set[int]()
    inputs: dict[int, set[int]] = {}
    arrived: set[int] = set()
    for number in range(1, data.draw(st.integers(1, 12)) + 1):
        inputs[number] = data.draw(st.sets(st.integers(1, number - 1), max_size=3)) if number > 1 else set()
        absent = data.draw(st.sets(st.integers(0, 4), max_size=3)) - arrived
        if not waiting.add(number, call(*inputs[number]), map(content, absent)):
            gone.append(number)
        for _ in range(data.draw(st.integers(0, 1))):
            if data.draw(st.booleans()):
                arrived.add(which := data.draw(st.integers(0, 4)))
                gone += [each for each, _ in waiting.arrived(content(which))]
            elif (which := data.draw(st.integers(1, number))) not in gone:
                dropped.add(which)
                gone += [each for each, _ in waiting.drop(which)]
    for which in range(5):
        gone += [each for each, _ in waiting.arrived(content(which))]
    assert len(waiting) == 0
    assert sorted(gone) == sorted(inputs.keys() - dropped)
    for number in gone:
        assert all(gone.index(each) < gone.index(number) for each in inputs[number] - dropped)
