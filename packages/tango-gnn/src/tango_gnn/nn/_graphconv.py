"""Graph convolution of Kipf and Welling, in int8.

    h_i = act( sum_{j -> i} x_j W / c_ij + b ),        c_ij = sqrt(deg(j) deg(i))

The sum runs over the narrower of x and x W. Where it comes first, x is quantised with 1 / sqrt(deg(j)), the
sum is written with 1 / sqrt(deg(i)) and its largest magnitude, quantised once, and multiplied with bias and
ReLU in the same pass; nothing but int8 is kept for the gradient.
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
    is_relu,
    pair_of,
    weights_of_edges,
)
from tenfold import SettingError, UnknownNameError

NORMS = {"both": (-0.5, -0.5), "left": (-1.0, None), "right": (None, -1.0), "none": (None, None)}


class GraphConv(QuantizedLayer):
    """Graph convolution; the arguments are those of ``dgl.nn.GraphConv``.

    Parameters
    ----------
    in_feats, out_feats : int
        Widths of the features.
    norm : {"both", "right", "left", "none"}
        Divide by the roots of both degrees, by the in-degree, by the out-degree, or not at all.
    weight : bool
        Have a weight matrix.
    bias : bool
        Have a bias.
    activation : callable, optional
        Applied last. A ReLU costs no pass of its own where it can be fused.
    allow_zero_in_degree : bool
        Accept nodes without in-edges.
    policy : Policy
        What is quantised, and how.

    Attributes
    ----------
    weight : Parameter, shape (in_feats, out_feats), or None
    bias : Parameter, shape (out_feats,), or None

    Raises
    ------
    UnknownNameError
        `norm` is none of the four.

    Examples
    --------
    >>> graph = Graph.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]))
    >>> GraphConv(4, 2)(graph, torch.ones(2, 4)).shape
    torch.Size([2, 2])
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        norm: str = "both",
        weight: bool = True,
        bias: bool = True,
        activation: Activation | None = None,
        allow_zero_in_degree: bool = False,
        *,
        policy: Policy = Policy(),  # noqa: B008
    ) -> None:
        super().__init__(policy)
        if norm not in NORMS:
            raise UnknownNameError("norm", norm, NORMS)
        self._in_feats = in_feats
        self._out_feats = out_feats
        self._norm = norm
        self._allow_zero_in_degree = allow_zero_in_degree
        self.weight = nn.Parameter(torch.empty(in_feats, out_feats)) if weight else None
        self.bias = nn.Parameter(torch.empty(out_feats)) if bias else None
        self.reset_parameters()
        self._activation = activation

    def reset_parameters(self) -> None:
        """Draw the weight anew, and set the bias to zero."""
        if self.weight is not None:
            init.xavier_uniform_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Set whether nodes without in-edges are accepted."""
        self._allow_zero_in_degree = set_value

    def forward(
        self,
        graph: Graph,
        feat: Features,
        weight: torch.Tensor | None = None,
        edge_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Convolve features.

        Parameters
        ----------
        graph : Graph or DGL graph
        feat : Tensor, shape (sources, ..., in_feats), float32, or a pair of which the first is taken
        weight : Tensor, shape (in_feats, out_feats), optional
            The weight of a layer that has none of its own.
        edge_weight : Tensor, shape (edges,), optional
            Factor of every edge, in the graph's own order.

        Returns
        -------
        Tensor, shape (destinations, ..., out_feats)

        Raises
        ------
        SettingError
            Shapes or types do not fit, a feature is not finite, a node has no in-edge, or there are two
            weights.
        """
        graph = as_graph(graph)
        check_in_degrees(graph, self._allow_zero_in_degree)
        if weight is not None and self.weight is not None:
            raise SettingError(
                "an external weight for a layer that has its own",
                "one weight",
                "Construct the layer with weight=False.",
            )
        x, _ = pair_of(feat, graph)
        weight = self.weight if weight is None else weight
        policy = self.current_policy(x)
        left, right = NORMS[self._norm]
        norms = {
            "source_scale": None if left is None else graph.degree_power("out", left),
            "destination_scale": None if right is None else graph.degree_power("in", right),
        }
        if weight is None or self._in_feats > self._out_feats:
            h = x if weight is None else ops.linear(x, weight.t(), policy=policy)
            h = aggregate(graph, h, edge_weight, policy=policy, **norms)
            if self.bias is not None:
                h += self.bias
            return activate(self._activation, h)
        relu = is_relu(self._activation)
        if edge_weight is None:
            h = ops.convolution(
                graph, graph.gather(x), weight.t(), self.bias, policy=policy, relu=relu, **norms
            )
        else:
            h = aggregate(graph, x, edge_weight, policy=policy, **norms)
            h = ops.linear(h, weight.t(), self.bias, policy=policy, relu=relu)
        return h if relu else activate(self._activation, h)

    def extra_repr(self) -> str:
        """Describe the settings."""
        return (
            f"in={self._in_feats}, out={self._out_feats}, normalization={self._norm}, "
            f"activation={self._activation}, bits={self.bits}"
        )


def aggregate(
    graph: Graph,
    x: torch.Tensor,
    edge_weight: torch.Tensor | None,
    *,
    policy: Policy,
    source_scale: torch.Tensor | None = None,
    destination_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum features over in-edges, times the edges' weights if they have any."""
    x = graph.gather(x)
    if edge_weight is None:
        return ops.copy_u_sum(
            graph, x, policy=policy, source_scale=source_scale, destination_scale=destination_scale
        )
    rows = x.reshape(x.shape[0], 1, -1)
    if source_scale is not None:
        rows = rows * source_scale[:, None, None]
    z = ops.u_mul_e_sum(graph, rows, weights_of_edges(graph, edge_weight), policy=policy)
    if destination_scale is not None:
        z = z * destination_scale[:, None, None]
    return z.reshape(graph.destinations, *x.shape[1:])
