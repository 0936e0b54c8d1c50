"""Train a graph convolution in int8 on a graph that processes divide among them.

``torchrun --nproc-per-node 2 distributed_script.py`` trains on the digits' graph and prints the accuracy.
With ``--rounding nearest`` the weights are those of one process, up to the order of sums.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
import torch.nn.functional as F

from tango_gnn import Policy, datasets, nn, set_policy
from tango_gnn.datasets import NodeData
from tango_gnn.distributed import Partition, split_nodes, sum_gradients


def train(model: torch.nn.ModuleList, data: NodeData, epochs: int) -> float:
    """Train on this process's part of the graph, and return the accuracy on the test nodes of all."""
    graph = data.graph.add_self_loops()
    part = Partition(graph, split_nodes(graph, dist.get_world_size()))
    x, labels = data.features[part.own], data.labels[part.own]
    trained, tested = torch.isin(part.own, data.train), torch.isin(part.own, data.test)

    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(epochs):
        scores = forward(model, part, x)
        loss = F.cross_entropy(scores[trained], labels[trained], reduction="sum") / len(data.train)
        optimizer.zero_grad()
        loss.backward()
        sum_gradients(model)
        optimizer.step()

    model.eval()
    with torch.no_grad():
        right = (forward(model, part, x).argmax(1) == labels)[tested].sum()
    dist.all_reduce(right)
    return float(right) / len(data.test)


def forward(model: torch.nn.ModuleList, part: Partition, x: torch.Tensor) -> torch.Tensor:
    """Apply layers to the rows of this process's nodes."""
    for layer in model:
        x = layer(part, x).flatten(1)
    return x


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounding", choices=["stochastic", "nearest"], default="stochastic")
    parser.add_argument("--epochs", type=int, default=50)
    arguments = parser.parse_args()

    dist.init_process_group("gloo")
    data = datasets.load("digits")
    torch.manual_seed(0)
    hidden = 64
    model = torch.nn.ModuleList(
        [
            nn.GraphConv(data.features.shape[1], hidden, activation=F.relu),
            nn.GraphConv(hidden, data.classes),
        ]
    )
    set_policy(model, Policy(rounding=arguments.rounding, group=dist.group.WORLD))
    accuracy = train(model, data, arguments.epochs)
    if not dist.get_rank():
        print(f"{dist.get_world_size()} processes: accuracy {100 * accuracy:.1f} %")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
