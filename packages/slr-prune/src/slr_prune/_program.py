"""Export a pruned model as a program that torch alone loads and runs."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from slr_prune._example import ExampleInputs, call_of, dynamic_batch, evaluating, run_model
from slr_prune._sparsify import densify
from tenfold import SettingError
from tenfold.experiment import write_whole


def export_program(model: nn.Module, path: Path | str, example_inputs: ExampleInputs) -> None:
    """Write a model as a ``.pt2`` file, for ``torch.export.load(path).module()``.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode when it runs from the file. Removed rows and channels stay removed
        (compacted models, `GatheredLayer`); CSR and BSR layers become dense ones, since their
        kernels are not torch's.
    path : Path or str
        File to write; its folder is created.
    example_inputs : Tensor, sequence or mapping
        The one argument, the positional or the keyword arguments of a call. If all their first
        dimensions are the same and above 1, that is the batch dimension and stays open where the
        model allows.

    Raises
    ------
    SettingError
        The model does not run on `example_inputs`, or torch cannot export it.
    OutputError
        The file cannot be written.
    """
    plain = densify(model, gathered=False)
    run_model(plain, example_inputs)
    arguments, keywords = call_of(example_inputs)
    call = keywords or arguments
    open_dimensions = iter(dynamic_batch([leaf for leaf in tree_leaves(call) if isinstance(leaf, Tensor)]))
    shapes = tree_map(lambda leaf: next(open_dimensions) if isinstance(leaf, Tensor) else None, call)
    with evaluating(plain):
        try:
            program = torch.export.export(plain, arguments, keywords, dynamic_shapes=shapes)
        except Exception as error:
            raise SettingError(
                f"a {type(model).__name__} that torch.export cannot export ({error})",
                "a model whose control flow does not depend on values",
                "Export the part of it that torch.export takes.",
            ) from error
    buffer = io.BytesIO()
    torch.export.save(program, buffer)

    def write(temporary: Path) -> None:
        temporary.write_bytes(buffer.getbuffer())

    write_whole(Path(path), write)
