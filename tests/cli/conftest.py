"""A cache with calls in it, and the command line over it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from callyard import Cache
from callyard.cache.format.record_writer import Record, write
from callyard.cli import main

BEGAN = 1_700_000_000.0


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CALLYARD_CACHE", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def cache() -> Cache:
    return Cache("results")


@pytest.fixture
def store(cache) -> Callable[..., str]:
    """Store a call as the process that ran it does."""

    def store(number: int, output: object = 42, **others: object) -> str:
        key = str(others.pop("key", f"{number:08x}" + "0" * 32))
        fields = {"name": "relax", "state": "finished", "token": "", "args": (number,), "kwargs": {"force": 0.1}}
        facts = {"host": "node1", "ingredients": {"argument x": f"7f {number}"}}
        record = Record(key=key, output=output, **(fields | {"facts": facts, "created": BEGAN + number} | others))
        cache._directory.publish(key, lambda descriptor: write(descriptor, record))
        os.utime(cache._directory.record(key), (BEGAN + number, BEGAN + number))
        return key

    return store


@pytest.fixture
def callyard(capsys) -> Callable[..., Ended]:
    """Run a command in this process."""

    def run(*words: str) -> Ended:
        capsys.readouterr()
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
        return Ended(status, *capsys.readouterr())

    return run
