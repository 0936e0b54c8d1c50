"""Files of pruned models, about as large as the weights that are left; torch alone reads them.

A file is what ``torch.save`` makes of a plain dict, so ``torch.load(path, weights_only=True)``
opens it::

    {"format": "slr-prune", "version": 1, "tensors": {name: tensor or masked, ...}}

    masked = {"shape": (out, in, ...), "mask": bytes as a uint8 tensor, "values": the kept values}

The mask has one bit an entry, in row-major order, the first in the lowest bit of the first byte,
compressed by zlib: of blocks, rows or channels next to nothing is left, of scattered entries
about their entropy. A tensor is stored masked where that is smaller. Names and shapes are those of
the plain masked model, whatever layers the model was saved with, so that it can be read without
them (``examples/load_with_torch.py``).
"""

from __future__ import annotations

import math
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slr_prune._sparse_layers import SparseLayer
from tenfold import DataError, SettingError
from tenfold.experiment import write_whole

_FORMAT, _VERSION = "slr-prune", 1

# What torch.save adds for a tensor: a header and padding to 64 bytes.
_TENSOR_OVERHEAD = 256


def save(model: nn.Module, path: Path | str) -> None:
    """Write the parameters and buffers of a pruned model, whole or not at all.

    Parameters
    ----------
    model : nn.Module
        With masked, sparse or compacted layers.
    path : Path or str
        File to write; its folder is created.

    Raises
    ------
    SettingError
        The model has state that is not a tensor.
    OutputError
        The file cannot be written.
    """
    encoded: dict[tuple[Any, ...], Any] = {}
    tensors = {}
    for name, tensor in _plain_state(model).items():
        if not isinstance(tensor, Tensor):
            raise SettingError(
                f"state {name!r} of type {type(tensor).__name__}",
                "tensors",
                "Save it beside the model, and the model without it.",
            )
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if not tensor.numel() or identity not in encoded:
            encoded[identity] = _encode(tensor.detach().cpu())
        tensors[name] = encoded[identity]
    content = {"format": _FORMAT, "version": _VERSION, "tensors": tensors}
    write_whole(Path(path), lambda temporary: torch.save(content, temporary))


def load(path: Path | str, model: nn.Module) -> nn.Module:
    """Fill a model with the parameters and buffers of a file that `save` wrote.

    Parameters
    ----------
    path : Path or str
    model : nn.Module
        Of the architecture that was saved, compacted if that was (`load_compacted` does that);
        its layers may be masked or sparse, whichever were saved. Filled in place, or on an error not at all.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    DataError
        The file is missing, truncated or not one of `save`; or names or shapes differ, or a
        weight is not zero where a sparse layer keeps nothing.
    """
    state = read_tensors(Path(path))
    _check_fit(path, state, _plain_state(model))
    plain = dict(state)
    sparse = {}
    for name, layer in _sparse_layers(model):
        sparse[layer] = plain.pop(f"{name}weight"), plain.pop(f"{name}bias", None)
        try:
            layer.check_weight(sparse[layer][0])
        except SettingError as error:
            raise DataError(
                f"{path} has {error.came} (tensor '{name}weight')", error.expected, error.remedy
            ) from error
    model.load_state_dict(plain, strict=False)
    with torch.no_grad():
        for layer, (weight, bias) in sparse.items():
            layer.load_weight(weight)
            if bias is not None and layer.bias is not None:
                layer.bias.copy_(bias)
    return model


def _sparse_layers(model: nn.Module) -> list[tuple[str, SparseLayer]]:
    return [
        (f"{name}." if name else "", module)
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, SparseLayer)
    ]


def _plain_state(model: nn.Module) -> dict[str, Any]:
    """Return the state dict, with that of sparse layers in the names of the layers they stand for."""
    state = dict(model.state_dict())
    for prefix, layer in _sparse_layers(model):
        for name in layer.state_dict(prefix=prefix):
            del state[name]
        state[f"{prefix}weight"] = layer.weight.detach()
        if layer.bias is not None:
            state[f"{prefix}bias"] = layer.bias.detach()
    return state


def _encode(tensor: Tensor) -> Tensor | dict[str, Any]:
    if tensor.untyped_storage().nbytes() != tensor.nbytes:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    zeros = tensor.numel() - int(tensor.count_nonzero())
    if zeros * tensor.itemsize <= _TENSOR_OVERHEAD:
        return tensor
    kept = tensor != 0
    packed = zlib.compress(np.packbits(kept.flatten().numpy(), bitorder="little").tobytes())
    masked = {
        "shape": tuple(tensor.shape),
        "mask": torch.frombuffer(bytearray(packed), dtype=torch.uint8),
        "values": tensor[kept],
    }
    saved = zeros * tensor.itemsize - len(packed)
    return masked if saved > _TENSOR_OVERHEAD else tensor


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file of `save` by name; `DataError` as `load`."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r}")
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']!r}")
        return {name: _decode(entry) for name, entry in content["tensors"].items()}
    except (
        OSError,
        EOFError,
        RuntimeError,
        pickle.UnpicklingError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(
            f"{path} cannot be read ({error})",
            f"a whole file of slr_prune.save, version {_VERSION}",
            "Save the model again, or look for a broken copy.",
        ) from error


def _decode(entry: Tensor | Mapping[str, Any]) -> Tensor:
    if isinstance(entry, Tensor):
        return entry
    shape, values = entry["shape"], entry["values"]
    entries = math.prod(shape)
    size = -(-entries // 8)
    packed = zlib.decompressobj().decompress(entry["mask"].numpy().tobytes(), size + 1)
    if len(packed) != size:
        raise ValueError(f"a mask of {len(packed)} bytes for shape {shape}")
    kept = np.unpackbits(np.frombuffer(packed, np.uint8), count=entries, bitorder="little")
    mask = torch.from_numpy(kept).bool().view(shape)
    if mask.sum() != values.numel():
        raise ValueError(f"{values.numel()} values for a mask of {mask.sum()}")
    tensor = torch.zeros(shape, dtype=values.dtype)
    tensor[mask] = values
    return tensor


def _check_fit(path: Path | str, state: Mapping[str, Tensor], expected: Mapping[str, Any]) -> None:
    for name in [*expected, *state]:
        if name not in state or name not in expected:
            owner, other = (path, "the model") if name in state else ("the model", path)
            raise DataError(
                f"tensor {name!r} is in {owner} and not in {other}",
                "the same names in both",
                "Build the architecture that was saved, compacted if that was.",
            )
        if state[name].shape != expected[name].shape:
            raise DataError(
                f"tensor {name!r} of {path} has shape {tuple(state[name].shape)}",
                f"shape {tuple(expected[name].shape)}, as in the model",
                "Build the architecture that was saved, compacted if that was.",
            )
