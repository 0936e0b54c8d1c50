"""Which implementation of an operator a call uses.

In this order: the argument ``implementation=``, the innermost `use`, the environment variable
``TENFOLD_KERNELS``, and else the best that fits the tensor.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tenfold.errors import MissingExtraError, SettingError, UnknownNameError
from tenfold.kernels._availability import (
    has_triton,
    interprets_triton,
    missing_native,
    native_instruction_sets,
    picks_triton,
    warn_without_native,
)
from tenfold.kernels._registry import IMPLEMENTATIONS, Operator, get_operator

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet

AUTOMATIC = "auto"

Result = TypeVar("Result")

_forced: ContextVar[str] = ContextVar("tenfold_kernels", default="")


@dataclass(frozen=True)
class Choice:
    """An implementation, and for native ones the instruction set."""

    implementation: str
    instruction_set: InstructionSet | None = None

    def of(self, operator: Operator[Result]) -> Callable[..., Result]:
        """Return the function that implements `operator`."""
        function = operator.implementations[self.implementation]
        return partial(function, self.instruction_set) if self.instruction_set else function

    def __str__(self) -> str:
        return f"native:{self.instruction_set.name}" if self.instruction_set else self.implementation


@contextmanager
def use(implementation: str) -> Iterator[None]:
    """Force an implementation for every kernel called inside the context.

    Parameters
    ----------
    implementation : str
        ``"reference"``, ``"native"``, ``"triton"``, ``"native:"`` with one of
        `instruction_sets`, or ``"auto"`` for the default.

    Raises
    ------
    UnknownNameError
        There is no such implementation, or the machine lacks the instruction set.
    MissingExtraError
        It is not built or not installed.

    Examples
    --------
    >>> with kernels.use("reference"):
    ...     product = kernels.csr_matmul(crow_indices, col_indices, values, dense)
    """
    if implementation != AUTOMATIC:
        _parse(implementation)
    token = _forced.set(implementation)
    try:
        yield
    finally:
        _forced.reset(token)


def picks(name: str) -> dict[str, str]:
    """Name the implementation of an operator that tensors of its first type get by default, by device.

    Returns
    -------
    dict of str to str
        The key is ``"cpu"`` or ``"cuda"``, the latter only where torch sees a device.

    Raises
    ------
    UnknownNameError
        No operator has the name.
    """
    operator = get_operator(name)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return {
        device: str(_best(operator, torch.empty(0, device=device, dtype=operator.types[0])))
        for device in devices
    }


def choose(operator: Operator[Any], tensor: torch.Tensor, implementation: str | None = None) -> Choice:
    """Choose the implementation of `operator` for arguments like `tensor`.

    Raises
    ------
    UnknownNameError
        The implementation asked for does not exist.
    MissingExtraError
        It is not built or not installed.
    SettingError
        It does not take tensors of this type or on this device.
    """
    name = implementation or _forced.get() or os.environ.get("TENFOLD_KERNELS") or AUTOMATIC
    if name == AUTOMATIC:
        return _best(operator, tensor)
    choice = _parse(name)
    if choice.implementation not in operator.implementations:
        raise SettingError(
            f"{operator.name} has no implementation {choice.implementation!r}",
            f"one of {', '.join(operator.implementations)}",
            f"Call it with implementation={AUTOMATIC!r} to let the machine choose.",
        )
    _check_fits(operator, choice, tensor)
    return choice


def _best(operator: Operator[Any], tensor: torch.Tensor) -> Choice:
    if tensor.dtype in operator.types:
        if tensor.is_cpu and "native" in operator.implementations:
            fastest = _fastest_native()
            if fastest is not None:
                return fastest
            warn_without_native()
        elif tensor.is_cuda and "triton" in operator.implementations and picks_triton():
            return Choice("triton")
    return Choice("reference")


@functools.cache
def _fastest_native() -> Choice | None:
    for instruction_set in native_instruction_sets().values():
        return Choice("native", instruction_set)
    return None


def _parse(name: str) -> Choice:
    implementation, _, instruction_set = name.partition(":")
    if implementation not in IMPLEMENTATIONS or (instruction_set and implementation != "native"):
        raise UnknownNameError("kernel implementation", name, [*IMPLEMENTATIONS, AUTOMATIC])
    if implementation == "native":
        fastest = _fastest_native()
        if fastest is None:
            raise missing_native()
        if not instruction_set:
            return fastest
        available = native_instruction_sets()
        if instruction_set not in available:
            raise UnknownNameError("instruction set of this machine", instruction_set, available)
        return Choice("native", available[instruction_set])
    if implementation == "triton" and not has_triton():
        raise MissingExtraError(
            "the Triton kernels were asked for without Triton",
            "Triton to be installed",
            "Run: pip install triton",
        )
    return Choice(implementation)


def _check_fits(operator: Operator[Any], choice: Choice, tensor: torch.Tensor) -> None:
    types = " or ".join(str(each) for each in operator.types)
    if choice.implementation == "native" and not (tensor.is_cpu and tensor.dtype in operator.types):
        raise SettingError(
            f"the native {operator.name} was asked for with {tensor.dtype} on {tensor.device}",
            f"{types} on the CPU",
            "Convert the tensors, or choose another implementation.",
        )
    if choice.implementation == "triton":
        if tensor.dtype not in operator.types:
            raise SettingError(
                f"the Triton {operator.name} was asked for with {tensor.dtype}",
                types,
                "Convert the tensors, or choose another implementation.",
            )
        if not (tensor.is_cuda or interprets_triton()):
            raise SettingError(
                f"the Triton {operator.name} was asked for with tensors on {tensor.device}",
                "tensors on a CUDA device",
                "Move the tensors, choose another implementation, or for a test on the CPU set "
                "TRITON_INTERPRET=1 before Python starts.",
            )
