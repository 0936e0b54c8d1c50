"""Swap the layers of a model of DGL or PyG for ones that compute in int8, and back.

A new layer holds the very parameters of the old one, so that optimizers, checkpoints and the names in
``state_dict`` stay as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import nn

import tango_gnn.nn as tango
from tango_gnn import _pyg
from tango_gnn._policy import Policy
from tango_gnn.nn._layer import QuantizedLayer, quantized_layers, set_policy
from tenfold import SettingError, UnknownNameError

Model = TypeVar("Model", bound=nn.Module)


def convert(model: Model, policy: Policy = Policy(), *, keep: Sequence[str] = ()) -> Model:  # noqa: B008
    """Swap the layers of a model of DGL or PyG, in place, for ones that train in int8.

    GraphConv, GATConv, SAGEConv and HGTConv of DGL, GCNConv, GATConv and SAGEConv of PyG; subclasses of them
    and all other layers stay. The parameters are the same objects.

    Parameters
    ----------
    model : Module
        A layer by itself cannot be swapped in place: use what is returned.
    policy : Policy
        For all layers but the last, which stays in float32 if the policy says so. The last is the one that is
        registered last.
    keep : sequence of str
        Names of further layers to keep in float32.

    Returns
    -------
    Module
        The model.

    Warns
    -----
    UserWarning
        A layer of these types has a setting that is not supported, and stays.

    Raises
    ------
    SettingError
        The model has no layer to swap, or one whose parameters are not initialised or not float32.
    UnknownNameError
        A name in `keep` is of no layer.

    Examples
    --------
    >>> model = dgl.nn.GraphConv(8, 2)  # doctest: +SKIP
    >>> model = tango_gnn.convert(model)  # doctest: +SKIP
    """
    swapped: dict[nn.Module, nn.Module] = {}
    left = []
    for name, layer in model.named_modules():
        make = MAKERS.get(_kind(layer))
        if make is None:
            continue
        refused = _refuse(layer)
        if refused:
            left.append(f"{name or type(layer).__name__} ({refused})")
            continue
        _check_parameters(name, layer)
        new = make(layer, policy)
        new.replaces = (layer,)
        swapped[layer] = new
    if left:
        warnings.warn(f"these layers stay in float32: {', '.join(left)}", stacklevel=2)
    if not swapped:
        raise SettingError(
            f"a {type(model).__name__} without layers that can be swapped",
            f"a model with some of {', '.join('.'.join(kind) for kind in MAKERS)}",
            "Install the library of the model: pip install tango-gnn[dgl] or tango-gnn[pyg]; or build the "
            "model with tango_gnn.nn.",
        )
    model = _swap(model, swapped)
    set_policy(model, policy)
    layers = quantized_layers(model)
    for name in keep:
        if name not in layers:
            raise UnknownNameError("layer", name, layers)
        layers[name].policy = Policy.off()
    return model


def revert(model: Model) -> Model:
    """Undo `convert`, in place: the layers are those of DGL or PyG again, with the parameters as trained.

    Parameters
    ----------
    model : Module

    Returns
    -------
    Module
        The model.

    Raises
    ------
    SettingError
        None of the model's layers came from `convert`.
    """
    swapped: dict[nn.Module, nn.Module] = {}
    for layer in model.modules():
        if isinstance(layer, QuantizedLayer) and layer.replaces:
            (old,) = layer.replaces
            for path, part in layer.named_modules():
                old.get_submodule(path)._parameters.update(part._parameters)
            old.train(layer.training)
            swapped[layer] = old
    if not swapped:
        raise SettingError(
            f"a {type(model).__name__} that was not converted",
            "a model that tango_gnn.convert returned",
            "Call convert first.",
        )
    return _swap(model, swapped)


def _swap(model: Model, swapped: Mapping[nn.Module, nn.Module]) -> Model:
    if model in swapped:
        return cast(Model, swapped[model])
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in swapped:
                parent._modules[name] = swapped[child]
    return model


def _kind(layer: nn.Module) -> tuple[str, str]:
    kind = type(layer)
    return kind.__module__.partition(".")[0], kind.__name__


def _check_parameters(name: str, layer: nn.Module) -> None:
    for part, parameter in layer.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            found = "is not initialised"
        elif parameter.dtype is not torch.float32:
            found = f"is {parameter.dtype}"
        else:
            continue
        raise SettingError(
            f"{part} of {name or type(layer).__name__} {found}",
            "parameters of torch.float32",
            "Run the model once before you convert it, and convert it with .float().",
        )


def _refuse(layer: Any) -> str:
    """Return the setting of a layer that is not supported, if there is one."""
    kind = _kind(layer)
    if kind == ("dgl", "SAGEConv") and layer._aggre_type == "lstm":
        return "aggregator lstm"
    if kind[0] == "torch_geometric":
        if layer.flow != "source_to_target":
            return f"flow {layer.flow}"
        allowed = ("mean", "sum", "add") if kind[1] == "SAGEConv" else ("sum", "add")
        if layer.aggr not in allowed:
            return f"aggregation {layer.aggr}"
        if kind[1] == "GATConv" and layer.edge_dim is not None:
            return "features of edges"
    return ""


def _share(new: QuantizedLayer, layer: nn.Module) -> QuantizedLayer:
    """Give a layer of the same structure the parameters of another."""
    for path, part in layer.named_modules():
        if part._parameters:
            new.get_submodule(path)._parameters.update(part._parameters)
    return new.train(layer.training)


def _graph_conv(layer: Any, policy: Policy) -> QuantizedLayer:
    with torch.device("meta"):
        new = tango.GraphConv(
            layer._in_feats,
            layer._out_feats,
            layer._norm,
            layer.weight is not None,
            layer.bias is not None,
            layer._activation,
            layer._allow_zero_in_degree,
            policy=policy,
        )
    return _share(new, layer)


def _gat_conv(layer: Any, policy: Policy) -> QuantizedLayer:
    widths = layer._in_src_feats, layer._in_dst_feats
    with torch.device("meta"):
        new = tango.GATConv(
            widths[0] if hasattr(layer, "fc") else widths,
            layer._out_feats,
            layer._num_heads,
            layer.feat_drop.p,
            layer.attn_drop.p,
            layer.leaky_relu.negative_slope,
            layer.res_fc is not None,
            layer.activation,
            layer._allow_zero_in_degree,
            layer.bias is not None or getattr(layer.res_fc, "bias", None) is not None,
            policy=policy,
        )
    return _share(new, layer)


def _sage_conv(layer: Any, policy: Policy) -> QuantizedLayer:
    with torch.device("meta"):
        new = tango.SAGEConv(
            (layer._in_src_feats, layer._in_dst_feats),
            layer._out_feats,
            layer._aggre_type,
            layer.feat_drop.p,
            (layer.fc_self.bias if hasattr(layer, "fc_self") else layer.bias) is not None,
            layer.norm,
            layer.activation,
            policy=policy,
        )
    return _share(new, layer)


def _hgt_conv(layer: Any, policy: Policy) -> QuantizedLayer:
    with torch.device("meta"):
        new = tango.HGTConv(
            layer.in_size,
            layer.head_size,
            layer.num_heads,
            layer.linear_k.num_types,
            layer.relation_att[0].num_types,
            layer.drop.p,
            layer.use_norm,
            policy=policy,
        )
    return _share(new, layer)


MAKERS: Mapping[tuple[str, str], Callable[[Any, Policy], QuantizedLayer]] = {
    ("dgl", "GraphConv"): _graph_conv,
    ("dgl", "GATConv"): _gat_conv,
    ("dgl", "SAGEConv"): _sage_conv,
    ("dgl", "HGTConv"): _hgt_conv,
    ("torch_geometric", "GCNConv"): _pyg.PyGGCNConv,
    ("torch_geometric", "GATConv"): _pyg.PyGGATConv,
    ("torch_geometric", "SAGEConv"): _pyg.PyGSAGEConv,
}
"""What makes the new layer, by the library and the name of the old one's class."""
