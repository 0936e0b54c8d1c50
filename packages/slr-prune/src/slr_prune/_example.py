"""Example inputs: run a model on them, and say how far two outputs are apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tenfold import SettingError, TenfoldError

ExampleInputs: TypeAlias = Tensor | Sequence[Any] | Mapping[str, Any]


class DeviationError(TenfoldError, ArithmeticError):
    """A converted or exported model computes something else than the model it came from."""


def run_model(model: nn.Module, example_inputs: ExampleInputs) -> Any:
    """Run `model` in evaluation mode and without gradients.

    Parameters
    ----------
    model : nn.Module
    example_inputs : Tensor, sequence or mapping
        The one argument, the positional arguments, or the keyword arguments.

    Raises
    ------
    SettingError
        The model does not run on them.
    """
    arguments, keywords = call_of(example_inputs)
    with evaluating(model), torch.no_grad():
        try:
            return model(*arguments, **keywords)
        except Exception as error:
            raise SettingError(
                f"a {type(model).__name__} that does not run on example_inputs ({error})",
                "a tensor, a sequence of arguments or a mapping of keyword arguments that it takes",
                "Pass what one call of the model gets, say a batch of two.",
            ) from error


def call_of(example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments of a call."""
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    return tuple(example_inputs), {}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put all modules into evaluation mode within a ``with`` block."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def dynamic_batch(tensors: Sequence[Tensor]) -> list[dict[int, Any] | None]:
    """Return, for each input, which dimensions an export should leave open.

    The first dimension of all inputs, if it is the same and above 1: an export takes a size of 1
    for a constant. Otherwise none.
    """
    batches = {tensor.shape[0] for tensor in tensors if tensor.dim()}
    if len(batches) != 1 or min(batches) < 2:
        return [None] * len(tensors)
    return [{0: torch.export.Dim.AUTO} if tensor.dim() else None for tensor in tensors]


def tensors_of(output: Any, name: str = "output") -> dict[str, Tensor]:
    """Return the tensors in a model's output by name.

    Entries of mappings and fields of dataclasses keep their names, elements of sequences get
    their number; what lies deeper is joined by dots (``hidden_states.0``).
    """
    if isinstance(output, Tensor):
        return {name: output}
    if isinstance(output, Mapping):
        parts = {str(key): value for key, value in output.items()}
    elif dataclasses.is_dataclass(output):
        parts = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    elif isinstance(output, list | tuple):
        parts = {str(number): value for number, value in enumerate(output)}
    else:
        return {}
    prefix = "" if name == "output" else f"{name}."
    return {
        label: tensor
        for key, value in parts.items()
        for label, tensor in tensors_of(value, prefix + key).items()
    }


def deviation(output: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the largest absolute difference; infinite where names, shapes or NaN differ."""
    if output.keys() != expected.keys():
        return torch.inf
    largest = 0.0
    for name, reference in expected.items():
        tensor = output[name]
        if tensor.shape != reference.shape:
            return torch.inf
        different = tensor.ne(reference) & ~(tensor.isnan() & reference.isnan())
        if different.any():
            apart = (tensor[different].double() - reference[different].double()).abs()
            largest = max(largest, apart.nan_to_num(torch.inf, torch.inf).max().item())
    return largest


def magnitude(output: Mapping[str, Tensor]) -> float:
    """Return the largest absolute value that is finite."""
    tensors = (tensor.double().abs() for tensor in output.values() if tensor.numel())
    return max((tensor.nan_to_num(0, 0, 0).max().item() for tensor in tensors), default=0.0)


def relative_deviation(output: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return `deviation` as a share of the largest value expected."""
    return deviation(output, expected) / (magnitude(expected) or 1.0)


def tolerance(output: Mapping[str, Tensor]) -> float:
    """Return how far a converted model may be off, as a share of the largest value."""
    types = (tensor.dtype for tensor in output.values() if tensor.is_floating_point())
    return max([1e-4, *(8 * torch.finfo(dtype).eps for dtype in types)])
