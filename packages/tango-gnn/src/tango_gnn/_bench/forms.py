"""One training epoch of the same network by every form that is compared.

The networks are those of DGL's examples with the paper's sizes: GCN of 256 hidden units, GAT of 4 heads of
64. The last layer, before the softmax, is float32 in every form.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import tango_gnn.nn as tango
from tango_gnn._generated import power_law
from tango_gnn._graph import Graph
from tango_gnn._policy import Policy
from tango_gnn.activation_compression import compress_activations

FORMS = {
    "dgl": "DGL, float32",
    "dgl bf16": "DGL, bfloat16",
    "pyg": "PyG, float32",
    "compressed": "DGL, activations in 2 bits",
    "own": "tango-gnn, float32",
    "int8": "tango-gnn, int8",
}
MODELS = {"gcn": "GCN 128-256-256-40", "gat": "GAT 128-4x64-4x64-40"}
FEATURES, CLASSES = 128, 40
Epoch = Callable[[], float]


@dataclass(frozen=True)
class Task:
    """A graph in the two forms that networks take it in, with random features and labels."""

    graph: Graph
    sources: torch.Tensor
    destinations: torch.Tensor
    features: torch.Tensor
    labels: torch.Tensor

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.labels)


def make_task(nodes: int, edges: int, seed: int) -> Task:
    """Make a power-law graph, and random features and labels: times do not depend on them."""
    generator = torch.Generator().manual_seed(seed)
    graph = Graph.from_pyg(power_law(nodes, edges, seed=seed), nodes)
    return Task(
        graph,
        graph.indices.long(),
        graph.destination_of_edge.long(),
        torch.randn(nodes, FEATURES, generator=generator),
        torch.randint(CLASSES, (nodes,), generator=generator),
    )


def load(form: str, task: Task) -> tuple[Any, torch.Tensor]:
    """Return the graph as a form wants it, with whatever it builds only once, and the features."""
    if form in ("own", "int8"):
        _ = task.graph.reversed_indptr, task.graph.out_degrees
        return task.graph, task.features
    if form == "pyg":
        return torch.stack([task.sources, task.destinations]), task.features
    dgl = _dgl()
    graph = dgl.graph((task.sources, task.destinations), num_nodes=task.nodes).int()
    graph.create_formats_()
    return graph, task.features.bfloat16() if form == "dgl bf16" else task.features


def make_epoch(model: str, form: str, task: Task, loaded: tuple[Any, torch.Tensor], seed: int) -> Epoch:
    """Return a function that trains for one epoch, with a step of Adam, and returns the loss.

    Parameters
    ----------
    model : str
        A key of `MODELS`.
    form : str
        A key of `FORMS`.
    task : Task
    loaded : tuple
        What `load` returned.
    seed : int
        Of the weights.
    """
    graph, features = loaded
    torch.manual_seed(seed)
    network = nn.ModuleList(LAYERS[model](form))
    if form == "dgl bf16":
        network = network.bfloat16()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def epoch() -> float:
        context = compress_activations() if form == "compressed" else contextlib.nullcontext()
        with context:
            logits = _forward(network, form, model, graph, features)
            loss = F.cross_entropy(logits.float(), task.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return epoch


def available(forms: Sequence[str]) -> list[str]:
    """Return the forms whose library is installed."""
    from importlib.util import find_spec

    needs = {"dgl": "dgl", "dgl bf16": "dgl", "compressed": "dgl", "pyg": "torch_geometric"}
    return [form for form in forms if form not in needs or find_spec(needs[form]) is not None]


def _forward(network: nn.ModuleList, form: str, model: str, graph: Any, x: torch.Tensor) -> torch.Tensor:
    last = len(network) - 1
    for number, layer in enumerate(network):
        x = layer(x, graph) if form == "pyg" else layer(graph, x)
        if form == "pyg" and number < last:
            x = F.relu(x) if model == "gcn" else F.elu(x)
        elif model == "gat" and form != "pyg":
            x = x.flatten(1)
    return x


def _gcn(form: str) -> list[nn.Module]:
    sizes = [(FEATURES, 256), (256, 256), (256, CLASSES)]
    activations = [F.relu, F.relu, None]
    if form == "pyg":
        from torch_geometric.nn import GCNConv

        return [GCNConv(i, o, cached=True, add_self_loops=False) for i, o in sizes]
    if form in ("own", "int8"):
        return [
            tango.GraphConv(i, o, activation=activation, policy=policy)
            for (i, o), activation, policy in zip(sizes, activations, _policies(form, 3), strict=True)
        ]
    conv = _dgl().nn.GraphConv
    return [conv(i, o, activation=activation) for (i, o), activation in zip(sizes, activations, strict=True)]


def _gat(form: str) -> list[nn.Module]:
    sizes = [(FEATURES, 64, 4), (256, 64, 4), (256, CLASSES, 1)]
    activations = [F.elu, F.elu, None]
    if form == "pyg":
        from torch_geometric.nn import GATConv

        return [GATConv(i, o, heads, add_self_loops=False) for i, o, heads in sizes]
    if form in ("own", "int8"):
        return [
            tango.GATConv(*size, activation=activation, policy=policy)
            for size, activation, policy in zip(sizes, activations, _policies(form, 3), strict=True)
        ]
    conv = _dgl().nn.GATConv
    return [conv(*size, activation=activation) for size, activation in zip(sizes, activations, strict=True)]


LAYERS = {"gcn": _gcn, "gat": _gat}


def _policies(form: str, count: int) -> list[Policy]:
    inner = Policy() if form == "int8" else Policy.off()
    return [inner] * (count - 1) + [Policy.off()]


def _dgl() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stderr(None), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        import dgl
        import dgl.nn

    return dgl
