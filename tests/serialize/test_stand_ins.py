"""Texts in pickles whose classes are not here."""

from __future__ import annotations

import pickle
from collections import OrderedDict

from callyard.jobs.batch import CallOutcome
from callyard.serialize.stand_ins import load_with_stand_ins


class Strange(Exception):
    """With state of all kinds."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.parts = OrderedDict(a=[{1}, Listed([2]), Keyed(b=3)])


class Listed(list[int]):
    pass


class Keyed(dict[str, int]):
    pass


def test_texts_and_containers() -> None:
    [stand_in, text, number] = load_with_stand_ins(pickle.dumps([Strange("no"), "Traceback", 3]))
    assert (text, number) == ("Traceback", 3)
    assert not isinstance(stand_in, Exception)


def test_the_traceback_of_an_error_that_cannot_be_opened() -> None:
    failure = pickle.dumps((Strange("no"), "Traceback of the worker")).replace(b"Strange", b"Missing")
    error, text = CallOutcome("failed", failure=failure).error()
    assert "its error cannot be opened here" in str(error)
    assert text == "Traceback of the worker"


def test_a_damaged_failure_has_no_traceback() -> None:
    assert CallOutcome("failed", failure=b"no pickle").error()[1] == ""
