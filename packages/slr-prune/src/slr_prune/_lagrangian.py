"""The augmented Lagrangian that SLR and ADMM share.

min f(W) + sum_n g_n(Z_n) subject to W_n = Z_n, where g_n is 0 on the sparsity set of layer n and
infinite outside:

    L(W, Z, Lambda) = f(W) + sum_n <Lambda_n, W_n - Z_n> + rho/2 |W_n - Z_n|^2

Z and Lambda never hold an autograd graph: the penalty's gradient in W is Lambda + rho (W - Z).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slr_prune._history import History, Iteration
from slr_prune._pruner import Pruner
from tenfold import DivergedError, SettingError


class LagrangianPruner(Pruner, ABC):
    """A pruner that drives W towards Z through the augmented Lagrangian.

    Parameters
    ----------
    model, sparsity, **settings
        See `Pruner`.
    rho : float
        Weight of the quadratic penalty, above 0.

    Attributes
    ----------
    Z, multipliers : dict of str to Tensor
        Auxiliary weights and Lambda, by parameter.
    s : float
        Size of the latest multiplier step.
    accepted : tuple of bool
        Whether the last iteration accepted its first and its second multiplier update.
    history : History
        Every iteration so far; ``history.plot(path)`` draws it.

    Raises
    ------
    SettingError
        `rho` is not above 0; or as `Pruner`.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float | Mapping[str, float],
        *,
        rho: float = 0.1,
        **settings: Any,
    ) -> None:
        super().__init__(model, sparsity, **settings)
        if not (rho > 0 and math.isfinite(rho)):
            raise SettingError(f"rho is {rho}", "a finite number above 0", "The paper's default is 0.1.")
        self.rho = rho
        self.s = rho
        self.accepted = (False, False)
        self.history = History()
        self.multipliers = {name: torch.zeros_like(weight) for name, weight in self.present().items()}
        self.Z = self.project(self.present(), self.multipliers)

    def present(self) -> dict[str, Tensor]:
        """Return the weights as they are, detached but not copied."""
        return {name: weight.detach() for name, weight in self.weights.items()}

    def penalty(self) -> Tensor:
        """Return sum <Lambda, W - Z> + rho/2 |W - Z|^2, a scalar differentiable in W."""
        if self.masks:
            return super().penalty()
        terms = []
        for name, weight in self.weights.items():
            gap = weight - self.Z[name]
            terms.append(torch.sum(gap * (self.multipliers[name] + self.rho / 2 * gap)))
        return torch.stack(terms).sum()

    def add_gradient(self) -> None:
        """Add Lambda + rho (W - Z) to the gradients. See `Pruner.add_gradient`."""
        if self.masks:
            return
        names = [name for name, weight in self.weights.items() if weight.requires_grad]
        weights: list[Tensor] = [self.weights[name] for name in names]
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        with torch.no_grad():
            torch._foreach_add_(gradients, [self.multipliers[name] for name in names])
            torch._foreach_add_(gradients, weights, alpha=self.rho)
            torch._foreach_add_(gradients, [self.Z[name] for name in names], alpha=-self.rho)

    def step(self, loss: float) -> None:
        """End an epoch: one iteration of the method; none any more after `finalize`.

        Parameters
        ----------
        loss : float
            f(W), the training loss without `penalty`. The mean over the epoch costs nothing; an
            evaluation after the epoch is nearer to the definition. Its mean over `process_group`
            counts.

        Raises
        ------
        DivergedError
            `loss` or the residual is NaN or infinite.
        """
        loss = self.mean_over_processes(loss)
        _check_finite("training loss", loss)
        if not self.masks:
            self.iterate(loss)
            residual = self.residual()
            _check_finite("residual |W - Z|", residual)
            epoch = len(self.history) + 1
            self.history.append(Iteration(epoch, loss, residual, self.s, self.accepted))

    @abstractmethod
    def iterate(self, loss: float) -> None:
        """Update Z and the multipliers after an epoch of training loss `loss`."""

    def project(self, W: Mapping[str, Tensor], multipliers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the minimiser of L in Z: the projection of W + Lambda / rho."""
        targets = {name: weight + multipliers[name] / self.rho for name, weight in W.items()}
        masks = self.project_masks(targets)
        return {name: target * masks[name] for name, target in targets.items()}

    def lagrangian(
        self,
        loss: float,
        W: Mapping[str, Tensor],
        Z: Mapping[str, Tensor],
        multipliers: Mapping[str, Tensor],
    ) -> float:
        """Return L(W, Z, Lambda) with f(W) = `loss`, summed in double precision."""
        value = loss
        for name in W:
            gap = (W[name] - Z[name]).double()
            value += torch.sum(gap * (multipliers[name] + self.rho / 2 * gap)).item()
        return value

    def residual(self) -> float:
        """Return |W - Z|, the sum over layers of Frobenius norms."""
        return distance(self.present(), self.Z)

    def state_dict(self) -> dict[str, Any]:
        """See `Pruner.state_dict`."""
        return {
            **super().state_dict(),
            "Z": dict(self.Z),
            "multipliers": dict(self.multipliers),
            "s": self.s,
            "accepted": self.accepted,
            "history": self.history.as_dicts(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Pruner.load_state_dict`."""
        super().load_state_dict(state)
        self.Z = self.on_device(state["Z"])
        self.multipliers = self.on_device(state["multipliers"])
        self.s = state["s"]
        self.accepted = tuple(state["accepted"])
        self.history = History.from_dicts(state["history"])

    def on_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return copies of tensors by layer, each where that layer's weight is."""
        return {name: tensor.to(self.weights[name].device, copy=True) for name, tensor in tensors.items()}


def distance(W: Mapping[str, Tensor], Z: Mapping[str, Tensor]) -> float:
    """Return the sum over layers of Frobenius norms of W - Z."""
    return math.fsum(torch.linalg.vector_norm(W[name] - Z[name]).item() for name in W)


def _check_finite(what: str, value: float) -> None:
    if not math.isfinite(value):
        raise DivergedError(
            f"the {what} became {value}",
            "a finite number",
            "Lower the learning rate or rho; keep the first step size about rho / 10.",
        )
