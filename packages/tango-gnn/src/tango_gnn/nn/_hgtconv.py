"""Heterogeneous graph transformer of Hu et al., in int8.

With a type for every node and every edge, and for each head

    score_p = (k_j A_t . q_i) pri_t / sqrt(D),    a_p = softmax over in-edges,    h_i = sum_p a_p (v_j M_t)

for the edge p: j -> i of type t, where k, q, v are projections of x by the nodes' types. k_j A_t and v_j M_t
are the same for all edges of one type that leave j. So they are computed once for every such pair (j, t),
which takes the place of the source: attention over types is attention over a graph between pairs and nodes.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from tango_gnn import ops
from tango_gnn._graph import Graph, as_graph
from tango_gnn._policy import Policy
from tango_gnn.nn._layer import QuantizedLayer, pair_of
from tango_gnn.nn._typed_linear import TypedLinear, counts_of_types


class HGTConv(QuantizedLayer):
    """Heterogeneous graph transformer; the arguments are those of ``dgl.nn.HGTConv``.

    Parameters
    ----------
    in_size : int
        Width of the features.
    head_size : int
        Width of a head.
    num_heads : int
    num_ntypes, num_etypes : int
        Numbers of types of nodes and of edges.
    dropout : float
        Of the result, before the residual is added.
    use_norm : bool
        Normalise the result by layer.
    policy : Policy
        What is quantised, and how.

    Attributes
    ----------
    linear_k, linear_q, linear_v, linear_a : TypedLinear
    relation_pri : ParameterList
    relation_att, relation_msg : ModuleList of TypedLinear
        One for each head.
    skip : Parameter, shape (num_ntypes,)
    residual_w : Parameter
        Where the widths of features and result differ.
    """

    def __init__(
        self,
        in_size: int,
        head_size: int,
        num_heads: int,
        num_ntypes: int,
        num_etypes: int,
        dropout: float = 0.2,
        use_norm: bool = False,
        *,
        policy: Policy = Policy(),  # noqa: B008
    ) -> None:
        super().__init__(policy)
        width = head_size * num_heads
        self.in_size = in_size
        self.head_size = head_size
        self.num_heads = num_heads
        self.use_norm = use_norm
        self.linear_k = TypedLinear(in_size, width, num_ntypes)
        self.linear_q = TypedLinear(in_size, width, num_ntypes)
        self.linear_v = TypedLinear(in_size, width, num_ntypes)
        self.linear_a = TypedLinear(width, width, num_ntypes)
        self.relation_pri = nn.ParameterList([nn.Parameter(torch.ones(num_etypes)) for _ in range(num_heads)])
        self.relation_att = nn.ModuleList(
            [TypedLinear(head_size, head_size, num_etypes) for _ in range(num_heads)]
        )
        self.relation_msg = nn.ModuleList(
            [TypedLinear(head_size, head_size, num_etypes) for _ in range(num_heads)]
        )
        self.skip = nn.Parameter(torch.ones(num_ntypes))
        self.drop = nn.Dropout(dropout)
        if use_norm:
            self.norm = nn.LayerNorm(width)
        if in_size != width:
            self.residual_w = nn.Parameter(torch.empty(in_size, width))
            nn.init.xavier_uniform_(self.residual_w)

    def forward(
        self,
        g: Graph,
        x: torch.Tensor,
        ntype: torch.Tensor,
        etype: torch.Tensor,
        *,
        presorted: bool = False,
    ) -> torch.Tensor:
        """Attend to in-edges by types.

        Parameters
        ----------
        g : Graph or DGL graph
        x : Tensor, shape (sources, in_size), float32
        ntype : Tensor, shape (sources,), int64
            Type of every node.
        etype : Tensor, shape (edges,), int64
            Type of every edge, in the graph's own order.
        presorted : bool
            Taken as DGL does; nothing depends on it.

        Returns
        -------
        Tensor, shape (destinations, head_size * num_heads)

        Raises
        ------
        SettingError
            Shapes or types do not fit, or a feature is not finite.
        """
        graph = as_graph(g)
        policy = self.current_policy(x)
        _, x_dst = pair_of(x, graph)
        _, ntype_dst = pair_of(ntype, graph)
        heads = self.num_heads, self.head_size
        k = graph.gather(self.linear_k(x, ntype, policy=policy)).unflatten(-1, heads)
        q = self.linear_q(x_dst, ntype_dst, policy=policy).unflatten(-1, heads)
        v = graph.gather(self.linear_v(x, ntype, policy=policy)).unflatten(-1, heads)

        pairs, nodes, types = graph.split_sources(etype)
        counts_of_types(types, len(self.relation_pri[0]))
        k = _by_head(self.relation_att, k.index_select(0, nodes), types, policy)
        v = _by_head(self.relation_msg, v.index_select(0, nodes), types, policy)
        priority = torch.stack(list(self.relation_pri), 1) / math.sqrt(self.head_size)
        scores = ops.u_dot_v(pairs, k, q, policy=policy) * priority[graph.canonical(etype)]
        h = ops.u_mul_e_sum(pairs, v, ops.edge_softmax(pairs, scores), policy=policy).flatten(1)

        h = self.drop(self.linear_a(h, ntype_dst, policy=policy))
        alpha = torch.sigmoid(self.skip[ntype_dst])[:, None]
        residual = x_dst if x_dst.shape == h.shape else x_dst @ self.residual_w
        blended: torch.Tensor = h * alpha + residual * (1 - alpha)
        return self.norm(blended) if self.use_norm else blended

    def extra_repr(self) -> str:
        """Describe the settings."""
        return f"heads={self.num_heads}, out={self.head_size}, bits={self.bits}"


def _by_head(layers: nn.ModuleList, x: torch.Tensor, types: torch.Tensor, policy: Policy) -> torch.Tensor:
    parts = zip(layers, x.unbind(1), strict=True)
    return torch.stack([layer(part, types, policy=policy) for layer, part in parts], 1)
