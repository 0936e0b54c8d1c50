"""The momentum iterative method (Dong et al., CVPR 2018, arXiv 1710.06081).

    m_{k+1} = decay m_k + g_k / mean |g_k|
    x_{k+1} = project(x_k + alpha sign(m_{k+1}))

with each sample's own mean. Where a gradient is zero everywhere the momentum just decays; torchattacks
divides by zero there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgba._fgsm import IFGSM
from tenfold import SettingError


@dataclass(eq=False, kw_only=True)
class MIM(IFGSM):
    """I-FGSM along an accumulated direction.

    Parameters
    ----------
    model, tasks, combination, norm, eps, random_start, seed, alpha, steps, keep_best
        See `dgba.IFGSM`.
    decay : float
        Of the momentum.

    Raises
    ------
    SettingError
        `decay` is negative.
    """

    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.decay >= 0:
            raise SettingError(f"decay is {self.decay}", "a number from 0 up", "The paper's is 1.")

    def accumulate(self, momentum: Tensor, gradient: Tensor) -> Tensor:
        """Return the momentum with `gradient` in it. See `PGD.accumulate`."""
        size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        return self.decay * momentum + gradient / size.clamp_min(torch.finfo(size.dtype).tiny)
