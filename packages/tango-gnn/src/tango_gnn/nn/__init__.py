"""Graph layers that train in int8, with the signatures, parameters and ``state_dict`` keys of ``dgl.nn``.

Every layer takes a `tango_gnn.Graph` or a DGL graph, and a keyword `policy`.
"""

from tango_gnn.nn._gatconv import GATConv
from tango_gnn.nn._graphconv import GraphConv
from tango_gnn.nn._hgtconv import HGTConv
from tango_gnn.nn._layer import QuantizedLayer, quantized_layers, set_policy
from tango_gnn.nn._sageconv import SAGEConv
from tango_gnn.nn._typed_linear import TypedLinear

__all__ = [
    "GATConv",
    "GraphConv",
    "HGTConv",
    "QuantizedLayer",
    "SAGEConv",
    "TypedLinear",
    "quantized_layers",
    "set_policy",
]
