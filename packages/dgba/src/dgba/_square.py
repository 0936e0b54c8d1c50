"""Square attack: random search, without gradients.

Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via random search"
(ECCV 2020). The perturbation starts as vertical stripes of +-eps. Every query proposes, at a random place, a
square in which every channel is +-eps throughout, and keeps it for those images whose objective it raises;
the squares shrink as the queries go on. It sees outputs only, so that a model whose gradients are masked
gains nothing.

The objective is that of a combination of tasks, as in the other attacks, not a classifier's margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dgba._attack import Ascent, Attack, Best
from tenfold import SettingError

P_INIT = 0.8
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries at which the squares' area is halved: those of the paper."""


@dataclass(eq=False, kw_only=True)
class Square(Attack):
    """Random search for the worst perturbation within eps of every channel, from outputs alone.

    Parameters
    ----------
    model, tasks, combination, norm, eps, random_start, seed
        See `Attack`; of the norms ``"linf"`` only.
    queries : int
        Proposals shown to the model, of every image.

    Raises
    ------
    SettingError
        Another norm, or fewer than one query.
    """

    queries: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm != "linf" or self.queries < 1:
            raise SettingError(
                f"norm {self.norm!r} with {self.queries} queries",
                "'linf', and one query or more",
                "Correct them.",
            )

    def perturb(self, ascent: Ascent, x: Tensor) -> Tensor:
        """See `Attack.perturb`."""
        count, channels, height, width = x.shape
        draws = [
            torch.rand(channels * width + self.queries * (2 + channels), generator=generator)
            for generator in ascent.generators(0)
        ]
        first, rest = torch.stack(draws).to(x).split([channels * width, self.queries * (2 + channels)], 1)
        best = Best(x)
        best.update(x, ascent.objective(x))
        start = stripes(ascent.images, self.eps, first.reshape(count, channels, width))
        best.update(start, ascent.objective(start))
        for query, draw in enumerate(rest.reshape(count, self.queries, -1).unbind(1)):
            size = side(query, self.queries, height, width)
            proposed = with_square(ascent.images, best.x, self.eps, size, draw)
            best.update(proposed, ascent.objective(proposed))
        return best.x


def side(query: int, queries: int, height: int, width: int) -> int:
    """Return the side of the squares at a query, in pixels."""
    halvings = sum(query / queries > share for share in _HALVINGS)
    area = P_INIT / 2**halvings * height * width
    return min(max(1, round(math.sqrt(area))), height, width)


def stripes(images: Tensor, eps: float, draws: Tensor) -> Tensor:
    """Return images with vertical stripes of +-eps, one pixel wide; `draws` in [0, 1), shape (n, c, w)."""
    signs = torch.where(draws < 0.5, -1.0, 1.0).to(images)
    return (images + eps * signs[:, :, None, :]).clamp(0, 1)


def with_square(images: Tensor, current: Tensor, eps: float, size: int, draws: Tensor) -> Tensor:
    """Return the perturbed images with one square changed.

    Parameters
    ----------
    images, current : Tensor, shape (n, c, h, w)
        Clean images, and perturbed ones.
    eps : float
    size : int
        Side of the squares.
    draws : Tensor, shape (n, 2 + c)
        In [0, 1): row, column and the sign of every channel.
    """
    _, channels, height, width = images.shape
    top, left = (
        (draws[:, axis] * (extent - size + 1)).long()[:, None] for axis, extent in enumerate((height, width))
    )
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    inside = ((rows >= top) & (rows < top + size))[:, None, :, None] & (
        (columns >= left) & (columns < left + size)
    )[:, None, None, :]
    signs = torch.where(draws[:, 2 : 2 + channels] < 0.5, -1.0, 1.0).to(images)
    proposed = (images + eps * signs[:, :, None, None]).clamp(0, 1)
    return torch.where(inside, proposed, current)
