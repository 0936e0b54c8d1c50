"""Mini-batches of nodes with sampled neighbours, after GraphSAGE (Hamilton et al., NeurIPS 2017).

A layer that computes nodes B reads their in-neighbours. For a batch of seeds the layers are walked from the
last to the first: of each node's in-edges at most a fan-out of them is drawn, uniformly and without
replacement, and the sources of what was drawn, with the nodes themselves, are what the layer before has to
compute. Each step is a bipartite graph, a block, that a layer takes in place of the whole graph; as in DGL
the destinations of a block are the first of its sources.

A node of degree d gets its k edges by Floyd's algorithm, in k steps over all nodes of the block at once:
step s draws t from 0 .. d - k + s, and takes d - k + s if t is taken already. What is drawn depends on the
generator and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tango_gnn._graph import Graph
from tenfold import SettingError


@dataclass(frozen=True, eq=False)
class Block:
    """One layer of a mini-batch.

    Attributes
    ----------
    graph : Graph
        From the block's sources to its destinations, which are the first of the sources.
    nodes : Tensor, shape (sources,), int64
        Node of the whole graph that each source is.
    edges : Tensor, shape (edges,), int64
        Canonical edge of the whole graph that each edge is.
    """

    graph: Graph
    nodes: torch.Tensor
    edges: torch.Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Seeds and the blocks that compute them, the first layer's first.

    Attributes
    ----------
    seeds : Tensor, shape (seeds,), int64
        Nodes that the last block computes.
    blocks : tuple of Block
    """

    seeds: torch.Tensor
    blocks: tuple[Block, ...]

    @property
    def inputs(self) -> torch.Tensor:
        """Shape (sources of the first block,): nodes whose features the first layer takes."""
        return self.blocks[0].nodes


