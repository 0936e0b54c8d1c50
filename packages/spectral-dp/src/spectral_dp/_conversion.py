"""Replacing layers of a model by name, all or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

from tenfold import SettingError

Layer = TypeVar("Layer", bound=nn.Module)
Setting = TypeVar("Setting")


def replace_layers(
    model: nn.Module,
    kind: type[Layer],
    settings: Mapping[str, Setting],
    make: Callable[[Layer, Setting], nn.Module],
) -> nn.Module:
    """Replace layers of `model` in place, wherever they stand in it.

    Parameters
    ----------
    model : nn.Module
    kind : type
        Of the layers, exactly.
    settings : mapping
        What `make` needs, by the name of the layer in ``model.named_modules()``.
    make : callable
        Return the replacement of a layer. If it raises an error, nothing is replaced.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    SettingError
        A name is not that of a layer of `kind` inside the model.
    """
    layers = dict(model.named_modules())
    replacements: dict[nn.Module, nn.Module] = {}
    for name, setting in settings.items():
        layer = layers.get(name)
        if type(layer) is not kind or not name:
            raise SettingError(
                f"{name!r} names {type(layer).__name__ if name in layers else 'nothing'}",
                f"the name of an nn.{kind.__name__} inside the model",
                "See model.named_modules().",
            )
        replacements[layer] = make(layer, setting)
    for parent in layers.values():
        # Not named_children, which leaves out the second name of a layer that is used twice.
        for name, child in list(parent._modules.items()):
            if child in replacements:
                setattr(parent, name, replacements[child])
    return model
