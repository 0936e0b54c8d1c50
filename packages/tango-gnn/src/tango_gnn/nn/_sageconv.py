"""GraphSAGE of Hamilton et al., in int8.

    h_i = act( x_i W_self + b + aggregate_{j -> i}(x_j) W_neigh )

The features are quantised once for the sum over neighbours and for W_self. A maximum ("pool") and an LSTM
over neighbours are computed in float32; the linear layers around them are not.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import init

from tango_gnn import ops
from tango_gnn._graph import Graph, as_graph
from tango_gnn._policy import Policy
from tango_gnn.nn._graphconv import aggregate
from tango_gnn.nn._layer import Activation, Features, QuantizedLayer, activate, pair_of, weights_of_edges
from tenfold import SettingError, UnknownNameError

AGGREGATORS = ("mean", "gcn", "pool", "lstm")


class SAGEConv(QuantizedLayer):
    """GraphSAGE; the arguments are those of ``dgl.nn.SAGEConv``.

    Parameters
    ----------
    in_feats : int or pair of int
        Width of the features, or of sources' and destinations'.
    out_feats : int
    aggregator_type : {"mean", "gcn", "pool", "lstm"}
    feat_drop : float
        Dropout of the features.
    bias : bool
        Have a bias.
    norm : callable, optional
        Applied after the activation.
    activation : callable, optional
    policy : Policy
        What is quantised, and how.

    Attributes
    ----------
    fc_neigh : Linear
    fc_self : Linear
        Except with "gcn", which has a `bias` of its own instead.
    fc_pool : Linear
        With "pool".
    lstm : LSTM
        With "lstm".

    Raises
    ------
    UnknownNameError
        `aggregator_type` is none of the four.

    Examples
    --------
    >>> graph = Graph.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]))
    >>> SAGEConv(4, 2, "mean")(graph, torch.ones(2, 4)).shape
    torch.Size([2, 2])
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_feats: int | tuple[int, int],
        out_feats: int,
        aggregator_type: str,
        feat_drop: float = 0.0,
        bias: bool = True,
        norm: Activation | None = None,
        activation: Activation | None = None,
        *,
        policy: Policy = Policy(),  # noqa: B008
    ) -> None:
        super().__init__(policy)
        if aggregator_type not in AGGREGATORS:
            raise UnknownNameError("aggregator", aggregator_type, AGGREGATORS)
        self._in_src_feats, self._in_dst_feats = (
            in_feats if isinstance(in_feats, tuple) else (in_feats, in_feats)
        )
        self._out_feats = out_feats
        self._aggre_type = aggregator_type
        self.norm = norm
        self.feat_drop = nn.Dropout(feat_drop)
        self.activation = activation
        if aggregator_type == "pool":
            self.fc_pool = nn.Linear(self._in_src_feats, self._in_src_feats)
        if aggregator_type == "lstm":
            self.lstm = nn.LSTM(self._in_src_feats, self._in_src_feats, batch_first=True)
        self.fc_neigh = nn.Linear(self._in_src_feats, out_feats, bias=False)
        if aggregator_type != "gcn":
            self.fc_self = nn.Linear(self._in_dst_feats, out_feats, bias=bias)
        else:
            self.bias = nn.Parameter(torch.zeros(out_feats)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        gain = init.calculate_gain("relu")
        if self._aggre_type == "pool":
            init.xavier_uniform_(self.fc_pool.weight, gain=gain)
        if self._aggre_type == "lstm":
            self.lstm.reset_parameters()
        if self._aggre_type != "gcn":
            init.xavier_uniform_(self.fc_self.weight, gain=gain)
        init.xavier_uniform_(self.fc_neigh.weight, gain=gain)

    def forward(self, graph: Graph, feat: Features, edge_weight: torch.Tensor | None = None) -> torch.Tensor:
        """Aggregate neighbours.

        Parameters
        ----------
        graph : Graph or DGL graph
        feat : Tensor, shape (sources, in_feats), float32, or a pair for sources and destinations
        edge_weight : Tensor, shape (edges,), optional
            Factor of every edge, in the graph's own order.

        Returns
        -------
        Tensor, shape (destinations, out_feats)

        Raises
        ------
        SettingError
            Shapes or types do not fit, or a feature is not finite.
        """
        graph = as_graph(graph)
        if isinstance(feat, tuple):
            x, x_self = self.feat_drop(feat[0]), self.feat_drop(feat[1])
        else:
            x, x_self = pair_of(self.feat_drop(feat), graph)
        policy = self.current_policy(x)
        h = self._neighbours(graph, x, x_self, edge_weight, policy)
        if self._aggre_type != "gcn":
            h += ops.linear(x_self, self.fc_self.weight, self.fc_self.bias, policy=policy)
        elif self.bias is not None:
            h += self.bias
        h = activate(self.activation, h)
        return h if self.norm is None else self.norm(h)

    def _neighbours(
        self,
        graph: Graph,
        x: torch.Tensor,
        x_self: torch.Tensor,
        edge_weight: torch.Tensor | None,
        policy: Policy,
    ) -> torch.Tensor:
        def project(features: torch.Tensor) -> torch.Tensor:
            return ops.linear(features, self.fc_neigh.weight, policy=policy)

        if self._aggre_type == "pool":
            x = ops.linear(x, self.fc_pool.weight, self.fc_pool.bias, policy=policy, relu=True)
            return project(_largest(graph, _messages(graph, x, edge_weight)))
        if self._aggre_type == "lstm":
            return project(self._last_state(graph, _messages(graph, x, edge_weight)))
        project_first = self._in_src_feats > self._out_feats
        shared_nodes = x_self is x
        if project_first:
            x = project(x)
        if self._aggre_type == "mean":
            mean = graph.degree_power("in", -1.0)
            if not project_first and edge_weight is None:
                return ops.convolution(
                    graph, graph.gather(x), self.fc_neigh.weight, policy=policy, destination_scale=mean
                )
            h = aggregate(graph, x, edge_weight, policy=policy, destination_scale=mean)
        else:
            _check_same_width(self._in_src_feats, self._in_dst_feats)
            if project_first:
                x_self = pair_of(x, graph)[1] if shared_nodes else project(x_self)
            total = aggregate(graph, x, edge_weight, policy=policy) + x_self
            h = total / (graph.in_degrees + 1)[:, None]
        return h if project_first else project(h)

    def _last_state(self, graph: Graph, messages: torch.Tensor) -> torch.Tensor:
        """Last state of the LSTM over each node's messages in their owner's order, one degree at a time."""
        states = messages.new_zeros((graph.destinations, self._in_src_feats))
        messages = graph.given(messages)[torch.argsort(graph.given(graph.destination_of_edge), stable=True)]
        for degree in graph.in_degrees.unique().tolist():
            if degree:
                nodes = (graph.in_degrees == degree).nonzero()[:, 0]
                steps = graph.indptr[nodes, None] + torch.arange(degree, device=messages.device)
                _, (last, _) = self.lstm(messages[steps])
                states = states.index_copy(0, nodes, last[0])
        return states

    def extra_repr(self) -> str:
        """Describe the settings."""
        return f"aggregator={self._aggre_type}, out={self._out_feats}, bits={self.bits}"


def _messages(graph: Graph, x: torch.Tensor, edge_weight: torch.Tensor | None) -> torch.Tensor:
    messages = graph.gather(x).index_select(0, graph.indices)
    return messages if edge_weight is None else messages * weights_of_edges(graph, edge_weight)


def _largest(graph: Graph, messages: torch.Tensor) -> torch.Tensor:
    """Largest message to each node in every feature, 0 where there is none."""
    largest = messages.new_zeros((graph.destinations, messages.shape[1]))
    rows = graph.destination_of_edge.long()[:, None].expand_as(messages)
    return largest.scatter_reduce(0, rows, messages, "amax", include_self=False)


def _check_same_width(sources: int, destinations: int) -> None:
    if sources != destinations:
        raise SettingError(
            f"features of {sources} and of {destinations} columns",
            'one width for sources and destinations with the aggregator "gcn"',
            'Choose another aggregator, as "mean".',
        )
