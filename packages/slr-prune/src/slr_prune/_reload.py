"""Read a compacted model back: the dense architecture takes its sizes from the file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from slr_prune._compact import HEADS, resize
from slr_prune._files import load, read_tensors
from tenfold import SettingError


def load_compacted(path: Path | str, model: nn.Module) -> nn.Module:
    """Return a copy of a dense model with the weights and the sizes of a file that `save` wrote.

    Parameters
    ----------
    path : Path or str
        Written of what `compact` or `remove_channels` made of such a model.
    model : nn.Module
        Dense, of the architecture that was pruned; left as it is.

    Returns
    -------
    nn.Module
        With plain layers, whatever layers were saved; `sparsify` makes them sparse again.

    Raises
    ------
    DataError
        As `load`: also where a tensor of the file is larger than the model's.
    SettingError
        Attention heads were removed: modules that count their heads must be built smaller.
    """
    state = read_tensors(Path(path))
    smaller = copy.deepcopy(model)
    replaced: dict[int, Tensor] = {}
    for name, module in smaller.named_modules():
        for own, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if id(tensor) not in replaced:
                saved = state.get(f"{name}.{own}" if name else own)
                if saved is None or not _is_cut(saved, tensor):
                    continue
                _check_heads(smaller, name, saved, tensor)
                replaced[id(tensor)] = _empty(saved, tensor)
            setattr(module, own, replaced[id(tensor)])
        resize(module)
    return load(path, smaller)


def _is_cut(saved: Tensor, tensor: Tensor) -> bool:
    return saved.shape != tensor.shape and (
        saved.dim() == tensor.dim()
        and all(new <= old for new, old in zip(saved.shape, tensor.shape, strict=True))
    )


def _empty(saved: Tensor, tensor: Tensor) -> Tensor:
    empty = torch.empty(saved.shape, dtype=tensor.dtype, device=tensor.device)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _check_heads(model: nn.Module, layer: str, saved: Tensor, tensor: Tensor) -> None:
    parent = model.get_submodule(layer.rpartition(".")[0])
    sizes: Mapping[str, object] = {name: getattr(parent, name, None) for name in HEADS}
    if saved.shape[0] < tensor.shape[0] and any(size is not None for size in sizes.values()):
        raise SettingError(
            f"layer {layer!r} of an attention module, saved with fewer heads",
            "a model whose modules do not count their heads",
            "Prune and compact the dense model again, then use load; or keep a program (export_program).",
        )
