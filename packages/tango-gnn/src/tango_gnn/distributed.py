"""Training on a graph that is divided among processes, each holding the rows of some nodes.

A process owns a set of nodes, all their in-edges and their rows of every matrix. `Partition` is that part as
a graph: a layer takes it with the rows of the process's own nodes. Where the layer is about to sum over
in-edges it reads rows of sources that others own, the halo; each process sends what others' edges start at,
and behind the sum the halo's gradient returns to its owners:

    forward     x_own  ->  (x_own, x_halo)
    backward    (g_own, g_halo)  ->  g_own + what others return for the rows that were sent to them

All else that a layer does is done for own rows alone. Two sums over all nodes remain. Gradients of weights
are added up by `sum_gradients`. And a scale is that of the whole tensor if the processes share its largest
magnitude, which ``Policy(group=...)`` asks for: the int8 values are then those of one process, with rounding
to nearest; stochastic rounding draws other numbers.

The graph's structure is known to every process here; ``docs/distributed.md`` says how it goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable

from tango_gnn._graph import Graph
from tenfold import SettingError


class Partition(Graph):
    """The part of a graph that this process owns. Made by all processes of a group together.

    Its destinations are the nodes of this process, rising, and its sources the same nodes and then the halo.
    Norms are by the degrees of the whole graph. Layers take it with one row for each destination; all
    processes must call them in the same order, and run their gradients. An error in one of them stops it
    alone: the others wait until they time out.

    Parameters
    ----------
    graph : Graph
        The whole graph; its sources are its destinations.
    owners : Tensor, shape (nodes,), of integers
        Rank of each node's owner, the same on all processes: of `split_nodes`, or of METIS.
    group : torch.distributed.ProcessGroup, optional
        By default all processes.

    Attributes
    ----------
    nodes : Tensor, shape (sources,), int64
        Node of the whole graph that each source is.
    own : Tensor, shape (destinations,), int64
        The first of them: those of this process.
    whole_edges : Tensor, shape (edges,), int64
        Canonical edge of the whole graph that each edge is.

    Raises
    ------
    SettingError
        torch.distributed is not initialised, `owners` does not fit the graph or the group, or sources and
        destinations of the graph differ.

    Examples
    --------
    >>> torch.distributed.init_process_group("gloo")
    >>> part = Partition(graph, split_nodes(graph, torch.distributed.get_world_size()))
    >>> layer = GraphConv(16, 4, policy=Policy(group=torch.distributed.group.WORLD))
    >>> y = layer(part, x[part.own])
    """

    def __init__(self, graph: Graph, owners: torch.Tensor, *, group: Any = None) -> None:
        if not dist.is_initialized():
            raise SettingError(
                "a partition without processes",
                "torch.distributed to be initialised",
                'Call torch.distributed.init_process_group("gloo") first, and start with torchrun.',
            )
        rank, ranks = dist.get_rank(group), dist.get_world_size(group)
        _check_owners(graph, owners, ranks)
        self.own = (owners == rank).nonzero().flatten()
        self.whole_edges = (owners[graph.destination_of_edge] == rank).nonzero().flatten()
        neighbors = graph.indices[self.whole_edges].long()
        halo = torch.unique(neighbors[owners[neighbors] != rank])
        halo = halo[owners[halo].argsort(stable=True)]
        self.nodes = torch.cat([self.own, halo])

        place = torch.empty(graph.sources, dtype=torch.int64, device=graph.device)
        place[self.nodes] = torch.arange(self.nodes.numel(), device=graph.device)
        indptr = torch.cat([self.own.new_zeros(1), graph.in_degrees[self.own].cumsum(0)])
        super().__init__(indptr, place[neighbors], sources=self.nodes.numel())
        self.out_degrees = graph.out_degrees[self.nodes]

        self._group = group
        received = torch.bincount(owners[halo], minlength=ranks)
        sent = torch.empty_like(received)
        dist.all_to_all_single(sent, received, group=group)
        self._received, self._sent = received.tolist(), sent.tolist()
        self._rows_sent = place[_exchange(halo, self._received, self._sent, group)]

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Fetch the halo's rows; all processes call it together. Layers do.

        Parameters
        ----------
        x : Tensor, shape (destinations, ...), float32
            Rows of this process's nodes.

        Returns
        -------
        Tensor, shape (sources, ...)
            `x`, followed by the halo's rows.

        Raises
        ------
        SettingError
            `x` has another number of rows.
        """
        if not x.dim() or x.shape[0] != self.destinations:
            raise SettingError(
                f"features of shape {tuple(x.shape)}",
                f"one row for each of the {self.destinations} nodes of this process",
                "Take the rows part.own of the whole graph's features.",
            )
        rows: torch.Tensor = _Gather.apply(x, self)
        return rows

    def __repr__(self) -> str:
        halo = self.sources - self.destinations
        return f"Partition(own={self.destinations}, halo={halo}, edges={self.edges})"


