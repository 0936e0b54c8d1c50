import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tango_gnn import Graph, Policy
from tango_gnn._data import undirected
from tango_gnn._models import MODELS, Network, build
from tango_gnn._operations import counted
from tango_gnn._training import Schedule, Task, auc, link_task, node_task, train
from tango_gnn.datasets import NodeData, hold_out_links
from tango_gnn.nn import GATConv, GraphConv, quantized_layers
from tenfold import DivergedError, kernels


def two_rings(nodes: int = 60) -> NodeData:
    """Two rings of unlike features, which every network tells apart."""
    generator = torch.Generator().manual_seed(0)
    node = torch.arange(nodes)
    labels = (node >= nodes // 2).long()
    following = (node + 1) % (nodes // 2) + labels * (nodes // 2)
    features = torch.rand((nodes, 6), generator=generator) + labels[:, None] * torch.tensor([1.0, 0] * 3)
    return NodeData(
        name="rings",
        edges=torch.stack([torch.cat([node, following]), torch.cat([following, node])]),
        features=features,
        labels=labels,
        classes=2,
        train=node[::6],
        validation=node[1::6],
        test=node[2::6],
    )


DATA = two_rings()
SCHEDULE = Schedule(epochs=30, lr=0.1, weight_decay=0.0)


def network(name: str, policy: Policy | None = None, outputs: int = 2) -> Network:
    return build(name, 6, outputs, 8, 2, 0.2, policy or Policy.off(), seed=3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bits", [32, 8])
def test_every_network_learns_in_float32_and_in_int8(name: str, bits: int) -> None:
    policy = Policy(bits=bits, generator=torch.Generator().manual_seed(0))
    outcome = train(network(name, policy), node_task(DATA), SCHEDULE, seed=0)
    assert outcome.test == 100
    assert outcome.losses[-1] < outcome.losses[0] / 2
    assert len(outcome.losses) == len(outcome.seconds) == 30
    assert outcome.kept_bytes > 0


def test_a_training_repeats_and_leaves_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    first, again = (
        train(
            network("gat", Policy(generator=torch.Generator().manual_seed(1))), node_task(DATA), SCHEDULE, 5
        )
        for _ in range(2)
    )
    assert first.losses == again.losses
    assert torch.equal(state, torch.get_rng_state())
    other = train(
        network("gat", Policy(generator=torch.Generator().manual_seed(1))), node_task(DATA), SCHEDULE, 6
    )
    assert other.losses != first.losses


def test_arms_of_a_pair_begin_with_the_same_weights_and_masks() -> None:
    off, on = (network("gcn-4", policy) for policy in (Policy.off(), Policy()))
    for mine, theirs in zip(off.parameters(), on.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    masks: list[torch.Tensor] = []

    class Probe(nn.Module):
        def forward(self, graph: Graph, x: torch.Tensor) -> torch.Tensor:
            masks.append(x == 0)
            return x

    for policy in (Policy.off(), Policy(generator=torch.Generator().manual_seed(9))):
        probed = Network([GraphConv(6, 6, policy=policy), Probe(), nn.Identity()], 0.5, self_loops=True)
        probed.layers[2] = GraphConv(6, 2, policy=Policy.off())
        train(probed, node_task(DATA), Schedule(2, 0.01, 0.0), seed=4)
    # Of each training two epochs and the evaluation, which drops nothing.
    assert [bool(mask.float().mean() > 0.3) for mask in masks] == [True, True, False] * 2
    assert torch.equal(masks[0], masks[3])
    assert torch.equal(masks[1], masks[4])


def test_the_scores_are_those_of_the_last_epoch_and_the_rate_falls_to_zero() -> None:
    layer = GraphConv(6, 2, allow_zero_in_degree=True, policy=Policy.off())
    biases = [0.0]

    def loss(result: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        assert layer.bias is not None
        biases.append(float(layer.bias[0].detach()))
        return result.sum()

    def scores(result: torch.Tensor) -> tuple[float, float]:
        assert not layer.training
        assert layer.bias is not None
        biases.append(float(layer.bias[0].detach()))
        return 50.0, 60.0

    outcome = train(layer, Task(DATA.graph, DATA.features, 2, loss, scores), Schedule(4, 0.01, 0.0), seed=0)
    assert (outcome.validation, outcome.test) == (50.0, 60.0)
    # The gradient is the same in every epoch, so that Adam moves by the rate.
    steps = -torch.tensor(biases[1:]).diff()
    cosine = (1 + torch.cos(torch.pi * torch.arange(4) / 4)) / 2
    torch.testing.assert_close(steps, 0.01 * cosine, rtol=1e-3, atol=1e-6)


def test_a_loss_that_is_not_finite_is_told() -> None:
    task = Task(DATA.graph, DATA.features, 2, lambda result, _: result.sum() * math.nan, lambda _: (0.0, 0.0))
    with pytest.raises(DivergedError, match="epoch 1"):
        train(network("gcn-2"), task, SCHEDULE, seed=0)


@pytest.mark.parametrize("bits", [32, 8])
def test_links_within_communities_are_found(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(80) // 20
    joined = (torch.rand((80, 80), generator=generator) < 0.3) & (group[:, None] == group)
    communities = NodeData(
        name="communities",
        edges=undirected(joined.nonzero().T, 80),
        features=torch.rand((80, 6), generator=generator) + F.one_hot(group, 6),
        labels=group,
        classes=4,
        train=torch.arange(80),
        validation=torch.arange(80),
        test=torch.arange(80),
    )
    data = hold_out_links(communities, generator, validation=0.1, test=0.2)
    policy = Policy(bits=bits, generator=torch.Generator().manual_seed(0))
    outcome = train(network("gcn-2", policy, 8), link_task(data, 8), Schedule(60, 0.02, 0.0), seed=0)
    # Three quarters of the negatives join communities; the others cannot be told from edges.
    assert outcome.test > 75


few = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@given(few, few)
def test_the_area_is_the_share_of_pairs_in_order(positives: list[int], negatives: list[int]) -> None:
    pairs = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    found = auc(torch.tensor(positives).float(), torch.tensor(negatives).float())
    assert found == pytest.approx(100 * sum(pairs) / len(pairs))


def test_operations_are_those_of_the_products_and_sums() -> None:
    nodes, edges = DATA.nodes, DATA.graph.edges
    layer = GraphConv(6, 8, policy=Policy.off())
    for policy, kind in ((Policy.off(), "float32"), (Policy(), "int8")):
        layer.policy = policy
        with counted() as operations:
            layer(DATA.graph, DATA.features).sum().backward()
        # Forward: a sum of 6 values over every edge, and a product. Backward: the weight's gradient alone; in
        # int8 the bias's too, as a sum over the nodes.
        bias = nodes * 8 if kind == "int8" else 0
        assert operations[kind] == edges * 6 + 2 * (2 * nodes * 6 * 8) + bias
        assert sum(operations.values()) == operations[kind]


def test_attention_multiplies_int8_by_float32() -> None:
    layer = GATConv(6, 4, 2, policy=Policy())
    with counted() as operations:
        layer(DATA.graph, DATA.features)
    assert operations["mixed"] == 2 * DATA.graph.edges * 8
    assert operations["int8"] == 2 * DATA.nodes * 6 * 8


def test_an_error_meanwhile_leaves_the_kernels_as_they_were() -> None:
    original = kernels.int8_matmul
    with pytest.raises(ZeroDivisionError), counted():
        1 / (kernels.int8_matmul is original)
    assert kernels.int8_matmul is original


def test_the_last_layer_stays_in_float32() -> None:
    assert [layer.bits for layer in quantized_layers(network("gcn-4", Policy())).values()] == [8, 8, 8, 32]
