"""PyG's layers, computed as a policy says: the arguments and the parameters of the layer that each replaces.

    GCNConv    h_i = sum_{j -> i} x_j W / sqrt(d_j d_i) + b,        d_i the sum of the weights of i's in-edges
    GATConv    h_i = sum_p a_p f_j,  f = x W,  a_p = softmax leaky_relu(s . f_j + t . f_i)       for each head
    SAGEConv   h_i = W_l mean_{j -> i} x_j + W_r x_i + b

The differences from DGL's are kept. GCNConv takes the in-degree at both ends, and gives every node one
self-loop, and no norm to nodes without edges; an ``improved`` one has loops of weight 2 only where edges have
weights. GATConv replaces self-loops by one each. Here GCNConv sums over the narrower of x and x W,
where PyG always multiplies first.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tango_gnn import ops
from tango_gnn._graph import Graph, remember, version_of
from tango_gnn._policy import Policy
from tango_gnn.nn._graphconv import aggregate
from tango_gnn.nn._layer import QuantizedLayer
from tenfold import SettingError


class PyGLayer(QuantizedLayer):
    """Base: has the parameters and submodules of a layer of PyG, not copies of them.

    Parameters
    ----------
    layer : Module
    policy : Policy
    """

    def __init__(self, layer: nn.Module, policy: Policy) -> None:
        super().__init__(policy)
        self._parameters.update(layer._parameters)
        self._buffers.update(layer._buffers)
        self._modules.update({name: child for name, child in layer._modules.items() if name != "aggr_module"})
        self.train(layer.training)
        self._text = repr(layer)

    def __repr__(self) -> str:
        return f"{self._text[:-1]}, bits={self.bits})"


class PyGGCNConv(PyGLayer):
    """``torch_geometric.nn.GCNConv`` in int8."""

    lin: nn.Linear
    bias: nn.Parameter | None

    def __init__(self, layer: Any, policy: Policy) -> None:
        super().__init__(layer, policy)
        self.normalize: bool = layer.normalize
        self.loops: bool = layer.add_self_loops
        self.fill = 2.0 if layer.improved else 1.0

    def forward(
        self, x: torch.Tensor, edge_index: torch.Tensor, edge_weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Convolve features, shape (nodes, in), over edges, shape (2, edges) or sparse (nodes, nodes)."""
        edge_index, weights = edges_of(edge_index)
        weights = edge_weight if weights is None else weights
        graph = Graph.from_pyg(edge_index, x.shape[0])
        norm = None
        if self.normalize and weights is None:
            if self.loops:
                graph = graph.remove_self_loops().add_self_loops()
            norm = graph.degree_power("in", -0.5, empty=0.0)
        elif self.normalize and weights is not None:
            graph, weights = self._weighted(graph, edge_index, weights)
        policy = self.current_policy(x)

        def sum_over_edges(h: torch.Tensor) -> torch.Tensor:
            return aggregate(graph, h, weights, policy=policy, source_scale=norm, destination_scale=norm)

        if self.lin.weight.shape[0] < self.lin.weight.shape[1]:
            h = sum_over_edges(ops.linear(x, self.lin.weight, policy=policy))
            return h if self.bias is None else h + self.bias
        return ops.linear(sum_over_edges(x), self.lin.weight, self.bias, policy=policy)

    def _weighted(
        self, graph: Graph, edge_index: torch.Tensor, weights: torch.Tensor
    ) -> tuple[Graph, torch.Tensor]:
        """Return the graph with self-loops, and its normalised weights in its owner's order."""
        weights = weights.reshape(-1)
        if self.loops:
            source, destination = edge_index
            own = source == destination
            loops = weights.new_full((graph.sources,), self.fill)
            loops = loops.index_put((source[own],), weights[own])
            weights = torch.cat([weights[~own], loops])
            graph = graph.remove_self_loops().add_self_loops()
        ordered = graph.canonical(weights)
        degrees = ops.copy_e_sum(graph, ordered[:, None])[:, 0]
        norm = torch.where(degrees == 0, 0.0, degrees.pow(-0.5))
        ordered = ordered * norm[graph.indices.long()] * norm[graph.destination_of_edge.long()]
        return graph, graph.given(ordered)


