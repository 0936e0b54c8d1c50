"""Converted models: the results, gradients, parameters and names of DGL's and PyG's own layers."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tango_gnn
from tango_gnn import Policy, convert, quantized_layers, revert
from tenfold import SettingError, UnknownNameError

dgl = pytest.importorskip("dgl", reason="tango-gnn[dgl] is not installed")
pyg = pytest.importorskip("torch_geometric.nn", reason="tango-gnn[pyg] is not installed")

NODES, EDGES, WIDTH = 40, 200, 12
OFF = Policy.off()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def edges(seed=0, every_node=True):
    """A multigraph with self-loops, and an in-edge for every node if so wanted."""
    generator = torch.Generator().manual_seed(seed)
    source, destination = torch.randint(NODES, (2, EDGES), generator=generator)
    if every_node:
        source = torch.cat([source, torch.randint(NODES, (NODES,), generator=generator)])
        destination = torch.cat([destination, torch.arange(NODES)])
    return torch.stack([source, destination])


def features(rows=NODES, width=WIDTH, seed=1):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def same(call, layer, policy, *leaves, tolerance=1e-4):
    """The layer and its conversion agree in what they return and in all gradients."""
    model = nn.ModuleList([layer])
    results = []
    for converted in (False, True):
        if converted:
            convert(model, policy)
        fresh = [leaf.clone().requires_grad_() for leaf in leaves]
        torch.manual_seed(3)
        out = call(model[0], *fresh)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
        wanted = [*fresh, *model.parameters()]
        gradients = torch.autograd.grad((out * weights).sum(), wanted)
        results.append([out, *gradients])
    for theirs, ours in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() <= tolerance * theirs.norm() + 1e-6


DGL_LAYERS = {
    "graph": lambda: dgl.nn.GraphConv(WIDTH, 9, activation=F.relu),
    "graph, narrower first": lambda: dgl.nn.GraphConv(WIDTH, 20, norm="right", bias=False),
    "graph, left": lambda: dgl.nn.GraphConv(WIDTH, 5, norm="left"),
    "gat": lambda: dgl.nn.GATConv(WIDTH, 4, 3, activation=F.elu),
    "gat, residual": lambda: dgl.nn.GATConv(WIDTH, 4, 3, residual=True),
    "gat, linear residual": lambda: dgl.nn.GATConv(WIDTH, 5, 2, residual=True, bias=False),
    "sage, mean": lambda: dgl.nn.SAGEConv(WIDTH, 5, "mean"),
    "sage, gcn": lambda: dgl.nn.SAGEConv(WIDTH, 5, "gcn", activation=F.relu),
    "sage, pool": lambda: dgl.nn.SAGEConv(WIDTH, 5, "pool"),
}


@pytest.mark.parametrize("name", DGL_LAYERS)
@pytest.mark.parametrize("policy", [OFF, Policy(keep_last=False)])
def test_layers_of_dgl(name, policy):
    graph = dgl.graph(tuple(edges()), num_nodes=NODES)
    tolerance = 1e-4 if policy is OFF else 0.25
    same(lambda layer, x: layer(graph, x), DGL_LAYERS[name](), policy, features(), tolerance=tolerance)


def test_hgt_of_dgl():
    graph = dgl.graph(tuple(edges()), num_nodes=NODES)
    generator = torch.Generator().manual_seed(4)
    ntype = torch.randint(3, (NODES,), generator=generator)
    etype = torch.randint(2, (graph.num_edges(),), generator=generator)
    layer = dgl.nn.HGTConv(WIDTH, 5, 2, 3, 2, dropout=0.0, use_norm=True)
    same(lambda layer, x: layer(graph, x, ntype, etype), layer, OFF, features())


def test_edge_weights_of_dgl():
    graph = dgl.graph(tuple(edges()), num_nodes=NODES)
    weights = torch.rand(graph.num_edges(), generator=torch.Generator().manual_seed(5))
    layer = dgl.nn.GraphConv(WIDTH, 9)
    same(lambda layer, x, w: layer(graph, x, edge_weight=w), layer, OFF, features(), weights)


@pytest.mark.parametrize("every_node", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"improved": True},
        {"add_self_loops": False},
        {"normalize": False},
        {"bias": False},
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("out", [5, 20])
def test_gcn_of_pyg(every_node, options, weighted, out):
    edge_index = edges(every_node=every_node)
    layer = pyg.GCNConv(WIDTH, out, **options)
    leaves = [features()]
    if weighted:
        leaves.append(torch.rand(edge_index.shape[1], generator=torch.Generator().manual_seed(5)) + 0.1)
    same(lambda layer, x, *w: layer(x, edge_index, *w), layer, OFF, *leaves)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": 3},
        {"heads": 3, "concat": False},
        {"heads": 2, "residual": True},
        {"add_self_loops": False, "negative_slope": 0.1},
    ],
)
def test_gat_of_pyg(options):
    edge_index = edges(every_node=False)
    same(lambda layer, x: layer(x, edge_index), pyg.GATConv(WIDTH, 5, **options), OFF, features())


@pytest.mark.parametrize(
    "options",
    [{}, {"aggr": "sum"}, {"root_weight": False}, {"normalize": True}, {"project": True}, {"bias": False}],
)
def test_sage_of_pyg(options):
    edge_index = edges(every_node=False)
    same(lambda layer, x: layer(x, edge_index), pyg.SAGEConv(WIDTH, 5, **options), OFF, features())


@pytest.mark.parametrize("loops", [True, False])
def test_bipartite_layers_of_pyg(loops):
    generator = torch.Generator().manual_seed(6)
    edge_index = torch.stack(
        [
            torch.randint(NODES, (EDGES,), generator=generator),
            torch.randint(15, (EDGES,), generator=generator),
        ]
    )
    leaves = features(), features(15, 7, seed=8)
    sage = pyg.SAGEConv((WIDTH, 7), 5)
    same(lambda layer, x, y: layer((x, y), edge_index, size=(NODES, 15)), sage, OFF, *leaves)
    gat = pyg.GATConv((WIDTH, 7), 5, heads=2, add_self_loops=loops)
    same(lambda layer, x, y: layer((x, y), edge_index), gat, OFF, *leaves)


def test_attention_of_pyg_is_returned_in_its_order():
    edge_index = edges()
    layer = pyg.GATConv(WIDTH, 5, heads=2)
    theirs, (their_ends, their_attention) = layer(features(), edge_index, return_attention_weights=True)
    ours, (our_ends, our_attention) = convert(layer, OFF)(
        features(), edge_index, return_attention_weights=True
    )
    assert torch.equal(our_ends, their_ends)
    torch.testing.assert_close(our_attention, their_attention)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
def test_sparse_tensors_of_pyg(layout):
    edge_index = torch.unique(edges(), dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(edge_index.shape[1]), (NODES, NODES))
        matrix = matrix.coalesce() if layout is torch.sparse_coo else matrix.to_sparse_csr()
    for layer in (pyg.GCNConv(WIDTH, 5), pyg.SAGEConv(WIDTH, 5)):
        theirs = layer(features(), edge_index)
        torch.testing.assert_close(convert(layer, OFF)(features(), matrix), theirs)


def test_a_sparse_tensor_that_is_changed_is_read_again():
    edge_index = torch.unique(edges(), dim=1)
    matrix = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(edge_index.shape[1]), (NODES, NODES))
    matrix = matrix.coalesce()
    layer = convert(pyg.GCNConv(WIDTH, 5, normalize=False, bias=False), OFF)
    before = layer(features(), matrix)
    torch.testing.assert_close(layer(features(), matrix.mul_(3)), 3 * before)


def test_other_forms_of_edges_are_refused():
    with pytest.raises(SettingError, match="edges as a list"):
        convert(pyg.GCNConv(WIDTH, 5), OFF)(features(), [[0], [1]])


def two_of_each():
    return (
        nn.Sequential(dgl.nn.GraphConv(WIDTH, 8), dgl.nn.GATConv(8, 4, 2), dgl.nn.SAGEConv(8, 3, "mean")),
        nn.Sequential(pyg.GCNConv(WIDTH, 8), pyg.GATConv(8, 4, 2), pyg.SAGEConv(8, 3)),
        nn.Sequential(dgl.nn.HGTConv(WIDTH, 4, 2, 2, 3, use_norm=True)),
    )


@pytest.mark.parametrize("number", range(3))
def test_state_dicts_fit_both_ways_and_revert_gives_the_layers_back(number):
    model = two_of_each()[number]
    kinds = [type(layer) for layer in model]
    saved = copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())
    assert convert(model) is model
    assert list(model.state_dict()) == list(saved)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    changed = copy.deepcopy(model.state_dict())
    model.load_state_dict(saved)
    other = two_of_each()[number]
    other.load_state_dict(changed)
    convert(other).load_state_dict(saved, assign=True)
    for reverted in (revert(model), revert(other)):
        assert [type(layer) for layer in reverted] == kinds
        assert all(torch.equal(reverted.state_dict()[key], saved[key]) for key in saved)
    with pytest.raises(SettingError, match="not converted"):
        revert(model)


def test_an_optimizer_made_before_trains_the_converted_model():
    graph = dgl.graph(tuple(edges()), num_nodes=NODES)
    model = nn.ModuleList([dgl.nn.GraphConv(WIDTH, 16, activation=F.relu), dgl.nn.GraphConv(16, 3)])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    labels = torch.randint(3, (NODES,), generator=torch.Generator().manual_seed(9))
    convert(model)
    losses = []
    for _ in range(60):
        x = features()
        for layer in model:
            x = layer(graph, x)
        loss = F.cross_entropy(x, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_the_last_layer_and_those_named_stay_in_float32():
    model = two_of_each()[1]
    convert(model, Policy(bits=6), keep=["1"])
    assert {name: layer.bits for name, layer in quantized_layers(model).items()} == {"0": 6, "1": 32, "2": 32}
    with pytest.raises(UnknownNameError, match="'7'"):
        convert(two_of_each()[1], keep=["7"])


def test_what_is_shared_stays_shared():
    layer = pyg.GCNConv(WIDTH, WIDTH)
    model = nn.ModuleList([layer, layer, pyg.GCNConv(WIDTH, 3)])
    convert(model)
    assert model[0] is model[1]
    clone = copy.deepcopy(model)
    assert list(clone.state_dict()) == list(model.state_dict())
    assert not any(a is b for a, b in zip(clone.parameters(), model.parameters(), strict=True))


def test_unsupported_settings_stay_with_a_warning():
    model = nn.ModuleList(
        [pyg.GATConv(WIDTH, 4, edge_dim=2), pyg.SAGEConv(WIDTH, 4, aggr="max"), pyg.GCNConv(WIDTH, 4)]
    )
    with pytest.warns(UserWarning, match=r"0 \(features of edges\), 1 \(aggregation max\)"):
        convert(model)
    assert [isinstance(layer, tango_gnn.nn.QuantizedLayer) for layer in model] == [False, False, True]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 3)), "without layers"),
        (lambda: nn.Sequential(pyg.GCNConv(-1, 4)), "not initialised"),
        (lambda: nn.Sequential(pyg.GCNConv(3, 4).double()), "float64"),
    ],
)
def test_what_cannot_be_converted_is_said(model, text):
    with pytest.raises(SettingError, match=text):
        convert(model())


def test_zero_in_degree_and_the_head_axis_are_dgls():
    graph = dgl.graph((torch.tensor([0]), torch.tensor([1])), num_nodes=3)
    x = features(3)
    layer = convert(dgl.nn.GATConv(WIDTH, 4, 2), OFF)
    with pytest.raises(SettingError, match="0-in-degree"):
        layer(graph, x)
    allowed = convert(dgl.nn.GATConv(WIDTH, 4, 2, allow_zero_in_degree=True), OFF)
    assert allowed(graph, x).shape == (3, 2, 4)
