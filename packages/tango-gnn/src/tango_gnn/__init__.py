"""Training of graph neural networks in int8, after Tango (SC 2023), for models of DGL and PyG.

>>> import torch
>>> from tango_gnn import Graph, Policy, nn
>>> graph = Graph.from_edges(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0]))
>>> layer = nn.GraphConv(16, 4, activation=torch.relu, policy=Policy(rounding="nearest"))
>>> layer(graph, torch.randn(3, 16)).shape
torch.Size([3, 4])
"""

from tango_gnn import nn, ops
from tango_gnn._bits import choose_bits
from tango_gnn._convert import convert, revert
from tango_gnn._graph import Graph
from tango_gnn._policy import Policy
from tango_gnn._quantized import QuantizedTensor, quantize, relative_error
from tango_gnn.nn import quantized_layers, set_policy

__version__ = "0.1.0"

__all__ = [
    "Graph",
    "Policy",
    "QuantizedTensor",
    "__version__",
    "choose_bits",
    "convert",
    "nn",
    "ops",
    "quantize",
    "quantized_layers",
    "relative_error",
    "revert",
    "set_policy",
]
