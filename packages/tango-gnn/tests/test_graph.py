import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tango_gnn import Graph
from tenfold import SettingError


@st.composite
def edge_lists(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    sources, destinations = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    edge = st.tuples(st.integers(0, sources - 1), st.integers(0, destinations - 1))
    edges = torch.tensor(draw(st.lists(edge, max_size=20)), dtype=torch.int64).reshape(-1, 2)
    return edges[:, 0], edges[:, 1], sources, destinations


def dense(graph: Graph) -> np.ndarray:
    counts = np.zeros((graph.destinations, graph.sources), dtype=int)
    for row in range(graph.destinations):
        for entry in range(graph.indptr[row], graph.indptr[row + 1]):
            counts[row, graph.indices[entry]] += 1
    return counts


@given(edges=edge_lists())
@settings(max_examples=100, deadline=None)
def test_a_graph_holds_the_edges_it_was_made_of(edges: tuple[torch.Tensor, torch.Tensor, int, int]) -> None:
    sources, destinations, source_nodes, destination_nodes = edges
    graph = Graph.from_edges(sources, destinations, (source_nodes, destination_nodes))
    expected = np.zeros((destination_nodes, source_nodes), dtype=int)
    np.add.at(expected, (destinations.numpy(), sources.numpy()), 1)
    np.testing.assert_array_equal(dense(graph), expected)
    np.testing.assert_array_equal(graph.in_degrees, expected.sum(1))
    np.testing.assert_array_equal(graph.out_degrees, expected.sum(0))
    assert graph.has_zero_in_degree == bool((expected.sum(1) == 0).any())
    assert torch.equal(graph.given(graph.indices.long()), sources)
    assert torch.equal(graph.given(graph.destination_of_edge.long()), destinations)
    assert torch.equal(graph.canonical(sources), graph.indices.long())


@given(edges=edge_lists())
@settings(max_examples=100, deadline=None)
def test_the_reversed_graph_names_each_edge_once(
    edges: tuple[torch.Tensor, torch.Tensor, int, int],
) -> None:
    sources, destinations, *nodes = edges
    graph = Graph.from_edges(sources, destinations, (nodes[0], nodes[1]))
    rows = torch.arange(graph.sources).repeat_interleave(graph.reversed_indptr.diff().long())
    assert torch.equal(rows, graph.indices[graph.edge_ids.long()].long())
    assert torch.equal(graph.reversed_indices, graph.destination_of_edge[graph.edge_ids.long()])
    assert torch.equal(graph.edge_ids.sort().values.long(), torch.arange(graph.edges))


def test_self_loops_are_added_and_removed_once_and_remembered() -> None:
    graph = Graph.from_edges(torch.tensor([0, 1, 2, 2]), torch.tensor([1, 1, 0, 2]))
    looped = graph.add_self_loops()
    np.testing.assert_array_equal(dense(looped), dense(graph) + np.eye(3, dtype=int))
    assert graph.add_self_loops() is looped
    assert looped.given(looped.indices.long()).tolist() == [0, 1, 2, 2, 0, 1, 2]
    bare = looped.remove_self_loops()
    np.testing.assert_array_equal(dense(bare), [[0, 0, 1], [1, 0, 0], [0, 0, 0]])
    assert looped.remove_self_loops() is bare


def test_self_loops_need_one_set_of_nodes() -> None:
    graph = Graph.from_edges(torch.tensor([0]), torch.tensor([0]), (2, 1))
    with pytest.raises(SettingError, match="self-loops between 2 sources and 1 destinations"):
        graph.add_self_loops()


def test_an_unsorted_csr_with_double_edges_is_a_graph() -> None:
    graph = Graph(torch.tensor([0, 3, 3]), torch.tensor([1, 0, 1]))
    np.testing.assert_array_equal(dense(graph), [[1, 2], [0, 0]])
    values = torch.arange(3)
    assert graph.given(values) is values
    assert graph.canonical(values) is values


def test_powers_of_degrees_are_computed_once() -> None:
    graph = Graph(torch.tensor([0, 4, 4]), torch.tensor([1, 0, 1, 1]))
    assert graph.degree_power("in", -0.5).tolist() == [0.5, 1.0]
    assert graph.degree_power("out", -1.0).tolist() == pytest.approx([1.0, 1 / 3])
    assert graph.degree_power("in", -0.5) is graph.degree_power("in", -0.5)


def test_sources_are_split_by_the_types_of_their_edges() -> None:
    sources, destinations = torch.tensor([0, 0, 1, 0]), torch.tensor([0, 1, 1, 1])
    types = torch.tensor([1, 0, 1, 0])
    graph = Graph.from_edges(sources, destinations)
    pairs, nodes, pair_types = graph.split_sources(types)
    assert list(zip(nodes.tolist(), pair_types.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1)]
    ends = pairs.given(pairs.indices.long())
    assert torch.equal(nodes[ends], sources)
    assert torch.equal(pair_types[ends], types)
    assert graph.split_sources(types)[0] is pairs
    types[3] = 1
    assert graph.split_sources(types)[0] is not pairs


@pytest.mark.parametrize(
    ("types", "message"), [([0, 1], "2 types of edges"), ([0, -1, 0], "3 types of edges, some negative")]
)
def test_wrong_types_of_edges_are_refused(types: list[int], message: str) -> None:
    graph = Graph(torch.tensor([0, 3]), torch.tensor([0, 0, 0]))
    with pytest.raises(SettingError, match=message):
        graph.split_sources(torch.tensor(types))


@pytest.mark.parametrize(
    ("sources", "destinations", "nodes", "message"),
    [
        ([0.0], [0.0], 1, "sources is torch.float32"),
        ([-1], [0], 2, "sources of edges are from -1"),
        ([0], [2], 2, "destinations of edges are from 2 to 2"),
        ([0, 1], [0], 2, "2 sources and 1 destinations"),
        ([[0]], [[0]], 2, "of shape"),
    ],
)
def test_impossible_edges_are_refused(sources: list, destinations: list, nodes: int, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Graph.from_edges(torch.tensor(sources), torch.tensor(destinations), nodes)


@pytest.mark.parametrize("indptr", [[], [1, 2], [0, 1], [0, 3, 2]])
def test_an_impossible_csr_is_refused(indptr: list[int]) -> None:
    with pytest.raises(SettingError, match="indptr"):
        Graph(torch.tensor(indptr, dtype=torch.int64), torch.tensor([0, 0]))


def test_a_graph_without_edges_or_nodes_is_one() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert repr(Graph.from_edges(none, none)) == "Graph(sources=0, destinations=0, edges=0)"
    empty = Graph.from_edges(none, none, 3)
    assert empty.has_zero_in_degree
    assert empty.add_self_loops().edges == 3


def test_a_graph_survives_pickling() -> None:
    graph = Graph.from_edges(torch.tensor([1, 0]), torch.tensor([0, 0]))
    copy = pickle.loads(pickle.dumps(graph.add_self_loops()))
    np.testing.assert_array_equal(dense(copy), [[2, 1], [0, 1]])
    assert graph.to("cpu") is graph


def test_an_edge_index_is_read_once() -> None:
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    graph = Graph.from_pyg(edge_index, 3)
    np.testing.assert_array_equal(dense(graph), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert Graph.from_pyg(edge_index, 3) is graph
    assert Graph.from_pyg(edge_index, 4) is not graph
    edge_index[0, 0] = 1
    assert Graph.from_pyg(edge_index, 3) is not graph
    with pytest.raises(SettingError, match="edge_index has shape"):
        Graph.from_pyg(edge_index.T, 3)


def test_a_dgl_graph_is_read_once_and_again_when_it_changes() -> None:
    dgl = pytest.importorskip("dgl", reason="DGL is not installed")
    theirs = dgl.graph(([2, 0, 1, 1], [0, 1, 1, 1]), num_nodes=4)
    graph = Graph.from_dgl(theirs)
    assert graph.sources == 4
    np.testing.assert_array_equal(dense(graph), theirs.adj_external(transpose=True).to_dense())
    assert Graph.from_dgl(theirs.local_var()) is graph
    theirs.add_edges(3, 3)
    assert Graph.from_dgl(theirs).edges == 5


def test_blocks_of_dgl_are_bipartite_and_several_types_of_edges_are_refused() -> None:
    dgl = pytest.importorskip("dgl", reason="DGL is not installed")
    block = dgl.to_block(dgl.graph(([0, 1], [1, 1])), [1])
    graph = Graph.from_dgl(block)
    assert (graph.sources, graph.destinations, graph.edges) == (2, 1, 2)
    many = dgl.heterograph({("a", "x", "b"): ([0], [0]), ("a", "y", "b"): ([0], [0])})
    with pytest.raises(SettingError, match="edge types x, y"):
        Graph.from_dgl(many)
