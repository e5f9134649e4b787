"""The variables of ranks: what they are, whose they are, and that the port of rank 0 can be had by whoever wants it."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given

from callyard.worker import rank_variables
from callyard.worker.rank_variables import RankAddress, set_variables, variables

NODES = st.lists(st.sampled_from("abc"), min_size=1, max_size=8)


@pytest.fixture
def held_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let rank 0 be this process for a while."""
    port = rank_variables._Port()
    monkeypatch.setattr(rank_variables, "_port", port)
    yield
    os.close(port.descriptor)


class World:
    """A communicator of ranks whose addresses are known, but for that of this rank."""

    def __init__(self, rank: int, addresses: Sequence[RankAddress]) -> None:
        self.rank, self._addresses = rank, list(addresses)

    def allgather(self, own: RankAddress) -> list[RankAddress]:
        return [*self._addresses[: self.rank], own, *self._addresses[self.rank + 1 :]]


@given(NODES)
def test_each_rank_has_its_place(nodes: list[str]) -> None:
    addresses = [RankAddress(node, f"host-{node}", 4711 if rank == 0 else 0) for rank, node in enumerate(nodes)]
    said = [variables(rank, addresses) for rank in range(len(nodes))]
    assert [each["RANK"] for each in said] == [str(rank) for rank in range(len(nodes))]
    assert {(each["WORLD_SIZE"], each["MASTER_PORT"]) for each in said} == {(str(len(nodes)), "4711")}
    assert {each["MASTER_ADDR"] for each in said} == {f"host-{nodes[0]}" if len(set(nodes)) > 1 else "127.0.0.1"}
    for node, size in Counter(nodes).items():
        there = [each for each, its in zip(said, nodes, strict=True) if its == node]
        assert [each["LOCAL_RANK"] for each in there] == [str(number) for number in range(size)]
        assert {each["LOCAL_WORLD_SIZE"] for each in there} == {str(size)}


def test_what_the_user_has_set_stays_and_what_another_call_has_set_does_not() -> None:
    first = RankAddress("n", "n", 4711)
    environ = {"MASTER_PORT": "29500", "HOME": "/"}
    set_variables(World(1, [first] * 2), environ)
    assert environ["MASTER_PORT"] == "29500"
    assert (environ["RANK"], environ["WORLD_SIZE"], environ["HOME"]) == ("1", "2", "/")
    set_variables(World(2, [first] * 3), environ)  # in the ranks of a call that this rank makes
    assert (environ["RANK"], environ["WORLD_SIZE"], environ["MASTER_PORT"]) == ("2", "3", "29500")


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_the_port_is_free_for_a_server_and_for_nobody_else(address: str, held_port: None) -> None:
    environ: dict[str, str] = {}
    set_variables(World(0, [RankAddress("n", "n")]), environ)
    port = int(environ["MASTER_PORT"])
    with pytest.raises(OSError, match="in use"), socket.socket() as stranger:
        stranger.bind(("", port))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    both = {"dualstack_ipv6": True} if family == socket.AF_INET6 else {}
    with socket.create_server((address, port), family=family, **both):
        socket.create_connection((environ["MASTER_ADDR"], port)).close()
