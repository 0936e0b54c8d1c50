"""A linear layer with one weight for every type of its rows: y = x W_t, in int8."""

from __future__ import annotations

import math

import torch
from torch import nn

from tango_gnn import ops
from tango_gnn._policy import Policy
from tenfold import SettingError


class TypedLinear(nn.Module):
    """Linear layer by types; parameter and initialisation are those of ``dgl.nn.TypedLinear``.

    Parameters
    ----------
    in_size, out_size : int
    num_types : int

    Attributes
    ----------
    W : Parameter, shape (num_types, in_size, out_size)
    """

    def __init__(self, in_size: int, out_size: int, num_types: int) -> None:
        super().__init__()
        self.num_types = num_types
        self.W = nn.Parameter(torch.empty(num_types, in_size, out_size))
        bound = 1 / math.sqrt(in_size)
        nn.init.uniform_(self.W, -bound, bound)

    def forward(self, x: torch.Tensor, types: torch.Tensor, *, policy: Policy) -> torch.Tensor:
        """Multiply every row by the weight of its type.

        Parameters
        ----------
        x : Tensor, shape (rows, in_size), float32
        types : Tensor, shape (rows,), int64
        policy : Policy
            Of a fixed width.

        Returns
        -------
        Tensor, shape (rows, out_size)

        Raises
        ------
        SettingError
            A type is out of range, or shapes do not fit.
        """
        counts = counts_of_types(types, self.num_types)
        order = torch.argsort(types, stable=True)
        parts = x.index_select(0, order).split(counts)
        products = [
            ops.linear(part, weight.t(), policy=policy) for part, weight in zip(parts, self.W, strict=True)
        ]
        return torch.cat(products).index_select(0, torch.argsort(order))


def counts_of_types(types: torch.Tensor, num_types: int) -> list[int]:
    """Count the rows of every type.

    Raises
    ------
    SettingError
        A type is out of range.
    """
    if types.numel() and (int(types.min()) < 0 or int(types.max()) >= num_types):
        raise SettingError(
            f"types from {int(types.min())} to {int(types.max())}",
            f"types from 0 to {num_types - 1}",
            "Construct the layer with as many types as there are.",
        )
    counts: list[int] = torch.bincount(types, minlength=num_types).tolist()
    return counts
