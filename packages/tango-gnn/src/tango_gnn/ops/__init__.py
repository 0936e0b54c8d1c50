"""Operators of graph neural networks in int8, with their gradients, named as in ``dgl.ops``.

Each takes a `tango_gnn.Graph` and float32 tensors, quantises what its policy says, and returns float32.
Values of edges are in the graph's canonical order. With ``policy=Policy.off()`` each computes in float32.
"""

from tango_gnn.ops._attention import attention_sum, edge_attention, edge_softmax
from tango_gnn.ops._convolution import convolution
from tango_gnn.ops._head_dot import head_dot
from tango_gnn.ops._linear import linear
from tango_gnn.ops._sddmm import u_add_v, u_dot_v
from tango_gnn.ops._spmm import copy_e_sum, copy_u_sum, u_mul_e_sum

__all__ = [
    "attention_sum",
    "convolution",
    "copy_e_sum",
    "copy_u_sum",
    "edge_attention",
    "edge_softmax",
    "head_dot",
    "linear",
    "u_add_v",
    "u_dot_v",
    "u_mul_e_sum",
]
