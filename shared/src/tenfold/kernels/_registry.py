"""Operators by name, each with its implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

from tenfold.errors import SettingError, UnknownNameError

IMPLEMENTATIONS = ("reference", "native", "triton")
"""Names of the implementations an operator may have."""

Result = TypeVar("Result")
Implementation = TypeVar("Implementation", bound=Callable[..., Any])

_OPERATORS: dict[str, Operator[Any]] = {}


class Operator(Generic[Result]):
    """An operator and its implementations; making one registers it.

    All implementations take the same arguments, already checked, and return the same. A native
    one takes the instruction set to use before them.

    Parameters
    ----------
    name : str
        What it is listed as.
    summary : str
        One line on what it computes.
    types : tuple of torch.dtype
        Types of the tensor that decides, see `choose`, which the native and the Triton implementations
        take; the reference may take more.

    Raises
    ------
    SettingError
        Another operator has the name already.

    Examples
    --------
    >>> double: Operator[torch.Tensor] = Operator("double", "x + x")
    >>> @double.implementation("reference")
    ... def _reference(x):
    ...     return x + x
    """

    def __init__(self, name: str, summary: str, types: tuple[torch.dtype, ...] = (torch.float32,)) -> None:
        if name in _OPERATORS:
            raise SettingError(f"a second operator is named {name!r}", "names that differ", "Choose another.")
        self.name = name
        self.summary = summary
        self.types = types
        self.implementations: dict[str, Callable[..., Result]] = {}
        _OPERATORS[name] = self

    def implementation(self, name: str) -> Callable[[Implementation], Implementation]:
        """Register a function as the implementation `name`, as a decorator."""
        if name not in IMPLEMENTATIONS:
            raise UnknownNameError("kernel implementation", name, IMPLEMENTATIONS)

        def register(function: Implementation) -> Implementation:
            self.implementations[name] = function
            return function

        return register


def operators() -> tuple[Operator[Any], ...]:
    """All registered operators, in the order of their names."""
    return tuple(_OPERATORS[name] for name in sorted(_OPERATORS))


def get_operator(name: str) -> Operator[Any]:
    """Look an operator up by its name.

    Raises
    ------
    UnknownNameError
        No operator has the name.
    """
    if name not in _OPERATORS:
        raise UnknownNameError("operator", name, _OPERATORS)
    return _OPERATORS[name]
