from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tango_gnn import Graph, Policy, nn
from tango_gnn.sampling import NeighborLoader, sample
from tenfold import SettingError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_graph(nodes: int, edges: int, seed: int) -> Graph:
    ends = torch.randint(nodes, (2, edges), generator=generator(seed))
    return Graph.from_edges(ends[0], ends[1], nodes)


@settings(deadline=None, max_examples=60)
@given(
    nodes=st.integers(1, 30),
    edges=st.integers(0, 120),
    fanouts=st.lists(st.none() | st.integers(1, 6), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
)
def test_blocks_are_made_of_edges_of_the_graph(
    nodes: int, edges: int, fanouts: list[int | None], seed: int
) -> None:
    graph = random_graph(nodes, edges, seed)
    seeds = torch.randperm(nodes, generator=generator(seed))[: seed % (nodes + 1)]
    batch = sample(graph, seeds, fanouts, generator=generator(seed))

    expected = seeds
    for block, fanout in reversed(list(zip(batch.blocks, fanouts, strict=True))):
        computed = block.nodes[: block.graph.destinations]
        assert torch.equal(computed, expected)
        assert block.nodes.unique().numel() == block.nodes.numel()
        assert block.edges.unique().numel() == block.edges.numel()
        assert torch.equal(block.nodes[block.graph.indices.long()], graph.indices[block.edges].long())
        assert torch.equal(
            computed[block.graph.destination_of_edge.long()], graph.destination_of_edge[block.edges].long()
        )
        degrees = graph.in_degrees[computed]
        assert torch.equal(block.graph.in_degrees, degrees if fanout is None else degrees.clamp(max=fanout))
        expected = block.nodes
    assert torch.equal(batch.inputs, expected)


def test_every_neighbor_is_as_likely() -> None:
    degree, fanout, draws = 9, 4, 2000
    graph = Graph.from_edges(torch.arange(degree), torch.zeros(degree, dtype=torch.long), degree)
    source = generator()
    counts = torch.zeros(degree, degree)
    for _ in range(draws):
        block = sample(graph, torch.tensor([0]), [fanout], generator=source).blocks[0]
        counts[block.edges[:, None], block.edges] += 1
    pairs = fanout * (fanout - 1) / (degree * (degree - 1))
    expected = torch.full_like(counts, pairs).fill_diagonal_(fanout / degree)
    spread = (expected * (1 - expected) / draws).sqrt()
    assert ((counts / draws - expected).abs() < 5 * spread).all()


@pytest.mark.parametrize("policy", [Policy.off(), Policy(rounding="nearest")], ids=["float32", "int8"])
def test_all_neighbors_give_what_the_whole_graph_gives(policy: Policy) -> None:
    graph = random_graph(40, 200, 1).add_self_loops()
    torch.manual_seed(0)
    layers = [nn.SAGEConv(8, 16, "mean", policy=policy), nn.SAGEConv(16, 3, "mean", policy=policy)]
    x = torch.randn(40, 8)
    seeds = torch.tensor([5, 0, 39])
    h = x
    for layer in layers:
        h = layer(graph, h)
    batch = sample(graph, seeds, [None, None], generator=generator())
    sampled = x[batch.inputs]
    for layer, block in zip(layers, batch.blocks, strict=True):
        sampled = layer(block.graph, sampled)
    # In int8 the scales are those of fewer rows.
    tolerance = 1e-5 if not policy.quantizes else 0.05 * float(h.detach().abs().max())
    torch.testing.assert_close(sampled, h[seeds], rtol=0, atol=tolerance)


def test_an_epoch_has_every_node_once_and_repeats_with_the_generator() -> None:
    graph = random_graph(50, 400, 2)
    nodes = torch.arange(0, 50, 2)

    def epochs() -> list[list[torch.Tensor]]:
        loader = NeighborLoader(graph, nodes, [3, 2], batch_size=4, generator=generator(7))
        assert len(loader) == math.ceil(25 / 4)
        batches = [list(loader) for _ in range(2)]
        assert [len(epoch) for epoch in batches] == [7, 7]
        for epoch in batches:
            assert torch.equal(torch.cat([batch.seeds for batch in epoch]).sort().values, nodes)
        return [
            [torch.cat([batch.seeds, *(block.edges for block in batch.blocks)]) for batch in epoch]
            for epoch in batches
        ]

    first, second = epochs(), epochs()
    assert all(
        torch.equal(*pair) for a, b in zip(first, second, strict=True) for pair in zip(a, b, strict=True)
    )
    assert not torch.equal(first[0][0], first[1][0])


def test_seeds_keep_their_order_without_shuffling() -> None:
    loader = NeighborLoader(
        random_graph(9, 20, 0), torch.arange(9), [2], batch_size=4, generator=generator(), shuffle=False
    )
    assert [batch.seeds.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_training_on_batches_learns() -> None:
    nodes = 60
    labels = torch.arange(nodes) % 2
    ends = torch.randint(nodes // 2, (2, 600), generator=generator(3)) * 2 + torch.arange(600) % 2
    graph = Graph.from_edges(ends[0], ends[1], nodes).add_self_loops()
    x = torch.nn.functional.one_hot(labels, 2).float() + torch.randn(nodes, 2, generator=generator(4))
    torch.manual_seed(0)
    model = nn.set_policy(
        torch.nn.ModuleList([nn.SAGEConv(2, 16, "mean"), nn.SAGEConv(16, 2, "mean")]), Policy()
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    loader = NeighborLoader(graph, torch.arange(nodes), [5, 5], batch_size=20, generator=generator())
    for _ in range(8):
        for batch in loader:
            first, last = batch.blocks
            h = torch.relu(model[0](first.graph, x[batch.inputs]))
            loss = torch.nn.functional.cross_entropy(model[1](last.graph, h), labels[batch.seeds])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


GRAPH = random_graph(5, 9, 0)


@pytest.mark.parametrize(
    ("graph", "nodes", "fanouts", "message"),
    [
        (GRAPH, torch.tensor([0, 5]), [2], "from 0 to 5"),
        (GRAPH, torch.tensor([-1]), [2], "from -1"),
        (GRAPH, torch.tensor([1, 1]), [2], "1 of them distinct"),
        (GRAPH, torch.tensor([True, False]), [2], "torch.bool"),
        (GRAPH, torch.tensor([[1]]), [2], "shape"),
        (GRAPH, torch.tensor([1]), [], "fanouts"),
        (GRAPH, torch.tensor([1]), [2, 0], "fanouts"),
        (Graph(GRAPH.indptr, GRAPH.indices, sources=6), torch.tensor([1]), [2], "6 sources"),
    ],
)
def test_bad_input(graph: Graph, nodes: torch.Tensor, fanouts: list[int], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        sample(graph, nodes, fanouts, generator=generator())
    with pytest.raises(SettingError, match=message):
        NeighborLoader(graph, nodes, fanouts, batch_size=2, generator=generator())


def test_a_batch_has_at_least_one_seed() -> None:
    with pytest.raises(SettingError, match="batch_size"):
        NeighborLoader(GRAPH, torch.tensor([1]), [2], batch_size=0, generator=generator())
