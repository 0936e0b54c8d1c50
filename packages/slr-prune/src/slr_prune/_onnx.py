"""Export a pruned model to ONNX, and compare what ONNX Runtime makes of it.

Sparse layers are exported as the dense masked layers they stand for: ONNX has no sparse product.
Its ``sparse_initializer`` makes the file smaller, not the model faster: ONNX Runtime expands it
when it loads.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from slr_prune._example import (
    DeviationError,
    ExampleInputs,
    call_of,
    deviation,
    dynamic_batch,
    evaluating,
    run_model,
    tensors_of,
)
from slr_prune._sparsify import densify
from tenfold import MissingExtraError, SettingError
from tenfold.experiment import write_whole

if TYPE_CHECKING:
    import onnx

_SPARSE_FROM = 0.75
"""Share of zeros from which an initializer is stored sparse: an index takes twice a value's room."""


def export_onnx(
    model: nn.Module,
    path: Path | str,
    example_inputs: ExampleInputs,
    *,
    sparse_initializers: bool = False,
    check: bool = True,
    atol: float = 1e-4,
) -> None:
    """Write a model as an ONNX file; needs the extra ``onnx``.

    Inputs are named as the arguments of the model's ``forward``, outputs by their key or field
    (``logits``), their number, or ``output``.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode when it runs from the file. Removed rows and channels stay removed
        (compacted models, `GatheredLayer`); CSR and BSR layers become dense ones.
    path : Path or str
        File to write; its folder is created.
    example_inputs : Tensor, sequence or mapping
        The one argument, the positional or the keyword arguments of a call. Tensors become inputs,
        anything else a constant. If all their first dimensions are the same and above 1, that is
        the batch dimension and stays open where the model allows.
    sparse_initializers : bool
        Store weights of which at least 75 % are zero in sparse form. The file gets smaller; ONNX
        Runtime takes it, other tools may not.
    check : bool
        Run the file in ONNX Runtime on `example_inputs` and compare with the model.
    atol : float
        Largest absolute difference that the check allows.

    Raises
    ------
    MissingExtraError
        The extra ``onnx`` is not installed.
    SettingError
        The model does not run on `example_inputs`, these hold tensors within lists or mappings, or
        torch cannot export the model.
    DeviationError
        ONNX Runtime's output is off by more than `atol`; no file is left.
    OutputError
        The file cannot be written.
    """
    _require_onnx()
    plain = densify(model, gathered=False)
    expected = tensors_of(run_model(plain, example_inputs))
    call = _FlatCall(plain, example_inputs)
    program = _export(call, list(expected))

    def write(temporary: Path) -> None:
        program.save(temporary, external_data=False)
        if sparse_initializers:
            _make_sparse(temporary)
        if check:
            _check(temporary, call, expected, atol)

    write_whole(Path(path), write)


class _FlatCall(nn.Module):
    """A model as a function from its tensor arguments to a tuple of its tensor outputs."""

    def __init__(self, model: nn.Module, example_inputs: ExampleInputs) -> None:
        super().__init__()
        self.model = model
        self.arguments, self.keywords = call_of(example_inputs)
        names = _argument_names(model, len(self.arguments))
        named = {**dict(zip(names, self.arguments, strict=True)), **self.keywords}
        self.inputs = {name: value for name, value in named.items() if isinstance(value, Tensor)}
        for name, value in named.items():
            if name not in self.inputs and any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
                raise SettingError(
                    f"argument {name!r} that holds tensors within a {type(value).__name__}",
                    "tensors as arguments of their own",
                    "Wrap the model in a module that takes them one by one.",
                )

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)

        def fill(value: Any) -> Any:
            return next(remaining) if isinstance(value, Tensor) else value

        arguments = [fill(value) for value in self.arguments]
        keywords = {name: fill(value) for name, value in self.keywords.items()}
        return tuple(tensors_of(self.model(*arguments, **keywords)).values())


def _argument_names(model: nn.Module, count: int) -> list[str]:
    parameters = inspect.signature(model.forward).parameters.values()
    named = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    return [named[number] if number < len(named) else f"input_{number}" for number in range(count)]


def _export(call: _FlatCall, outputs: Sequence[str]) -> torch.onnx.ONNXProgram:
    tensors = tuple(call.inputs.values())
    with evaluating(call), torch.no_grad():
        try:
            program = torch.onnx.export(
                call,
                tensors,
                dynamo=True,
                dynamic_shapes=(tuple(dynamic_batch(tensors)),),
                input_names=list(call.inputs),
                output_names=list(outputs),
                verbose=False,
            )
        except Exception as error:
            raise SettingError(
                f"a {type(call.model).__name__} that torch.onnx cannot export ({error})",
                "a model of operators that ONNX has, whose control flow does not depend on values",
                "Export the part of it that torch.onnx takes.",
            ) from error
    assert program is not None
    return program


def _make_sparse(path: Path) -> None:
    import onnx

    document = onnx.load(path)
    graph = document.graph
    for tensor in list(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if (
            values.dtype == np.float32
            and values.size - np.count_nonzero(values) >= _SPARSE_FROM * values.size
        ):
            graph.sparse_initializer.append(_sparse_tensor(tensor.name, values))
            graph.initializer.remove(tensor)
    onnx.save(document, path)


def _sparse_tensor(name: str, values: np.ndarray) -> onnx.SparseTensorProto:
    from onnx import helper, numpy_helper

    places = np.flatnonzero(values)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values.ravel()[places], name),
        numpy_helper.from_array(places.astype(np.int64), f"{name}_indices"),
        list(values.shape),
    )


def _check(path: Path, call: _FlatCall, expected: Mapping[str, Tensor], atol: float) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    taken = {each.name for each in session.get_inputs()}
    feed = {name: tensor.detach().cpu().numpy() for name, tensor in call.inputs.items() if name in taken}
    outputs = [torch.from_numpy(np.asarray(each)) for each in session.run(None, feed)]
    error = deviation(dict(zip(expected, outputs, strict=True)), expected)
    if not error <= atol:
        raise DeviationError(
            f"ONNX Runtime's output is off by {error:.2e}",
            f"at most {atol:.0e}",
            "Raise atol if the model's values are large, or export with check=False.",
        )


def _require_onnx() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(
                f"export_onnx was called and {name} is not installed",
                "onnx, onnxruntime and onnxscript",
                "Install them: pip install 'slr-prune[onnx]'.",
            )
