"""The note with the path of a failure: made longer, cut, and told from other notes."""

from __future__ import annotations

from callyard.dependencies.failure_path import add_path, path_of

LEFT_OUT = "callyard: left out, as it cannot be pickled: lock"


def noted(*notes: str) -> ValueError:
    error = ValueError()
    error.__notes__ = list(notes)  # type: ignore[attr-defined]  # until Python 3.10 an attribute as any other
    return error


def notes(error: BaseException) -> list[str]:
    return list(error.__notes__)  # type: ignore[attr-defined]


def test_a_path_that_was_noted_goes_on() -> None:
    error = noted("callyard: energy <- relax")
    add_path(error, ["optimise", "energy"])
    assert path_of(error) == ["optimise", "energy", "relax"]
    add_path(error, ["optimise", "energy"])
    assert notes(error) == ["callyard: optimise <- energy <- relax"], "once, however often it is told"


def test_a_failure_within_a_call_has_a_path_of_its_own() -> None:
    error = noted("callyard: energy <- relax")
    add_path(error, ["optimise", "study"])
    assert notes(error) == ["callyard: optimise <- study <- energy <- relax"]


def test_other_notes_stay() -> None:
    error = noted("mine <- yours", LEFT_OUT)
    assert path_of(error) == []
    add_path(error, ["b", "a"])
    assert notes(error) == ["mine <- yours", LEFT_OUT, "callyard: b <- a"]


def test_a_long_path_is_cut_again_and_again() -> None:
    error = ValueError()
    for number in range(40):
        add_path(error, [f"f{number + 1}", f"f{number}"])
    path = path_of(error)
    assert len(path) == 13
    assert (path[0], path[6], path[-1]) == ("f40", "...", "f0")
