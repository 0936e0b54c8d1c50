"""The decorator of compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function by numba, once a machine: the code is kept on disk beside the source.

    Sums keep their order (no fast-math), so that results are those of NumPy to rounding.
    """
    return cast(F, numba.njit(cache=True)(function))
