"""Which implementations this machine and this installation have."""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from typing import TYPE_CHECKING

import torch

from tenfold.errors import MissingExtraError

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet

_REMEDY = (
    "Run `make build` in the workspace, or reinstall with a C++17 compiler at hand: "
    "pip install --force-reinstall --no-deps --no-binary tenfold tenfold"
)


def instruction_sets() -> tuple[str, ...]:
    """Instruction sets of the native kernels that this machine runs, the fastest first.

    Each can be forced, as ``"native:avx2"``. Empty when the native kernels are not built.
    """
    return tuple(native_instruction_sets())


@functools.cache
def native_instruction_sets() -> dict[str, InstructionSet]:
    """Map their names to the objects whose methods are the kernels."""
    try:
        from tenfold.kernels import _native
    except ImportError:
        return {}
    return {each.name: each for each in _native.instruction_sets()}


@functools.cache
def warn_without_native() -> None:
    """Say once that the slow implementations stand in for the native ones."""
    warnings.warn(
        f"the native kernels of tenfold are not built; slower ones are used. {_REMEDY}",
        RuntimeWarning,
        stacklevel=5,
    )


def missing_native() -> MissingExtraError:
    """Error for native kernels that were asked for and are not built."""
    return MissingExtraError("the native kernels were asked for and are not built", "a native build", _REMEDY)


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def interprets_triton() -> bool:
    """Whether Triton kernels run on the CPU, through the interpreter meant for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def picks_triton() -> bool:
    """Whether Triton kernels run on a device of this machine."""
    return has_triton() and torch.cuda.is_available()
