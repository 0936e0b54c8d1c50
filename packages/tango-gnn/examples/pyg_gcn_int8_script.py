"""Train PyG's graph convolutional network: ``python pyg_gcn_script.py [NODES]``.

Nodes of eight communities, whose features tell little and whose neighbours tell more.
"""

import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from tango_gnn import convert

NODES = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
COMMUNITIES, NEIGHBOURS, FEATURES = 8, 20, 128


class GCN(nn.Module):
    """Three layers, two of them hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(FEATURES, 256)
        self.second = GCNConv(256, 256)
        self.last = GCNConv(256, COMMUNITIES)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Return logits, of shape (nodes, communities)."""
        x = F.relu(self.first(x, edge_index))
        x = F.relu(self.second(x, edge_index))
        return self.last(x, edge_index)


def communities() -> Data:
    """Return a graph most of whose edges are within communities."""
    labels = torch.randint(COMMUNITIES, (NODES,))
    members = torch.argsort(labels)
    counts = torch.bincount(labels, minlength=COMMUNITIES)
    first = counts.cumsum(0) - counts
    target = torch.arange(NODES).repeat_interleave(NEIGHBOURS)
    within = members[first[labels[target]] + (torch.rand(len(target)) * counts[labels[target]]).long()]
    source = torch.where(torch.rand(len(target)) < 0.6, within, torch.randint(NODES, (len(target),)))
    x = torch.randn(COMMUNITIES, FEATURES)[labels] * 0.2 + torch.randn(NODES, FEATURES)
    return Data(x=x, edge_index=torch.stack([source, target]), y=labels)


torch.manual_seed(0)
torch.set_num_threads(1)
data = communities()
train = torch.rand(NODES) < 0.1
model = convert(GCN())
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
times = []
for _ in range(6):
    start = time.perf_counter()
    loss = F.cross_entropy(model(data.x, data.edge_index)[train], data.y[train])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    times.append(time.perf_counter() - start)
model.eval()
with torch.no_grad():
    right = (model(data.x, data.edge_index).argmax(1) == data.y)[~train].float().mean()
print(f"loss {loss:.3f}, accuracy {100 * right:.1f} %, {1e3 * statistics.median(times[1:]):.0f} ms an epoch")
