"""The networks that the experiments train."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tango_gnn._graph import Graph
from tango_gnn._policy import Policy
from tango_gnn.nn import GATConv, GraphConv, SAGEConv, set_policy


class Network(nn.Module):
    """Graph layers with dropout between them.

    Parameters
    ----------
    layers : list of Module
        Called as ``layer(graph, x)``; heads are concatenated.
    dropout : float
        Of the input of every layer but the first, whose features stay the same in all epochs, and are so
        quantised once.
    self_loops : bool
        Add an edge from every node to itself.
    """

    def __init__(self, layers: list[nn.Module], dropout: float, *, self_loops: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = dropout
        self.self_loops = self_loops

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        """Return outputs of shape (nodes, outputs)."""
        if self.self_loops:
            graph = graph.add_self_loops()
        for index, layer in enumerate(self.layers):
            if index:
                x = F.dropout(x, self.dropout, self.training)
            x = layer(graph, x).flatten(1)
        return x


def build(
    name: str, inputs: int, outputs: int, hidden: int, heads: int, dropout: float, policy: Policy, seed: int
) -> Network:
    """Build a network with weights drawn from a seed.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    inputs, outputs, hidden : int
        Widths of the features, of the result, and between layers.
    heads : int
        Of attention, which share `hidden`; the last layer has one.
    dropout : float
    policy : Policy
        Given to the layers by `set_policy`.
    seed : int
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MODELS[name](inputs, outputs, hidden, heads, dropout)
    set_policy(network, policy)
    return network


def _gcn(depth: int) -> Callable[[int, int, int, int, float], Network]:
    def make(inputs: int, outputs: int, hidden: int, heads: int, dropout: float) -> Network:
        widths = [inputs, *[hidden] * (depth - 1)]
        layers: list[nn.Module] = [GraphConv(width, hidden, activation=F.relu) for width in widths[:-1]]
        return Network([*layers, GraphConv(widths[-1], outputs)], dropout, self_loops=True)

    return make


def _gat(inputs: int, outputs: int, hidden: int, heads: int, dropout: float) -> Network:
    first = GATConv(inputs, hidden // heads, heads, attn_drop=dropout, activation=F.elu)
    return Network([first, GATConv(hidden, outputs, 1, attn_drop=dropout)], dropout, self_loops=True)


def _sage(inputs: int, outputs: int, hidden: int, heads: int, dropout: float) -> Network:
    first = SAGEConv(inputs, hidden, "mean", activation=F.relu)
    return Network([first, SAGEConv(hidden, outputs, "mean")], dropout, self_loops=False)


MODELS: dict[str, Callable[[int, int, int, int, float], Network]] = {
    "gcn-2": _gcn(2),
    "gcn-4": _gcn(4),
    "gat": _gat,
    "sage": _sage,
}
TITLES = {"gcn-2": "GCN, 2 layers", "gcn-4": "GCN, 4 layers", "gat": "GAT", "sage": "GraphSAGE"}
