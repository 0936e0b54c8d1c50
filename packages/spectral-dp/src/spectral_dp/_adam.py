"""Adam without the noise in its second moment (Tang, Shpilevskiy and Lecuyer, AAAI 2024).

Adam divides by the root of a running mean of squared gradients. Of a private gradient that mean is too
large by the variance of the noise, phi, which at small epsilon is nearly all of it: every coordinate gets
the same step, and Adam becomes momentum with another learning rate. The variance is known, so that

    v_hat - phi    estimates the second moment of the gradient itself,
    step = lr m_hat / (sqrt(max(v_hat - phi, floor phi)) + eps).

Filtered coordinates have the variance phi diag(P). Without noise the step is Adam's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tenfold import SettingError


class AdamCorrected(Optimizer):
    """Adam for private gradients, its second moment corrected for the noise.

    Make it private as any optimizer: with `SpectralPrivacyEngine` it learns the variance of the noise
    at every step. By itself it is Adam.

    Parameters
    ----------
    params : iterable
        Parameters, or dicts that define groups.
    lr : float
    betas : tuple of float
        Decay of the running means of gradients and of their squares, in [0, 1).
    eps : float
        Added to the root.
    floor : float
        Least share of the noise's variance that is divided by, above 0: the estimate of the second
        moment is itself noisy and can come out negative.

    Attributes
    ----------
    noise_variance : mapping of Parameter to Tensor or float
        Variance of the noise in each gradient of the next step. Parameters that it lacks have none.

    Raises
    ------
    SettingError
        A number is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        floor: float = 0.05,
    ) -> None:
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise SettingError(f"betas {betas}", "two numbers from 0 to below 1", "Try (0.9, 0.999).")
        if not (lr >= 0 and eps > 0 and floor > 0 and math.isfinite(lr + eps + floor)):
            raise SettingError(
                f"lr {lr}, eps {eps}, floor {floor}",
                "finite numbers, eps and floor above 0",
                "Try lr=1e-3, eps=1e-8, floor=0.05.",
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "floor": floor})
        self.noise_variance: Mapping[Tensor, Tensor | float] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)
        return loss

    def _update(self, p: Tensor, group: Mapping[str, Any]) -> None:
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            state["exp_avg_noise"] = torch.zeros_like(p)
        state["step"] += 1
        noise = self.noise_variance.get(p, 0.0)
        state["exp_avg"].lerp_(p.grad, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
        # Averaged as the squares are: the noise may change from step to step.
        state["exp_avg_noise"].mul_(beta2).add_(noise, alpha=1 - beta2)
        unbiased = 1 - beta2 ** state["step"]
        phi = state["exp_avg_noise"] / unbiased
        second = torch.maximum(state["exp_avg_sq"] / unbiased - phi, group["floor"] * phi)
        first = state["exp_avg"] / (1 - beta1 ** state["step"])
        p.sub_(group["lr"] * first / second.sqrt_().add_(group["eps"]))
