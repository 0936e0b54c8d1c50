"""Train small models on a part of a graph: ``partitioned_training.py RANK RANKS FOLDER``.

A test trains the same models on the whole graph and compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

from tango_gnn import Graph, Policy, nn, set_policy
from tango_gnn.distributed import Partition, split_nodes, sum_gradients

NODES, FEATURES, CLASSES = 60, 12, 5
MODELS = {
    "gcn, sums first": lambda: [nn.GraphConv(FEATURES, 24, activation=F.relu), nn.GraphConv(24, CLASSES)],
    "gcn, product first": lambda: [nn.GraphConv(FEATURES, 8, activation=F.relu), nn.GraphConv(8, CLASSES)],
    "sage, mean": lambda: [nn.SAGEConv(FEATURES, 24, "mean"), nn.SAGEConv(24, CLASSES, "mean")],
    "sage, pool": lambda: [nn.SAGEConv(FEATURES, 16, "pool"), nn.SAGEConv(16, CLASSES, "pool")],
    "sage, gcn": lambda: [nn.SAGEConv(FEATURES, 8, "gcn"), nn.SAGEConv(8, CLASSES, "gcn")],
    "gat": lambda: [nn.GATConv(FEATURES, 8, 3, activation=F.elu), nn.GATConv(24, CLASSES, 1)],
    "hgt": lambda: [nn.HGTConv(FEATURES, 6, 4, 2, 3, dropout=0), nn.HGTConv(24, CLASSES, 1, 2, 3, dropout=0)],
}


def make_data() -> tuple[Graph, torch.Tensor, torch.Tensor]:
    """Graph, features and labels."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(NODES, (2, 300), generator=generator)
    graph = Graph.from_edges(ends[0], ends[1], NODES).add_self_loops()
    features = torch.randn(NODES, FEATURES, generator=generator)
    return graph, features, torch.randint(CLASSES, (NODES,), generator=generator)


def types_of(graph: Graph) -> tuple[torch.Tensor, torch.Tensor]:
    """Types of nodes and of edges, for HGT."""
    if isinstance(graph, Partition):
        return graph.own % 2, graph.whole_edges % 3
    return torch.arange(NODES) % 2, graph.given(torch.arange(graph.edges) % 3)


def train(kind: str, bits: int, graph: Graph, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the weights after a few steps, and the gradients of the last one."""
    torch.manual_seed(1)
    model = torch.nn.ModuleList(MODELS[kind]())
    group = dist.group.WORLD if isinstance(graph, Partition) else None
    set_policy(model, Policy(bits=bits, rounding="nearest", group=group))
    types = types_of(graph) if kind == "hgt" else ()
    for _ in range(2):
        h = x
        for layer in model:
            h = layer(graph, h, *types).flatten(1)
        loss = F.cross_entropy(h, y, reduction="sum") / NODES
        model.zero_grad()
        loss.backward()
        if isinstance(graph, Partition):
            sum_gradients(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.5 * parameter.grad
    gradients = {f"{name}.grad": each.grad for name, each in model.named_parameters()}
    return {name: tensor.clone() for name, tensor in (model.state_dict() | gradients).items()}


def main(rank: int, ranks: int, folder: Path) -> None:
    """Train every model on this process's part, and save what was learnt."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=ranks)
    graph, x, y = make_data()
    # Of three processes the last owns nothing.
    part = Partition(graph, split_nodes(graph, min(ranks, 2)))
    learnt = {
        (kind, bits): train(kind, bits, part, x[part.own], y[part.own]) for kind in MODELS for bits in (32, 8)
    }
    torch.save((part.own, part.nodes, part.whole_edges, learnt), folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
