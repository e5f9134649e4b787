"""The graph of a run's calls: its nodes, its places, and its forms."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_runs import HOSTILE, Simulation

from callyard import Executor
from callyard.errors import CallyardError
from callyard.events.call_record import CallRecord, RunRecord
from callyard.report.call_graph import MOST_FUNCTIONS
from callyard.report.graph import graph_of
from callyard.report.layout import laid_out

_edges = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=40)


def test_a_small_graph_shows_calls() -> None:
    graph = graph_of(Simulation(8).record())
    assert [node.name for node in graph.nodes.values()] == ["relax", "energy", "phonons", "fit"] * 2
    assert set(graph.edges) == {(0, 1), (0, 2), (1, 3), (2, 3), (4, 5), (4, 6), (5, 7), (6, 7)}
    assert repr(graph) == "<Graph of 8 calls: 8 nodes, 8 edges>"


def test_a_large_graph_shows_functions() -> None:
    graph = graph_of(Simulation(10_000).record())
    assert [node.name for node in graph.nodes.values()] == ["relax", "energy", "phonons", "fit"]
    assert graph.edges == {(0, 1): 2500, (0, 2): 2500, (1, 3): 2500, (2, 3): 2500}
    assert graph.nodes[2].state == "failed"


def test_more_functions_than_can_be_seen_are_one_node() -> None:
    calls = [CallRecord(i, f"f{i % 300}", 0.0, inputs=(i - 1,) if i else ()) for i in range(600)]
    graph = graph_of(RunRecord(None, None, {call.number: call for call in calls}))
    assert len(graph.nodes) == MOST_FUNCTIONS
    assert graph.nodes[MOST_FUNCTIONS - 1].name == "201 other functions"
    assert sum(node.calls for node in graph.nodes.values()) == 600
    assert sum(graph.edges.values()) == 599
    ET.fromstring(graph.svg())


def test_names_with_characters_that_cannot_be_drawn() -> None:
    graph = graph_of(RunRecord(None, None, {0: CallRecord(0, "\x1b[31mred\udcff\x00 \n", 0.0)}))
    assert graph.nodes[0].name == "\ufffd[31mred\ufffd\ufffd \n"
    ET.fromstring(graph.svg())


def test_mermaid() -> None:
    calls = {0: CallRecord(0, "relax", 0.0, "finished"), 1: CallRecord(1, 'f["<b>#&', 0.0, inputs=(0,))}
    assert str(graph_of(RunRecord(None, None, calls))) == (
        "flowchart LR\n"
        '    n0["relax ✓ finished"]:::finished\n'
        '    n1["f#91;#34;#60;b#62;#35;#38; ○ waiting"]:::waiting\n'
        "    n0 --> n1\n"
        "    classDef finished stroke:#2f6fb7,stroke-width:3px\n"
        "    classDef waiting stroke:#666c75,stroke-width:3px\n"
    )


@pytest.mark.parametrize("calls", [0, 1, 40, 400])
def test_svg_is_xml_whatever_the_names(calls: int) -> None:
    graph = graph_of(Simulation(calls, hostile=True).record())
    root = ET.fromstring(graph.svg())
    texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(texts) == 1 + len(graph.nodes) + len(graph.edges)
    assert calls < 2 or any(text.startswith(HOSTILE) for text in texts)
    assert graph._repr_svg_() == graph.svg()


@pytest.mark.wide
@pytest.mark.needs("matplotlib")
@pytest.mark.leaves("matplotlib keeps the files of fonts open")
def test_png() -> None:
    for calls in (0, 12, 400):
        assert graph_of(Simulation(calls, hostile=True).record()).png().startswith(b"\x89PNG")
    assert graph_of(RunRecord(None, None, {0: CallRecord(0, "$x_{", 0.0)})).png()  # no formula


def test_graphs_are_saved_for_the_user_alone(tmp_path: Path) -> None:
    graph = graph_of(Simulation(8).record())
    for name in ("g.svg", "g.mmd", "g.SVG"):
        graph.save(tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "g.mmd").read_text(encoding="utf-8") == graph.mermaid()
    with pytest.raises(CallyardError, match=r"\.svg, \.png or \.mmd \(Mermaid\), not as 'g\.jpg'"):
        graph.save("g.jpg")


@given(_edges)
def test_boxes_do_not_overlap_and_edges_go_on(edges: list[tuple[int, int]]) -> None:
    widths = {node: 50.0 + node for node in range(13)}
    layout = laid_out(widths, edges, 40.0)
    boxes = list(layout.boxes.items())
    for place, (node, (x, y)) in enumerate(boxes):
        assert 0 <= x <= x + widths[node] <= layout.width
        assert -1e-6 <= y - 20 <= y + 20 <= layout.height + 1e-6
        for other, (left, middle) in boxes[:place]:
            apart = left + widths[other] <= x or x + widths[node] <= left or abs(middle - y) >= 40.0 - 1e-6
            assert apart, (node, other)
    assert set(layout.routes) == {edge for edge in edges if edge[0] != edge[1]}
    forward = [edge for edge in edges if edge[0] < edge[1]]
    for (first, last), points in laid_out(widths, forward, 40.0).routes.items():  # without cycles
        assert [x for x, _ in points] == sorted(x for x, _ in points), (first, last)


def test_a_long_chain_needs_no_recursion() -> None:
    layout = laid_out(dict.fromkeys(range(3000), 10.0), [(i, i + 1) for i in range(2999)], 10.0)
    assert len({y for _, y in layout.boxes.values()}) == 1


def test_what_only_looks_like_markup_in_mermaid_is_text() -> None:
    text = graph_of(Simulation(8, hostile=True).record()).mermaid()
    assert not re.search(r"<(?!br>)", text)


def test_a_plan_is_drawn_as_a_run(results: Path) -> None:
    with Executor(1, cache=results) as ex:
        ex.submit(abs, -1).result()
    with Executor(1, cache=results, dry_run=True) as planning:
        known = planning.submit(abs, -1)
        new = planning.submit(abs, -2)
        planning.submit(max, known, new)
        graph = planning.graph()
    assert [(node.name, node.state) for node in graph.nodes.values()] == [
        ("abs", "cached"),
        ("abs", "planned"),
        ("max", "planned"),
    ]
    assert set(graph.edges) == {(0, 2), (1, 2)}
    assert "◇ to compute" in graph.svg()