class NeighborLoader:
    """Mini-batches of nodes with sampled neighbours; iterating draws one epoch.

    Parameters
    ----------
    graph : Graph
        Its sources are its destinations.
    nodes : Tensor, shape (count,), of integers
        Seeds of an epoch, none of them twice.
    fanouts : sequence of int or None
        In-edges to draw for every node, a number for each layer from the first to the last; None takes all.
    batch_size : int
        Seeds of a batch; the last batch of an epoch may have fewer.
    generator : torch.Generator
        On the CPU. With its state an epoch is drawn again.
    shuffle : bool
        Draw the order of the seeds in each epoch.

    Raises
    ------
    SettingError
        A node is out of range or comes twice, a fan-out or the batch size is below 1, or sources and
        destinations of the graph differ.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> loader = NeighborLoader(graph, train_nodes, [10, 5], batch_size=1024, generator=generator)
    >>> for batch in loader:
    ...     h = x[batch.inputs]
    ...     for layer, block in zip(layers, batch.blocks):
    ...         h = layer(block.graph, h)
    ...     loss = cross_entropy(h, y[batch.seeds])
    """

    def __init__(
        self,
        graph: Graph,
        nodes: torch.Tensor,
        fanouts: Sequence[int | None],
        *,
        batch_size: int,
        generator: torch.Generator,
        shuffle: bool = True,
    ) -> None:
        _check(graph, nodes, fanouts)
        if batch_size < 1:
            raise SettingError(f"batch_size is {batch_size}", "a number from 1 up", "Correct it.")
        self.graph = graph
        self.nodes = nodes
        self.fanouts = tuple(fanouts)
        self.batch_size = batch_size
        self.generator = generator
        self.shuffle = shuffle

    def __len__(self) -> int:
        return -(-self.nodes.numel() // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        nodes = self.nodes
        if self.shuffle:
            nodes = nodes[torch.randperm(nodes.numel(), generator=self.generator).to(nodes.device)]
        for seeds in nodes.split(self.batch_size):
            if seeds.numel():
                yield _sample(self.graph, seeds, self.fanouts, self.generator)


def sample(
    graph: Graph, seeds: torch.Tensor, fanouts: Sequence[int | None], *, generator: torch.Generator
) -> Batch:
    """Draw the blocks that compute some seeds, as one batch of a `NeighborLoader`.

    For link prediction the seeds are the ends of a batch of edges, each once.

    Parameters
    ----------
    graph, fanouts, generator
        As in `NeighborLoader`.
    seeds : Tensor, shape (seeds,), of integers
        None of them twice.

    Returns
    -------
    Batch

    Raises
    ------
    SettingError
        As in `NeighborLoader`.
    """
    _check(graph, seeds, fanouts)
    return _sample(graph, seeds, fanouts, generator)


def _sample(
    graph: Graph, seeds: torch.Tensor, fanouts: Sequence[int | None], generator: torch.Generator
) -> Batch:
    blocks: list[Block] = []
    nodes = seeds.long()
    for fanout in reversed(fanouts):
        blocks.append(_block(graph, nodes, fanout, generator))
        nodes = blocks[-1].nodes
    return Batch(seeds.long(), tuple(reversed(blocks)))


def _block(graph: Graph, nodes: torch.Tensor, fanout: int | None, generator: torch.Generator) -> Block:
    indptr, edges = _draw_edges(graph, nodes, fanout, generator)
    neighbors = graph.indices[edges].long()
    others = torch.unique(neighbors)
    sources = torch.cat([nodes, others[torch.isin(others, nodes, invert=True)]])
    in_order, positions = sources.sort()
    indices = positions[torch.searchsorted(in_order, neighbors)]
    return Block(Graph(indptr, indices, sources=sources.numel()), sources, edges)


def _draw_edges(
    graph: Graph, nodes: torch.Tensor, fanout: int | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the offsets of the nodes' drawn in-edges, and these as edges of the graph."""
    starts, degrees = graph.indptr[nodes].long(), graph.in_degrees[nodes]
    counts = degrees if fanout is None else degrees.clamp(max=fanout)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    edges = torch.arange(int(indptr[-1]), device=graph.device)
    edges += (starts - indptr[:-1]).repeat_interleave(counts)
    if fanout is not None:
        crowded = degrees > fanout
        places = indptr[:-1][crowded, None] + torch.arange(fanout, device=graph.device)
        edges[places] = starts[crowded, None] + _draw_distinct(degrees[crowded], fanout, generator)
    return indptr, edges


def _draw_distinct(sizes: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw `count` distinct numbers below each of `sizes`, uniformly; shape (sizes, count), rising."""
    uniform = torch.rand((count, sizes.numel()), dtype=torch.float64, generator=generator).to(sizes.device)
    drawn = sizes.new_empty((sizes.numel(), count))
    for step in range(count):
        highest = sizes - count + step
        number = (uniform[step] * (highest + 1)).long()
        taken = (drawn[:, :step] == number[:, None]).any(1)
        drawn[:, step] = torch.where(taken, highest, number)
    return drawn.sort(1).values


def _check(graph: Graph, nodes: torch.Tensor, fanouts: Sequence[int | None]) -> None:
    if graph.sources != graph.destinations:
        raise SettingError(
            f"neighbours were asked for in a graph of {graph.sources} sources and {graph.destinations} "
            "destinations",
            "a graph whose sources are its destinations",
            "Sample the whole graph, not a block.",
        )
    if not fanouts or any(fanout is not None and fanout < 1 for fanout in fanouts):
        raise SettingError(
            f"fanouts are {list(fanouts)}",
            "for each layer a number from 1 up, or None for all neighbours",
            "Correct them.",
        )
    if nodes.dim() != 1 or nodes.dtype not in (torch.int32, torch.int64):
        raise SettingError(
            f"nodes are {nodes.dtype} of shape {tuple(nodes.shape)}",
            "a 1-D tensor of torch.int32 or torch.int64",
            "Turn a mask into indices with mask.nonzero().flatten().",
        )
    if not nodes.numel():
        return
    lowest, highest = (int(node) for node in nodes.aminmax())
    if lowest < 0 or highest >= graph.destinations or nodes.unique().numel() != nodes.numel():
        raise SettingError(
            f"{nodes.numel()} nodes from {lowest} to {highest}, {nodes.unique().numel()} of them distinct",
            f"distinct nodes from 0 to {graph.destinations - 1}",
            "Remove repeated ones with torch.unique.",
        )
