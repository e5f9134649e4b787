"""What a cluster's nodes have, from what `sinfo` prints."""

from __future__ import annotations

from callyard.schedulers.slurm.nodes import NodeGroup, failed, groups, nodes, states

MIB = 1 << 20
SAID = """\
main|main*|4|64|256000|gpu:a100:4(S:0-1),nvme:2
main|main*|2|64|512000|(null)
debug|debug|1|8|16000+|gpu:2,gpu:h100:1
slurm_load error
"""


def test_those_of_the_default_partition() -> None:
    assert groups(SAID, None) == [NodeGroup(4, 64, 256000 * MIB, 4), NodeGroup(2, 64, 512000 * MIB, 0)]
    assert "--partition=" not in " ".join(nodes(None))


def test_those_of_a_partition() -> None:
    assert nodes("debug")[:2] == ["sinfo", "--noheader"]
    assert "--partition=debug" in nodes("debug")
    line = SAID.splitlines()[2]
    assert groups(line, "debug") == [NodeGroup(1, 8, 16000 * MIB, 3)]


def test_nothing_is_known_where_nobody_says() -> None:
    assert groups("sinfo: error: Unable to contact slurm controller", None) == []


def test_the_nodes_that_have_failed() -> None:
    assert states("n[1-4]")[:2] == ["sinfo", "--noheader"]
    assert "--nodes=n[1-4]" in states("n[1-4]")
    assert failed("n1|idle\nN2|down*\nn3|drained\nn4|mixed\nN2|down*\n") == ["N2"]
    assert failed("n1|allocated*\nn2|idle\n") == ["n1"], "it does not answer"
    assert failed("n1|idle\nn3|draining\n") == ["n3"], "for want of a surer sign"
    assert failed("n1|idle\nn2|planned\n") == []
    assert failed("slurm_load error\n") == []
