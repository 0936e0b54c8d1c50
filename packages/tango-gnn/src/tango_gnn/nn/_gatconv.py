"""Graph attention of Velickovic et al., in int8.

    f = x W,    a_p = softmax_{p: j -> i} leaky_relu(l . f_j + r . f_i),    h_i = sum_p a_p f_j

for each head. x and W are quantised for the product, f once for the sum over in-edges and the gradient of a.
The attention a multiplies int8 rows in float32: as fast as the paper's int8 by int8, and more accurate.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import init

from tango_gnn import ops
from tango_gnn._graph import Graph, as_graph
from tango_gnn._policy import Policy
from tango_gnn.nn._layer import (
    Activation,
    Features,
    QuantizedLayer,
    activate,
    check_in_degrees,
    pair_of,
    weights_of_edges,
)


class GATConv(QuantizedLayer):
    """Graph attention; the arguments are those of ``dgl.nn.GATConv``.

    Parameters
    ----------
    in_feats : int or pair of int
        Width of the features, or of sources' and destinations' with a weight each.
    out_feats : int
        Width of a head.
    num_heads : int
    feat_drop, attn_drop : float
        Dropout of the features and of the attention.
    negative_slope : float
        Of the leaky ReLU.
    residual : bool
        Add the destinations' features, times a weight where the widths differ.
    activation : callable, optional
        Applied last.
    allow_zero_in_degree : bool
        Accept nodes without in-edges.
    bias : bool
        Have a bias.
    policy : Policy
        What is quantised, and how.

    Attributes
    ----------
    fc, or fc_src and fc_dst : Linear
    attn_l, attn_r : Parameter, shape (1, num_heads, out_feats)
    res_fc : Linear, Identity or None
    bias : Parameter, shape (num_heads * out_feats,), or None

    Examples
    --------
    >>> graph = Graph.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]))
    >>> GATConv(4, 2, num_heads=3)(graph, torch.ones(2, 4)).shape
    torch.Size([2, 3, 2])
    """

    bias: nn.Parameter | None
    res_fc: nn.Module | None

    def __init__(
        self,
        in_feats: int | tuple[int, int],
        out_feats: int,
        num_heads: int,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        residual: bool = False,
        activation: Activation | None = None,
        allow_zero_in_degree: bool = False,
        bias: bool = True,
        *,
        policy: Policy = Policy(),  # noqa: B008
    ) -> None:
        super().__init__(policy)
        self._num_heads = num_heads
        self._out_feats = out_feats
        self._allow_zero_in_degree = allow_zero_in_degree
        width = num_heads * out_feats
        if isinstance(in_feats, tuple):
            self._in_src_feats, self._in_dst_feats = in_feats
            self.fc_src = nn.Linear(self._in_src_feats, width, bias=False)
            self.fc_dst = nn.Linear(self._in_dst_feats, width, bias=False)
        else:
            self._in_src_feats = self._in_dst_feats = in_feats
            self.fc = nn.Linear(in_feats, width, bias=False)
        self.attn_l = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.attn_r = nn.Parameter(torch.empty(1, num_heads, out_feats))
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        if not residual:
            self.res_fc = None
        elif self._in_dst_feats != width:
            self.res_fc = nn.Linear(self._in_dst_feats, width, bias=bias)
        else:
            self.res_fc = nn.Identity()
        self.bias = (
            nn.Parameter(torch.empty(width)) if bias and not isinstance(self.res_fc, nn.Linear) else None
        )
        self.reset_parameters()
        self.activation = activation

    def reset_parameters(self) -> None:
        """Draw the weights anew, and set the bias to zero."""
        gain = init.calculate_gain("relu")
        for layer in self._projections():
            init.xavier_normal_(layer.weight, gain=gain)
        init.xavier_normal_(self.attn_l, gain=gain)
        init.xavier_normal_(self.attn_r, gain=gain)
        if self.bias is not None:
            init.zeros_(self.bias)
        if isinstance(self.res_fc, nn.Linear):
            init.xavier_normal_(self.res_fc.weight, gain=gain)
            if self.res_fc.bias is not None:
                init.zeros_(self.res_fc.bias)

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Set whether nodes without in-edges are accepted."""
        self._allow_zero_in_degree = set_value

    def forward(
        self,
        graph: Graph,
        feat: Features,
        edge_weight: torch.Tensor | None = None,
        get_attention: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Attend to in-edges.

        Parameters
        ----------
        graph : Graph or DGL graph
        feat : Tensor, shape (sources, ..., in_feats), float32, or a pair for sources and destinations
        edge_weight : Tensor, shape (edges,), optional
            Factor of every edge's attention, in the graph's own order.
        get_attention : bool
            Return the attention, too.

        Returns
        -------
        Tensor, shape (destinations, ..., num_heads, out_feats)
        Tensor, shape (edges, ..., num_heads, 1)
            With `get_attention`: the attention, in the graph's own order.

        Raises
        ------
        SettingError
            Shapes or types do not fit, a feature is not finite, or a node has no in-edge.
        """
        graph = as_graph(graph)
        check_in_degrees(graph, self._allow_zero_in_degree)
        fc_src, *others = self._projections()
        if isinstance(feat, tuple):
            h_src, h_dst = self.feat_drop(feat[0]), self.feat_drop(feat[1])
        else:
            h_src = self.feat_drop(feat)
            _, h_dst = pair_of(h_src, graph)
        policy = self.current_policy(h_src)
        heads = self._num_heads, self._out_feats
        f = graph.gather(self._by_head(ops.linear(h_src, fc_src.weight, policy=policy)))
        attn_l, attn_r = (
            vector.repeat(1, f.shape[1] // self._num_heads, 1) for vector in (self.attn_l, self.attn_r)
        )
        if isinstance(feat, tuple):
            fc_dst = others[0] if others else fc_src
            f_dst = self._by_head(ops.linear(h_dst, fc_dst.weight, policy=policy))
            left = ops.head_dot(f, attn_l, policy=policy)[:, 0]
            right = ops.head_dot(f_dst, attn_r, policy=policy)[:, 0]
        else:
            left, right = ops.head_dot(f, torch.cat([attn_l, attn_r]), policy=policy).unbind(1)
            _, right = pair_of(right, graph)
        slope = self.leaky_relu.negative_slope
        drops = self.training and self.attn_drop.p > 0
        if edge_weight is None and not drops and not get_attention:
            h = ops.attention_sum(graph, f, left, right, policy=policy, slope=slope)
        else:
            a = self.attn_drop(ops.edge_attention(graph, left, right, policy=policy, slope=slope))
            if edge_weight is not None:
                a = a * weights_of_edges(graph, edge_weight)
            h = ops.u_mul_e_sum(graph, f, a, policy=policy)
        # A sum in place costs its gradient a copy where it is on a view.
        if h_dst.dim() > 2:
            h = h.view(*h_dst.shape[:-1], *heads)
        if isinstance(self.res_fc, nn.Linear):
            h += ops.linear(h_dst, self.res_fc.weight, self.res_fc.bias, policy=policy).view(h.shape)
        elif self.res_fc is not None:
            h += h_dst.unflatten(-1, heads)
        if self.bias is not None:
            h += self.bias.view(heads)
        h = activate(self.activation, h)
        if get_attention:
            return h, graph.given(a).reshape(graph.edges, *h.shape[1:-1], 1)
        return h

    def _by_head(self, f: torch.Tensor) -> torch.Tensor:
        """Shape (nodes, heads, width): what further dimensions the features have are more heads."""
        heads: torch.Tensor = f.unflatten(-1, (-1, self._out_feats))
        return heads.flatten(1, -2)

    def _projections(self) -> list[nn.Linear]:
        return [self.fc] if hasattr(self, "fc") else [self.fc_src, self.fc_dst]

    def extra_repr(self) -> str:
        """Describe the settings."""
        return f"heads={self._num_heads}, out={self._out_feats}, bits={self.bits}"