def split_nodes(graph: Graph, parts: int) -> torch.Tensor:
    """Divide nodes into ranges of about as many in-edges and nodes, in the order of their numbers.

    Little is exchanged where neighbours have numbers close to each other; else take METIS's parts.

    Parameters
    ----------
    graph : Graph
    parts : int

    Returns
    -------
    Tensor, shape (nodes,), int64
        Part of each node, rising.

    Raises
    ------
    SettingError
        `parts` is below 1.
    """
    if parts < 1:
        raise SettingError(f"{parts} parts", "a number from 1 up", "Correct it.")
    work = graph.in_degrees + 1
    before = work.cumsum(0) - work
    return before * parts // max(int(work.sum()), 1)


def sum_gradients(module: nn.Module, group: Any = None) -> None:
    """Add up each parameter's gradient over all processes, which call it together after their backward.

    Divide each process's loss by the number of nodes of all of them, not by that of its own.

    Parameters
    ----------
    module : Module
        With the same parameters on all processes; one without a gradient counts as zero.
    group : torch.distributed.ProcessGroup, optional
        By default all processes.
    """
    parameters = [each for each in module.parameters() if each.requires_grad]
    for each in parameters:
        if each.grad is None:
            each.grad = torch.zeros_like(each)
    gradients = [each.grad for each in parameters if each.grad is not None]
    if not gradients:
        return
    total = nn.utils.parameters_to_vector(gradients)
    dist.all_reduce(total, group=group)
    nn.utils.vector_to_parameters(total, gradients)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, part: Partition) -> torch.Tensor:
        ctx.part = part
        halo = _exchange(x[part._rows_sent], part._sent, part._received, part._group)
        return torch.cat([x, halo])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        part = ctx.part
        own, halo = gradient.tensor_split([part.destinations])
        returned = _exchange(halo, part._received, part._sent, part._group)
        return own.index_add(0, part._rows_sent, returned), None


def _exchange(rows: torch.Tensor, sent: Sequence[int], received: Sequence[int], group: Any) -> torch.Tensor:
    """Send the first ``sent[0]`` rows to rank 0 and so on; return what comes, in the order of the ranks."""
    incoming = rows.new_empty((sum(received), *rows.shape[1:]))
    dist.all_to_all_single(incoming, rows.contiguous(), list(received), list(sent), group=group)
    return incoming


def _check_owners(graph: Graph, owners: torch.Tensor, ranks: int) -> None:
    if graph.sources != graph.destinations:
        raise SettingError(
            f"a partition of a graph from {graph.sources} sources to {graph.destinations} destinations",
            "a graph whose sources are its destinations",
            "Divide the whole graph, not a block.",
        )
    if owners.shape != (graph.destinations,) or owners.dtype not in (torch.int32, torch.int64):
        raise SettingError(
            f"owners are {owners.dtype} of shape {tuple(owners.shape)}",
            f"a rank for each of the {graph.destinations} nodes, as torch.int64",
            "Take them from split_nodes.",
        )
    if owners.numel() and not 0 <= int(owners.min()) <= int(owners.max()) < ranks:
        raise SettingError(
            f"owners are from {int(owners.min())} to {int(owners.max())}",
            f"ranks from 0 to {ranks - 1}",
            "Divide the graph among as many parts as there are processes.",
        )
