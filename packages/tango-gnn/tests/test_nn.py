"""The layers against those of DGL, where it is installed, and against dense algebra."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tango_gnn import Graph, Policy, nn, set_policy
from tenfold import SettingError, UnknownNameError

NODES, WIDTH = 60, 24
NEAREST = Policy(rounding="nearest")
RULES_OFF = Policy(keep_attention=False, keep_scores=False, keep_norms=False, keep_bias=False, reuse=False)
TYPES = {"num_ntypes": 2, "num_etypes": 3, "dropout": 0.0}
LAYERS: dict[str, Callable[[Any], Any]] = {
    "GraphConv": lambda of: of.GraphConv(WIDTH, 30),
    "GraphConv, narrowing": lambda of: of.GraphConv(WIDTH, 10),
    "GraphConv, right": lambda of: of.GraphConv(WIDTH, 30, norm="right"),
    "GraphConv, left": lambda of: of.GraphConv(WIDTH, 10, norm="left", bias=False),
    "GraphConv, none": lambda of: of.GraphConv(WIDTH, WIDTH, norm="none", weight=False, bias=False),
    "GATConv": lambda of: of.GATConv(WIDTH, 8, 3),
    "GATConv, residual": lambda of: of.GATConv(WIDTH, 8, 3, residual=True, activation=F.elu),
    "GATConv, projected residual": lambda of: of.GATConv(WIDTH, 5, 2, residual=True, negative_slope=0.1),
    "SAGEConv": lambda of: of.SAGEConv(WIDTH, 30, "mean"),
    "SAGEConv, narrowing": lambda of: of.SAGEConv(WIDTH, 10, "mean", norm=F.normalize),
    "SAGEConv, gcn": lambda of: of.SAGEConv(WIDTH, 30, "gcn"),
    "SAGEConv, narrowing gcn": lambda of: of.SAGEConv(WIDTH, 10, "gcn"),
    "SAGEConv, pool": lambda of: of.SAGEConv(WIDTH, 30, "pool"),
    "SAGEConv, lstm": lambda of: of.SAGEConv(WIDTH, 30, "lstm"),
    "HGTConv": lambda of: of.HGTConv(WIDTH, 8, 3, **TYPES),
    "HGTConv, projected": lambda of: of.HGTConv(WIDTH, 5, 2, use_norm=True, **TYPES),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture(scope="module")
def dgl() -> Any:
    return pytest.importorskip("dgl", reason="DGL is not installed")


@pytest.fixture(scope="module")
def ends() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    nodes = torch.arange(NODES)
    edges = torch.randint(NODES, (2, 400), generator=generator)
    return torch.cat([edges[0], nodes]), torch.cat([edges[1], nodes])


@pytest.fixture(scope="module")
def graph(ends: tuple[torch.Tensor, torch.Tensor]) -> Graph:
    return Graph.from_edges(*ends, NODES)


@pytest.fixture(scope="module")
def types(ends: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randint(2, (NODES,), generator=generator),
        torch.randint(3, ends[0].shape, generator=generator),
    )


def step(layer: Any, graph: Any, x: torch.Tensor, *inputs: Any, **keywords: Any) -> list[torch.Tensor]:
    """Return the result of a layer, and the gradients by its input and parameters."""
    x = x.clone().requires_grad_()
    y = layer(graph, x, *inputs, **keywords)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    leaves = [x, *layer.parameters()]
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), leaves)]


def features(seed: int = 3) -> torch.Tensor:
    return torch.randn(NODES, WIDTH, generator=torch.Generator().manual_seed(seed))


def make(name: str, policy: Policy) -> nn.QuantizedLayer:
    torch.manual_seed(4)
    layer: nn.QuantizedLayer = LAYERS[name](nn)
    layer.policy = policy
    return layer


@every_layer
def test_in_float32_a_layer_is_dgls(name: str, dgl: Any, ends: Any, types: Any) -> None:
    import dgl.nn

    theirs = dgl.graph(ends, num_nodes=NODES)
    ours = make(name, Policy.off())
    original = LAYERS[name](dgl.nn)
    assert list(original.state_dict()) == list(ours.state_dict())
    original.load_state_dict(ours.state_dict())
    ours.load_state_dict(original.state_dict())
    inputs = types if name.startswith("HGT") else ()
    for one, other in zip(
        step(ours, theirs, features(), *inputs), step(original, theirs, features(), *inputs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@every_layer
@pytest.mark.parametrize("policy", [Policy(), NEAREST, RULES_OFF], ids=["stochastic", "nearest", "rules off"])
def test_in_int8_a_layer_is_close_to_itself_in_float32(
    name: str, policy: Policy, graph: Graph, types: Any
) -> None:
    inputs = types if name.startswith("HGT") else ()
    torch.manual_seed(5)
    exact = step(make(name, Policy.off()), graph, features(), *inputs)
    rounded = step(make(name, policy), graph, features(), *inputs)
    assert not torch.equal(exact[0], rounded[0])
    for one, other in zip(rounded, exact, strict=True):
        # A maximum over neighbours and small sums over edges that cancel are the worst.
        assert (one - other).norm() <= 0.3 * other.norm()
    assert (rounded[0] - exact[0]).norm() <= 0.05 * exact[0].norm()


def test_a_convolution_is_the_dense_product(graph: Graph) -> None:
    adjacency = torch.zeros(NODES, NODES).index_put(
        (graph.destination_of_edge.long(), graph.indices.long()), torch.ones(graph.edges), accumulate=True
    )
    roots = [adjacency.sum(axis).rsqrt() for axis in (1, 0)]
    layer = make("GraphConv", Policy.off())
    dense = (roots[0][:, None] * adjacency * roots[1]) @ features() @ layer.weight + layer.bias
    torch.testing.assert_close(layer(graph, features()), dense)


def test_attention_is_the_dense_softmax(graph: Graph) -> None:
    layer = make("GATConv", Policy.off())
    f = layer.fc(features()).view(NODES, 3, 8)
    left, right = (f * layer.attn_l).sum(-1), (f * layer.attn_r).sum(-1)
    scores = F.leaky_relu(left[graph.indices.long()] + right[graph.destination_of_edge.long()], 0.2).exp()
    total = torch.zeros(NODES, 3).index_add(0, graph.destination_of_edge, scores)
    a = scores / total[graph.destination_of_edge.long()]
    h = torch.zeros(NODES, 3, 8).index_add(
        0, graph.destination_of_edge, a[:, :, None] * f[graph.indices.long()]
    )
    found, attention = layer(graph, features(), get_attention=True)
    torch.testing.assert_close(found, h)
    torch.testing.assert_close(attention, graph.given(a)[:, :, None])


@pytest.mark.parametrize(
    "name", ["GraphConv", "GraphConv, narrowing", "GATConv", "SAGEConv", "SAGEConv, pool"]
)
def test_edges_have_weights(name: str, dgl: Any, ends: Any) -> None:
    import dgl.nn

    theirs = dgl.graph(ends, num_nodes=NODES)
    weights = torch.rand(ends[0].shape)
    ours = make(name, Policy.off())
    original = LAYERS[name](dgl.nn)
    original.load_state_dict(ours.state_dict())
    for layer_policy, tolerance in ((Policy.off(), 1e-5), (NEAREST, 0.2)):
        ours.policy = layer_policy
        leaves = [weights.clone().requires_grad_() for _ in range(2)]
        found, expected = (
            step(layer, theirs, features(), edge_weight=leaf)
            for layer, leaf in ((ours, leaves[0]), (original, leaves[1]))
        )
        for one, other in zip(found, expected, strict=True):
            assert (one - other).norm() <= tolerance * other.norm() + 1e-6


def test_gradients_reach_the_weights_of_edges(graph: Graph) -> None:
    layer = make("GraphConv", NEAREST)
    weights = torch.ones(graph.edges, requires_grad=True)
    layer(graph, features(), edge_weight=weights).sum().backward()
    exact = torch.ones(graph.edges, requires_grad=True)
    layer.policy = Policy.off()
    layer(graph, features(), edge_weight=exact).sum().backward()
    assert weights.grad is not None
    assert exact.grad is not None
    assert (weights.grad - exact.grad).norm() < 0.05 * exact.grad.norm()


@pytest.mark.parametrize("name", [name for name in LAYERS if "none" not in name])
def test_a_block_has_its_destinations_first(name: str, dgl: Any, ends: Any, types: Any) -> None:
    import dgl.nn

    seeds = torch.arange(0, NODES, 3)
    below = dgl.in_subgraph(dgl.graph(ends, num_nodes=NODES), seeds)
    block = dgl.to_block(below, seeds)
    nodes, edges = block.srcdata[dgl.NID], below.edata[dgl.EID][block.edata[dgl.EID]]
    inputs = (types[0][nodes], types[1][edges]) if name.startswith("HGT") else ()
    ours = make(name, Policy.off())
    original = LAYERS[name](dgl.nn)
    original.load_state_dict(ours.state_dict())
    x = features()[nodes]
    for one, other in zip(step(ours, block, x, *inputs), step(original, block, x, *inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    if not name.startswith("HGT"):
        pair = x, x[: block.num_dst_nodes()]
        torch.testing.assert_close(ours(block, pair), original(block, pair), rtol=1e-4, atol=1e-4)


def test_sources_and_destinations_may_differ_in_width(dgl: Any) -> None:
    import dgl.nn

    theirs = dgl.heterograph({("a", "to", "b"): ([0, 1, 0, 2], [0, 1, 1, 0])})
    pair = torch.randn(3, 6), torch.randn(2, 4)
    for make_layer in (
        lambda of: of.GATConv((6, 4), 5, 2, residual=True),
        lambda of: of.SAGEConv((6, 4), 5, "mean"),
        lambda of: of.SAGEConv((6, 4), 5, "pool"),
    ):
        ours, original = make_layer(nn), make_layer(dgl.nn)
        assert list(original.state_dict()) == list(ours.state_dict())
        original.load_state_dict(ours.state_dict())
        ours.policy = Policy.off()
        torch.testing.assert_close(ours(theirs, pair), original(theirs, pair))
        ours.policy = NEAREST
        torch.testing.assert_close(ours(theirs, pair), original(theirs, pair), rtol=0.1, atol=0.1)


def test_an_average_of_self_and_neighbours_needs_one_width() -> None:
    graph = Graph.from_edges(torch.tensor([0]), torch.tensor([0]), (1, 1))
    with pytest.raises(SettingError, match="features of 6 and of 4 columns"):
        nn.SAGEConv((6, 4), 5, "gcn")(graph, (torch.ones(1, 6), torch.ones(1, 4)))


@pytest.mark.parametrize("name", ["GraphConv", "GraphConv, narrowing", "GATConv"])
def test_features_may_have_more_dimensions(name: str, graph: Graph, dgl: Any, ends: Any) -> None:
    import dgl.nn

    x = torch.randn(NODES, 2, WIDTH)
    ours = make(name, Policy.off())
    original = LAYERS[name](dgl.nn)
    original.load_state_dict(ours.state_dict())
    found = step(ours, graph, x)
    for one, other in zip(found, step(original, dgl.graph(ends, num_nodes=NODES), x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    ours.policy = NEAREST
    assert (ours(graph, x) - found[0]).norm() < 0.05 * found[0].norm()


@pytest.mark.parametrize("activation", [F.relu, torch.relu, torch.nn.ReLU()])
@pytest.mark.parametrize("name", ["GraphConv", "GraphConv, narrowing"])
def test_a_relu_is_applied_whether_fused_or_not(name: str, activation: Any, graph: Graph) -> None:
    layer = make(name, NEAREST)
    before = layer(graph, features())
    layer._activation = activation
    torch.testing.assert_close(layer(graph, features()), before.relu())


@pytest.mark.parametrize("name", ["GraphConv", "GATConv"])
def test_nodes_without_in_edges_are_refused_unless_allowed(name: str) -> None:
    lonely = Graph.from_edges(torch.tensor([0]), torch.tensor([1]), 3)
    layer = make(name, Policy())
    x = torch.ones(3, WIDTH)
    with pytest.raises(SettingError, match="0-in-degree nodes in the graph"):
        layer(lonely, x)
    layer.set_allow_zero_in_degree(True)
    y = layer(lonely, x)
    assert y.isfinite().all()
    assert not y[0].any()


def test_a_layer_takes_no_second_weight(graph: Graph) -> None:
    with pytest.raises(SettingError, match="an external weight"):
        make("GraphConv", NEAREST)(graph, features(), weight=torch.ones(WIDTH, 3))
    bare = nn.GraphConv(WIDTH, 3, weight=False, bias=False, policy=NEAREST)
    y = bare(graph, features(), weight=torch.eye(WIDTH, 3))
    whole = nn.GraphConv(WIDTH, WIDTH, weight=False, bias=False, policy=NEAREST)(graph, features())
    torch.testing.assert_close(y, whole[:, :3], rtol=0.1, atol=0.05)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="no norm is named 'bath'"):
        nn.GraphConv(2, 2, norm="bath")
    with pytest.raises(UnknownNameError, match="no aggregator is named 'men'"):
        nn.SAGEConv(2, 2, "men")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"feat": torch.ones(NODES, WIDTH, dtype=torch.float64)}, "float64"),
        ({"feat": torch.full((NODES, WIDTH), float("nan"))}, "NaN or infinite"),
        ({"feat": torch.ones(NODES - 1, WIDTH)}, "shape"),
        ({"feat": torch.ones(NODES, WIDTH + 1)}, "shape"),
        ({"edge_weight": torch.ones(3)}, "edge_weight of shape"),
        ({"graph": 3}, "a int as the graph"),
    ],
)
@pytest.mark.parametrize("name", ["GraphConv", "GATConv", "SAGEConv"])
def test_impossible_inputs_are_refused(name: str, inputs: dict, message: str, graph: Graph) -> None:
    layer = make(name, Policy())
    given = {"graph": graph, "feat": features(), **inputs}
    with pytest.raises(SettingError, match=message):
        layer(**given)


def test_types_out_of_range_are_refused(graph: Graph, types: Any) -> None:
    layer = make("HGTConv", Policy())
    with pytest.raises(SettingError, match="types from 1 to 2; expected types from 0 to 1"):
        layer(graph, features(), types[0] + 1, types[1])
    with pytest.raises(SettingError, match="types from 1 to 3"):
        layer(graph, features(), types[0], types[1] + 1)


@every_layer
def test_evaluation_rounds_to_the_nearest_and_repeats(name: str, graph: Graph, types: Any) -> None:
    inputs = types if name.startswith("HGT") else ()
    layer = make(name, Policy()).eval()
    y = layer(graph, features(), *inputs)
    assert torch.equal(y, layer(graph, features(), *inputs))
    torch.testing.assert_close(y, make(name, NEAREST)(graph, features(), *inputs))


def test_a_layer_is_copied_and_pickled(graph: Graph) -> None:
    layer = make("GATConv", Policy(generator=torch.Generator().manual_seed(0)))
    layer.eval()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(graph, features()), layer(graph, features()))


def test_the_last_layer_stays_in_float32_unless_told_otherwise() -> None:
    model = torch.nn.Sequential(*(nn.GraphConv(4, 4) for _ in range(3)))
    assert [layer.bits for layer in nn.quantized_layers(set_policy(model, Policy(bits=6))).values()] == [
        6,
        6,
        32,
    ]
    set_policy(model, Policy(keep_last=False))
    assert [layer.bits for layer in nn.quantized_layers(model).values()] == [8, 8, 8]
    with pytest.raises(SettingError, match="a Linear without layers"):
        set_policy(torch.nn.Linear(2, 2), Policy())


def test_auto_chooses_in_the_first_step_of_training(graph: Graph) -> None:
    layer = make("GraphConv", Policy(bits="auto"))
    layer.eval()(graph, features())
    assert (layer.chosen_bits, layer.bits) == (None, 8)
    layer.train()(graph, features())
    assert layer.chosen_bits is not None
    assert 4 <= layer.bits == layer.chosen_bits < 8
    set_policy(torch.nn.ModuleList([layer]), Policy(bits="auto", keep_last=False))
    assert layer.chosen_bits is None


def test_rounded_weights_are_written_back_in_training_alone(graph: Graph) -> None:
    policy = Policy(rounding="nearest", keep_weights=False)
    layer = make("GraphConv", policy)
    weight = layer.weight.detach().clone()
    with torch.no_grad():
        layer.eval()(graph, features())
    assert torch.equal(layer.weight, weight)
    layer.train()(graph, features())
    assert not torch.equal(layer.weight, weight)
    assert len(layer.weight.detach().unique()) <= 255
    torch.testing.assert_close(
        layer.weight.detach(), weight, rtol=0, atol=float(weight.abs().max()) / 254 * 1.01
    )


def test_a_small_network_learns_in_int8_as_in_float32(graph: Graph) -> None:
    labels = torch.randint(3, (NODES,), generator=torch.Generator().manual_seed(6))
    losses = []
    for policy in (Policy.off(), Policy(generator=torch.Generator().manual_seed(7))):
        torch.manual_seed(8)
        model = torch.nn.ModuleList([nn.GraphConv(WIDTH, 32, activation=F.relu), nn.GraphConv(32, 3)])
        set_policy(model, policy)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(60):
            h = features()
            for layer in model:
                h = layer(graph, h)
            loss = F.cross_entropy(h, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 0.6
    assert losses[1] == pytest.approx(losses[0], abs=0.1)


def test_dropout_leaves_gradients_to_what_it_kept(graph: Graph) -> None:
    layer = nn.GATConv(WIDTH, 4, 2, feat_drop=0.5, attn_drop=0.5)
    x = features().requires_grad_()
    layer(graph, x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert 0.3 < float((x.grad == 0).float().mean()) < 0.7
