"""Train DGL's graph attention network: ``python dgl_gat_script.py [NODES]``.

Nodes of eight communities, whose features tell little and whose neighbours tell more.
"""

import statistics
import sys
import time

import dgl
import torch
import torch.nn.functional as F
from dgl.nn import GATConv
from torch import nn

from tango_gnn import convert

NODES = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
COMMUNITIES, NEIGHBOURS, FEATURES = 8, 20, 128


class GAT(nn.Module):
    """Two hidden layers of four heads, and one head that classifies."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                GATConv(FEATURES, 64, 4, activation=F.elu),
                GATConv(4 * 64, 64, 4, activation=F.elu),
                GATConv(4 * 64, COMMUNITIES, 1),
            ]
        )

    def forward(self, graph: dgl.DGLGraph, x: torch.Tensor) -> torch.Tensor:
        """Return logits, of shape (nodes, communities)."""
        for layer in self.layers:
            x = layer(graph, x).flatten(1)
        return x


def communities() -> tuple[dgl.DGLGraph, torch.Tensor, torch.Tensor]:
    """Return a graph most of whose edges are within communities, features and labels."""
    labels = torch.randint(COMMUNITIES, (NODES,))
    members = torch.argsort(labels)
    counts = torch.bincount(labels, minlength=COMMUNITIES)
    first = counts.cumsum(0) - counts
    target = torch.arange(NODES).repeat_interleave(NEIGHBOURS)
    within = members[first[labels[target]] + (torch.rand(len(target)) * counts[labels[target]]).long()]
    source = torch.where(torch.rand(len(target)) < 0.6, within, torch.randint(NODES, (len(target),)))
    graph = dgl.add_self_loop(dgl.graph((source, target), num_nodes=NODES))
    return graph, torch.randn(COMMUNITIES, FEATURES)[labels] * 0.2 + torch.randn(NODES, FEATURES), labels


torch.manual_seed(0)
torch.set_num_threads(1)
graph, features, labels = communities()
train = torch.rand(NODES) < 0.1
model = convert(GAT())
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
times = []
for _ in range(6):
    start = time.perf_counter()
    loss = F.cross_entropy(model(graph, features)[train], labels[train])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    times.append(time.perf_counter() - start)
model.eval()
with torch.no_grad():
    right = (model(graph, features).argmax(1) == labels)[~train].float().mean()
print(f"loss {loss:.3f}, accuracy {100 * right:.1f} %, {1e3 * statistics.median(times[1:]):.0f} ms an epoch")
