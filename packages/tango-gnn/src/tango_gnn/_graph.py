"""A graph as the kernels read it: one CSR of in-edges, one of out-edges, each built once.

Row i of the CSR of in-edges lists the sources j of the edges j -> i; sums over neighbours run over it. Edge
p is its entry p: that is the canonical order, in which values of edges are kept. Gradients run over the
reversed graph, whose row j lists the destinations of the edges that leave j; ``edge_ids`` says which
canonical edge each of its entries is.

A graph is torch tensors alone. Those of DGL and PyG are read once and remembered as long as they live.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from tenfold import SettingError


class Graph:
    """A directed graph from source nodes to destination nodes, which may be the same nodes.

    Edges may occur more than once, and nodes may have none.

    Parameters
    ----------
    indptr : Tensor, shape (destinations + 1,), int32 or int64
        The in-edges of node i are the entries ``indptr[i]`` to ``indptr[i + 1]``.
    indices : Tensor, shape (edges,), like `indptr`
        Source of each edge, in any order within a row.
    sources : int, optional
        Number of source nodes; by default as many as destinations.
    order : Tensor, shape (edges,), optional
        Edge p was ``order[p]`` in the order in which its owner keeps values of edges.

    Attributes
    ----------
    indptr, indices : Tensor, int32
        int64 only where there are more than 2^31 - 1 nodes or edges.
    order : Tensor or None

    Raises
    ------
    SettingError
        An index is out of range, negative or not an integer, or the lengths do not fit together.

    Examples
    --------
    >>> graph = Graph.from_edges(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2]), 3)
    >>> graph.in_degrees
    tensor([1, 1, 1])
    """

    def __init__(
        self,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        *,
        sources: int | None = None,
        order: torch.Tensor | None = None,
    ) -> None:
        _check_integers("indptr", indptr)
        _check_integers("indices", indices)
        if not indptr.numel() or indptr[0] != 0 or indptr[-1] != indices.numel() or (indptr.diff() < 0).any():
            raise SettingError(
                f"indptr has {indptr.numel()} entries from {_first_and_last(indptr)}, and there are "
                f"{indices.numel()} indices",
                "offsets that rise from 0 to the number of indices",
                "Take both from one CSR matrix whose rows are destinations.",
            )
        self.destinations = indptr.numel() - 1
        self.sources = self.destinations if sources is None else sources
        self.edges = indices.numel()
        _check_range("source", indices, self.sources)
        if order is not None and order.shape != indices.shape:
            raise SettingError(
                f"order has shape {tuple(order.shape)} for {self.edges} edges",
                "one entry for every edge",
                "Leave it out where values of edges are in the order of indices.",
            )
        index = _index_type(self.sources, self.destinations, self.edges)
        self.indptr = indptr.to(index).contiguous()
        self.indices = indices.to(index).contiguous()
        self.order = order

    @classmethod
    def from_edges(
        cls, sources: torch.Tensor, destinations: torch.Tensor, nodes: int | tuple[int, int] | None = None
    ) -> Graph:
        """Make a graph of a list of edges.

        Parameters
        ----------
        sources, destinations : Tensor, shape (edges,), of integers
        nodes : int or pair of int, optional
            Number of nodes, or of sources and of destinations; by default as many as the edges name.

        Raises
        ------
        SettingError
            As the class does.
        """
        _check_integers("sources", sources)
        _check_integers("destinations", destinations)
        if sources.shape != destinations.shape:
            raise SettingError(
                f"{sources.numel()} sources and {destinations.numel()} destinations",
                "one of each for every edge",
                "Pass the two rows of one edge list.",
            )
        if nodes is None:
            nodes = 1 + max((int(ends.max()) for ends in (sources, destinations) if ends.numel()), default=-1)
        source_nodes, destination_nodes = (nodes, nodes) if isinstance(nodes, int) else nodes
        _check_range("source", sources, source_nodes)
        _check_range("destination", destinations, destination_nodes)
        keys = destinations.long() * max(source_nodes, 1) + sources.long()
        order = torch.argsort(keys, stable=True)
        return cls(
            _offsets(destinations, destination_nodes), sources[order], sources=source_nodes, order=order
        )

    @cached_property
    def _reversed(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        edge_ids = torch.argsort(self.indices, stable=True)
        return (
            _offsets(self.indices, self.sources).to(self.indptr.dtype),
            self.destination_of_edge[edge_ids],
            edge_ids.to(self.indptr.dtype),
        )

    @property
    def reversed_indptr(self) -> torch.Tensor:
        """Shape (sources + 1,): the out-edges of node j are the entries from j's offset to the next."""
        return self._reversed[0]

    @property
    def reversed_indices(self) -> torch.Tensor:
        """Shape (edges,): destination of each out-edge."""
        return self._reversed[1]

    @property
    def edge_ids(self) -> torch.Tensor:
        """Shape (edges,): canonical edge that each out-edge is."""
        return self._reversed[2]

    @cached_property
    def destination_of_edge(self) -> torch.Tensor:
        """Shape (edges,): destination of each edge in canonical order."""
        rows = torch.arange(self.destinations, dtype=self.indptr.dtype, device=self.device)
        return rows.repeat_interleave(self.in_degrees)

    @cached_property
    def every_edge(self) -> torch.Tensor:
        """Shape (edges,): the canonical edges, one after the other."""
        return torch.arange(self.edges, dtype=self.indptr.dtype, device=self.device)

    @cached_property
    def in_degrees(self) -> torch.Tensor:
        """Shape (destinations,), int64."""
        return self.indptr.diff().long()

    @cached_property
    def out_degrees(self) -> torch.Tensor:
        """Shape (sources,), int64."""
        return self.reversed_indptr.diff().long()

    @cached_property
    def has_zero_in_degree(self) -> bool:
        """Whether some destination has no in-edge."""
        return bool((self.in_degrees == 0).any())

    @cached_property
    def _powers(self) -> dict[tuple[str, float, float], torch.Tensor]:
        return {}

    def degree_power(self, side: str, exponent: float, *, empty: float = 1.0) -> torch.Tensor:
        """Return degrees to a power: the norm of a layer, as float32.

        Parameters
        ----------
        side : {"in", "out"}
            Of the destinations' in-edges, or of the sources' out-edges.
        exponent : float
        empty : float
            What a node without such edges has.

        Returns
        -------
        Tensor, shape (destinations,) or (sources,), float32
            The same tensor in every call.
        """
        key = side, exponent, empty
        if key not in self._powers:
            degrees = (self.in_degrees if side == "in" else self.out_degrees).float()
            self._powers[key] = torch.where(degrees == 0, empty, degrees.pow(exponent))
        return self._powers[key]

    @property
    def device(self) -> torch.device:
        """Where the graph is."""
        return self.indptr.device

    def to(self, device: torch.device | str) -> Graph:
        """Return the graph on a device."""
        if torch.device(device) == self.device:
            return self
        order = None if self.order is None else self.order.to(device)
        return Graph(self.indptr.to(device), self.indices.to(device), sources=self.sources, order=order)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of all sources, which a graph of a part of the nodes has to fetch.

        Layers call it on what they are about to aggregate; here it is `x`.
        """
        return x

    def canonical(self, values: torch.Tensor) -> torch.Tensor:
        """Put values of edges, shape (edges, ...), from their owner's order into the canonical one."""
        return values if self.order is None else values.index_select(0, self.order)

    def given(self, values: torch.Tensor) -> torch.Tensor:
        """Put values of edges, shape (edges, ...), from the canonical order into their owner's."""
        return values if self.order is None else values.index_select(0, self._positions)

    @cached_property
    def _positions(self) -> torch.Tensor:
        assert self.order is not None
        return torch.argsort(self.order)

    def split_sources(self, types: torch.Tensor) -> tuple[Graph, torch.Tensor, torch.Tensor]:
        """Split every source by the types of its out-edges.

        Parameters
        ----------
        types : Tensor, shape (edges,), int64
            Type of every edge, in its owner's order, from 0 up.

        Returns
        -------
        Graph
            The same edges, from pairs of a source and a type. Split once: later calls with the same tensor
            return the same, until it is changed in place.
        Tensor, shape (pairs,), int64
            Source of every pair.
        Tensor, shape (pairs,), int64
            Type of every pair, rising.

        Raises
        ------
        SettingError
            There is not one type for each edge, or one is negative.
        """
        _check_integers("types", types)
        if types.shape[0] != self.edges or (types.numel() and int(types.min()) < 0):
            raise SettingError(
                f"{types.shape[0]} types of edges"
                + (", some negative" if types.shape[0] == self.edges else ""),
                f"{self.edges} types from 0 up",
                "Pass one type for every edge of the graph.",
            )
        known: tuple[int, tuple[Graph, torch.Tensor, torch.Tensor]] | None = self._splits.get(types)
        if known is None or known[0] != types._version:
            keys = self.canonical(types).long() * self.sources + self.indices
            pairs, position = keys.unique(return_inverse=True)
            graph = Graph(
                self.indptr, position.to(self.indptr.dtype), sources=pairs.numel(), order=self.order
            )
            known = types._version, (graph, pairs % self.sources, pairs // self.sources)
            self._splits[types] = known
        return known[1]

    @cached_property
    def _splits(self) -> WeakTensorKeyDictionary:
        return WeakTensorKeyDictionary()

    @cached_property
    def _with_self_loops(self) -> Graph:
        nodes = torch.arange(self._square(), device=self.device)
        sources = torch.cat([self.given(self.indices).long(), nodes])
        destinations = torch.cat([self.given(self.destination_of_edge).long(), nodes])
        return Graph.from_edges(sources, destinations, self.sources)

    def add_self_loops(self) -> Graph:
        """Return the graph with one more edge from every node to itself, as ``dgl.add_self_loop`` does.

        In its owner's order these edges follow the others. Every call returns the same graph.

        Raises
        ------
        SettingError
            Sources and destinations are not the same nodes.
        """
        return self._with_self_loops

    @cached_property
    def _without_self_loops(self) -> Graph:
        self._square()
        sources, destinations = self.given(self.indices), self.given(self.destination_of_edge)
        kept = sources != destinations
        return Graph.from_edges(sources[kept], destinations[kept], self.sources)

    def remove_self_loops(self) -> Graph:
        """Return the graph without the edges from a node to itself. Every call returns the same graph.

        Raises
        ------
        SettingError
            Sources and destinations are not the same nodes.
        """
        return self._without_self_loops

    def _square(self) -> int:
        if self.sources != self.destinations:
            raise SettingError(
                f"self-loops between {self.sources} sources and {self.destinations} destinations",
                "a graph whose sources are its destinations",
                "Add them before the graph is cut into blocks.",
            )
        return self.sources

    @staticmethod
    def from_dgl(graph: Any) -> Graph:
        """Read a DGL graph or block with one type of edges.

        Read once: later calls with the same graph return the same `Graph`, until edges are added.

        Raises
        ------
        SettingError
            It has several types of edges.
        """
        if len(graph.canonical_etypes) != 1:
            raise SettingError(
                f"a DGL graph with the edge types {', '.join(map(str, graph.etypes))}",
                "one type of edges",
                "Pass graph[etype], or dgl.to_homogeneous(graph).",
            )

        def read() -> Graph:
            sources, destinations = graph.edges(order="eid")
            return Graph.from_edges(sources, destinations, (graph.num_src_nodes(), graph.num_dst_nodes()))

        # DGL puts a new index in place when it changes a graph, and copies of a graph share theirs.
        return remember(graph._graph, 0, read)

    @staticmethod
    def from_pyg(edge_index: torch.Tensor, nodes: int | tuple[int, int] | None = None) -> Graph:
        """Read PyG's ``edge_index``, whose first row is sources.

        Read once: later calls with the same tensor return the same `Graph`, until it is changed in place.

        Parameters
        ----------
        edge_index : Tensor, shape (2, edges), of integers
        nodes : int or pair of int, optional
            As in `from_edges`.

        Raises
        ------
        SettingError
            As the class does.
        """
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise SettingError(
                f"edge_index has shape {tuple(edge_index.shape)}",
                "shape (2, edges)",
                "Transpose a list of pairs: pairs.t().contiguous().",
            )
        return remember(
            edge_index,
            (nodes, version_of(edge_index)),
            lambda: Graph.from_edges(edge_index[0], edge_index[1], nodes),
        )

    def __repr__(self) -> str:
        return f"Graph(sources={self.sources}, destinations={self.destinations}, edges={self.edges})"


def as_graph(graph: Any) -> Graph:
    """Return a `Graph`, or what `Graph.from_dgl` reads from one of DGL's.

    Raises
    ------
    SettingError
        It is neither.
    """
    if isinstance(graph, Graph):
        return graph
    if hasattr(graph, "canonical_etypes"):
        return Graph.from_dgl(graph)
    raise SettingError(
        f"a {type(graph).__name__} as the graph",
        "a tango_gnn.Graph or a DGL graph",
        "Make one with Graph.from_edges or Graph.from_pyg.",
    )


Value = TypeVar("Value")

_read: dict[int, tuple[weakref.ref[Any], dict[Any, Any]]] = {}


def remember(owner: Any, key: Any, read: Callable[[], Value]) -> Value:
    """Return what was read of an object under a key, reading it the first time; forgotten with the object.

    Parameters
    ----------
    owner : object
        May be referred to weakly; it need not be hashable.
    key : hashable
        Changes when what is read does, as a tensor's version.
    read : callable
    """
    known = _read.get(id(owner))
    if known is None or known[0]() is not owner:
        identity = id(owner)
        known = weakref.ref(owner, lambda _: _read.pop(identity, None)), {}
        _read[identity] = known
    values = known[1]
    if key not in values:
        values[key] = read()
    value: Value = values[key]
    return value


def version_of(tensor: torch.Tensor) -> int | None:
    """Return how often a tensor was changed in place; None for one that does not count its changes."""
    return None if tensor.is_inference() else tensor._version


def _offsets(ends: torch.Tensor, nodes: int) -> torch.Tensor:
    offsets = torch.zeros(nodes + 1, dtype=torch.int64, device=ends.device)
    torch.cumsum(torch.bincount(ends, minlength=nodes), 0, out=offsets[1:])
    return offsets


def _index_type(*counts: int) -> torch.dtype:
    return torch.int32 if max(counts) <= torch.iinfo(torch.int32).max else torch.int64


def _check_integers(name: str, tensor: torch.Tensor) -> None:
    if tensor.dtype not in (torch.int32, torch.int64) or tensor.dim() != 1:
        raise SettingError(
            f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}",
            "a 1-D tensor of torch.int32 or torch.int64",
            "Convert it with .long().",
        )


def _check_range(role: str, ends: torch.Tensor, nodes: int) -> None:
    if not ends.numel():
        return
    lowest, highest = (int(end) for end in ends.aminmax())
    if lowest < 0 or highest >= nodes:
        raise SettingError(
            f"{role}s of edges are from {lowest} to {highest}",
            f"from 0 to {nodes - 1}, for {nodes} {role} nodes",
            "Correct the edges or the number of nodes.",
        )


def _first_and_last(tensor: torch.Tensor) -> str:
    return f"{int(tensor[0])} to {int(tensor[-1])}" if tensor.numel() else "nothing"