class PyGGATConv(PyGLayer):
    """``torch_geometric.nn.GATConv`` in int8."""

    lin: nn.Linear | None
    lin_src: nn.Linear | None
    lin_dst: nn.Linear | None
    att_src: nn.Parameter
    att_dst: nn.Parameter
    res: nn.Linear | None
    bias: nn.Parameter | None

    def __init__(self, layer: Any, policy: Policy) -> None:
        super().__init__(layer, policy)
        # PyG sets the projections that a layer lacks to None as plain attributes.
        for name in ("lin", "lin_src", "lin_dst"):
            if name not in self._modules:
                setattr(self, name, None)
        self.heads = layer.heads, layer.out_channels
        self.concat: bool = layer.concat
        self.slope: float = layer.negative_slope
        self.dropout: float = layer.dropout
        self.loops: bool = layer.add_self_loops

    def forward(
        self,
        x: torch.Tensor | tuple[torch.Tensor, torch.Tensor | None],
        edge_index: torch.Tensor,
        edge_attr: torch.Tensor | None = None,
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Attend to in-edges; `x` is of shape (nodes, in), or a pair for sources and destinations."""
        source, destination = (x, x) if isinstance(x, torch.Tensor) else x
        policy = self.current_policy(source)
        f_source = self._project(source, self.lin or self.lin_src, policy)
        if destination is source:
            # A layer of two projections gives even the same nodes two sets of features.
            f_destination = f_source if self.lin is not None else self._project(source, self.lin_dst, policy)
        elif destination is not None:
            f_destination = self._project(destination, self.lin or self.lin_dst, policy)
        else:
            f_destination = None
        nodes = size or (len(f_source), len(f_source) if f_destination is None else len(f_destination))
        graph = Graph.from_pyg(edges_of(edge_index)[0], nodes)
        if self.loops:
            graph = _one_loop_each(graph)
        left = (f_source * self.att_src).sum(-1)
        right = (
            left.new_zeros((graph.destinations, self.heads[0]))
            if f_destination is None
            else (f_destination * self.att_dst).sum(-1)
        )
        drops = self.training and self.dropout > 0
        if return_attention_weights is None and not drops:
            h = ops.attention_sum(graph, f_source, left, right, policy=policy, slope=self.slope)
        else:
            a = ops.edge_attention(graph, left, right, policy=policy, slope=self.slope)
            a = F.dropout(a, self.dropout, self.training)
            h = ops.u_mul_e_sum(graph, f_source, a, policy=policy)
        h = h.flatten(1) if self.concat else h.mean(1)
        if self.res is not None and destination is not None:
            h = h + ops.linear(destination, self.res.weight, policy=policy)
        if self.bias is not None:
            h = h + self.bias
        if return_attention_weights is None:
            return h
        ends = torch.stack([graph.given(graph.indices), graph.given(graph.destination_of_edge)]).long()
        return h, (ends, graph.given(a))

    def _project(self, x: torch.Tensor, lin: nn.Linear | None, policy: Policy) -> torch.Tensor:
        assert lin is not None
        return ops.linear(x, lin.weight, policy=policy).view(-1, *self.heads)


class PyGSAGEConv(PyGLayer):
    """``torch_geometric.nn.SAGEConv`` in int8."""

    lin: nn.Linear
    lin_l: nn.Linear
    lin_r: nn.Linear

    def __init__(self, layer: Any, policy: Policy) -> None:
        super().__init__(layer, policy)
        self.mean = layer.aggr == "mean"
        self.normalize: bool = layer.normalize
        self.project: bool = layer.project
        self.root_weight: bool = layer.root_weight

    def forward(
        self,
        x: torch.Tensor | tuple[torch.Tensor, torch.Tensor | None],
        edge_index: torch.Tensor,
        size: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """Aggregate neighbours; `x` is of shape (nodes, in), or a pair for sources and destinations."""
        source, destination = (x, x) if isinstance(x, torch.Tensor) else x
        nodes = size or (len(source), len(source) if destination is None else len(destination))
        graph = Graph.from_pyg(edges_of(edge_index)[0], nodes)
        policy = self.current_policy(source)
        if self.project:
            source = ops.linear(source, self.lin.weight, self.lin.bias, policy=policy, relu=True)
        norm = graph.degree_power("in", -1.0) if self.mean else None
        h: torch.Tensor = ops.copy_u_sum(graph, source, policy=policy, destination_scale=norm)
        h = ops.linear(h, self.lin_l.weight, self.lin_l.bias, policy=policy)
        if self.root_weight and destination is not None:
            h = h + ops.linear(destination, self.lin_r.weight, policy=policy)
        if self.normalize:
            h = F.normalize(h, p=2.0, dim=-1)
        return h


def edges_of(adjacency: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return PyG's edge list, shape (2, edges), of what its layers take, and weights unless all are 1.

    Parameters
    ----------
    adjacency : Tensor
        An edge list, or a sparse matrix whose rows are destinations, as PyG's ``ToSparseTensor`` makes it.

    Raises
    ------
    SettingError
        It is something else.
    """
    if not isinstance(adjacency, torch.Tensor):
        raise SettingError(
            f"edges as a {type(adjacency).__name__}",
            "edge_index as a tensor of shape (2, edges), or a sparse tensor of torch",
            "Use ToSparseTensor(layout=torch.sparse_csr), or edge_index itself.",
        )
    if adjacency.layout is torch.strided:
        return adjacency, None

    def read() -> tuple[torch.Tensor, torch.Tensor | None]:
        entries = adjacency.detach().to_sparse_coo().coalesce()
        values = None if bool((entries.values() == 1).all()) else entries.values().float()
        return entries.indices().flip(0).contiguous(), values

    return remember(adjacency, ("edges", version_of(adjacency)), read)


def _one_loop_each(graph: Graph) -> Graph:
    if graph.sources == graph.destinations:
        return graph.remove_self_loops().add_self_loops()
    source, destination = graph.given(graph.indices).long(), graph.given(graph.destination_of_edge).long()
    kept = source != destination
    both = torch.arange(min(graph.sources, graph.destinations), device=graph.device)
    return Graph.from_edges(
        torch.cat([source[kept], both]),
        torch.cat([destination[kept], both]),
        (graph.sources, graph.destinations),
    )
