"""Programs of ``torch.export``, made prunable again.

An exported program is a graph of ATen operators; its linear and convolution layers are gone, but
their parameters keep their names. A call of ``aten.linear`` or ``aten.conv2d`` whose weight and bias
are those of one former layer is made that layer again, under its name. What other operators do
with parameters (the joint projection of ``nn.MultiheadAttention``) stays as it is and is not pruned.

What a program knows no more is how to train: dropout is gone and batch normalisation is fixed,
as they were in the mode it was exported in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from slr_prune._example import ExampleInputs
from tenfold import DataError, SettingError

_CONVOLUTIONS: dict[Any, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    torch.ops.aten.conv1d.default: nn.Conv1d,
    torch.ops.aten.conv2d.default: nn.Conv2d,
    torch.ops.aten.conv3d.default: nn.Conv3d,
    torch.ops.aten.conv1d.padding: nn.Conv1d,
    torch.ops.aten.conv2d.padding: nn.Conv2d,
    torch.ops.aten.conv3d.padding: nn.Conv3d,
}


def read_program(path: Path) -> tuple[nn.Module, ExampleInputs | None]:
    """Read a ``.pt2`` file as a module with linear and convolution layers.

    Parameters
    ----------
    path : Path

    Returns
    -------
    model : nn.Module
        Computes what the program does; parameters and buffers have the program's names.
    example_inputs : Tensor, sequence or mapping, optional
        Those it was exported with, if the file has them.

    Raises
    ------
    DataError
        The file is missing, truncated or no program.
    SettingError
        No layer can be told in the program.
    """
    try:
        program = torch.export.load(path)
    except Exception as error:  # torch.export.load has no narrower promise about broken files
        raise DataError(
            f"{path} cannot be read as a program ({error})",
            "a whole file of torch.export.save",
            "Export the model again, or look for a broken copy.",
        ) from error
    arguments, keywords = program.example_inputs or ((), {})
    example: ExampleInputs | None = None
    if arguments and not keywords:
        example = arguments[0] if len(arguments) == 1 else arguments
    elif keywords and not arguments:
        example = keywords
    return with_layers(program), example


def with_layers(program: torch.export.ExportedProgram) -> nn.Module:
    """Return a program as a module in which linear and convolution layers are modules again.

    Raises
    ------
    SettingError
        There is no such layer in it.
    """
    module: Any = program.module(check_guards=False)
    layers: dict[str, nn.Module] = {}
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        found = _layer(module, node)
        if found is None:
            continue
        name, layer = found
        known = layers.setdefault(name, layer)
        # Called again with another stride, say: this call stays an operator on the same weight.
        if repr(known) != repr(layer):
            continue
        module.set_submodule(name, known)
        with module.graph.inserting_before(node):
            call = module.graph.call_module(name, (node.args[0],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        module.graph.erase_node(node)
    if not layers:
        raise SettingError(
            "a program in which no linear or convolution layer can be told",
            "calls of aten.linear or aten.conv with weights of their own, as torch.export leaves them",
            "Export the model without run_decompositions, or prune the model it was made of.",
        )
    for node in list(module.graph.nodes):
        if node.op == "get_attr" and not node.users:
            module.graph.erase_node(node)
    # The module of a program refuses train() and eval(); one made anew of its graph does not.
    return torch.fx.GraphModule(module, module.graph)


def _layer(module: nn.Module, node: torch.fx.Node) -> tuple[str, nn.Module] | None:
    """Return the layer that a call stands for, and its name; None if it stands for none."""
    kind = _CONVOLUTIONS.get(node.target)
    if kind is None and node.target is not torch.ops.aten.linear.default:
        return None
    schema: Any = node.target
    given = {argument.name: argument.default_value for argument in schema._schema.arguments}
    given.update(zip(given, node.args, strict=False))
    given.update(node.kwargs)
    name = _owner(module, given["weight"], given["bias"])
    if name is None:
        return None
    holder: Any = module.get_submodule(name)
    weight, bias = holder.weight, getattr(holder, "bias", None)
    layer: Any
    if kind is None:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    else:
        layer = kind(
            weight.shape[1] * given["groups"],
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride=_sizes(given["stride"]),
            padding=_sizes(given["padding"]),
            dilation=_sizes(given["dilation"]),
            groups=given["groups"],
            bias=bias is not None,
            device="meta",
        )
    layer.weight = weight
    layer.register_parameter("bias", bias)
    return name, layer


def _owner(module: nn.Module, weight: Any, bias: Any) -> str | None:
    """Return the name of what holds this weight and bias and nothing else."""
    if not isinstance(weight, torch.fx.Node) or weight.op != "get_attr":
        return None
    name, _, attribute = str(weight.target).rpartition(".")
    if attribute != "weight" or not name:
        return None
    held = set(dict(module.get_submodule(name).named_parameters()))
    wanted = {"weight"}
    if bias is not None:
        if not isinstance(bias, torch.fx.Node) or bias.target != f"{name}.bias":
            return None
        wanted.add("bias")
    return name if held == wanted else None


def _sizes(value: Any) -> Any:
    return value if isinstance(value, str) else tuple(value)
