"""Surrogate Lagrangian relaxation (Gurevin et al., IJCAI 2021; Zhou et al., TODAES 2023, section 3).

One iteration k, after an epoch of SGD on L(W, Z^{k-1}, Lambda):

    if L(W^k, Z^{k-1}, Lambda) < L(W^{k-1}, Z^{k-1}, Lambda), or k = 1:        (condition 1)
        s' = alpha s |W^{k-1} - Z^{k-1}| / |W^k - Z^{k-1}|,  Lambda' = Lambda + s' (W^k - Z^{k-1})
    Z^k = projection of W^k + Lambda' / rho
    if L(W^k, Z^k, Lambda') < L(W^k, Z^{k-1}, Lambda'):                        (condition 2)
        s = alpha s' |W^{k-1} - Z^{k-1}| / |W^k - Z^k|,      Lambda = Lambda' + s (W^k - Z^k)

with alpha = 1 - 1 / (M k^(1 - 1/k^r)), and k raised by every accepted update. Norms are sums over
layers of Frobenius norms.

Where we differ. The theory behind the method (Bragin et al., JOTA 2015) lets every multiplier step
be alpha times the one before, s |W^k - Z^k| = alpha s' |W^k - Z^{k-1}|. The published numerator of
the second update is one violation behind; s then grows with the square of the falling residual,
passes rho and training diverges. ``step_rule="contracting"``, the default, puts |W^k - Z^{k-1}|
there; ``"published"`` is the formula above. And unlike the authors' code, W^{k-1} is a copy
(theirs aliases the live weights, so that the first ratio is always 1) and Lambda holds no autograd
graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import Tensor, nn

from slr_prune._lagrangian import LagrangianPruner, distance
from tenfold import SettingError

OnReject = Literal["continue", "return"]
StepRule = Literal["contracting", "published"]


class SLRPruner(LagrangianPruner):
    """Prune by surrogate Lagrangian relaxation.

    Parameters
    ----------
    model, sparsity, rho, **settings
        See `LagrangianPruner`.
    step_size : float, optional
        Initial s, above 0; a tenth of `rho` when not given. From `rho` on it was unstable.
    M, r : float
        Parameters of alpha: M above 1, r between 0 and 1.
    on_reject : {"continue", "return"}
        What follows when a condition fails. ``"continue"`` keeps the last accepted multipliers
        and goes on with the iteration. ``"return"`` goes back to the W step: after condition 1
        without a Z step, after condition 2 with Z, multipliers, s and k as before the iteration.
    step_rule : {"contracting", "published"}
        Numerator of the second update of s; see the top of this module.

    Attributes
    ----------
    s : float
        Step size.
    k : int
        Iteration number.
    accepted : tuple of bool
        Whether conditions 1 and 2 held in the last iteration.
    Z, multipliers, history
        See `LagrangianPruner`.

    Raises
    ------
    SettingError
        A parameter is outside its range; or as `LagrangianPruner`.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float | Mapping[str, float],
        *,
        rho: float = 0.1,
        step_size: float | None = None,
        M: float = 300.0,
        r: float = 0.1,
        on_reject: OnReject = "continue",
        step_rule: StepRule = "contracting",
        **settings: Any,
    ) -> None:
        super().__init__(model, sparsity, rho=rho, **settings)
        self.s = rho / 10 if step_size is None else step_size
        self.M = M
        self.r = r
        self.on_reject = on_reject
        self.step_rule = step_rule
        self._check()
        self.k = 1
        self._W = {name: weight.clone() for name, weight in self.present().items()}
        self._loss: float | None = None

    def iterate(self, loss: float) -> None:
        """Test the conditions; update step size, multipliers and Z. See `LagrangianPruner.iterate`."""
        W, Z, before = self.present(), self.Z, distance(self._W, self.Z)
        entry = (self.multipliers, self.s, self.k)

        first = self.k == 1 or self._condition1(loss, W)
        if first:
            self._update(before, W, Z)
            if self.step_rule == "contracting":
                before = distance(W, Z)
        elif self.on_reject == "return":
            self.accepted = (False, False)
            return

        Z = self.project(W, self.multipliers)
        second = self._condition2(W, Z)
        if second:
            self.Z = Z
            self._update(before, W, Z)
        elif self.on_reject == "return":
            self.multipliers, self.s, self.k = entry
        self.accepted = (first, second)

        if second or (first and self.on_reject == "continue"):
            self._W = {name: weight.clone() for name, weight in W.items()}
            self._loss = loss

    def state_dict(self) -> dict[str, Any]:
        """See `Pruner.state_dict`."""
        return {
            **super().state_dict(),
            "k": self.k,
            "W": dict(self._W),
            "loss": self._loss,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Pruner.load_state_dict`."""
        super().load_state_dict(state)
        self.k = state["k"]
        self._W = self.on_device(state["W"])
        self._loss = state["loss"]

    def _condition1(self, loss: float, W: Mapping[str, Tensor]) -> bool:
        if self._loss is None:
            return True
        return self.lagrangian(loss, W, self.Z, self.multipliers) < self.lagrangian(
            self._loss, self._W, self.Z, self.multipliers
        )

    def _condition2(self, W: Mapping[str, Tensor], Z: Mapping[str, Tensor]) -> bool:
        return self.lagrangian(0.0, W, Z, self.multipliers) < self.lagrangian(
            0.0, W, self.Z, self.multipliers
        )

    def _update(self, before: float, W: Mapping[str, Tensor], Z: Mapping[str, Tensor]) -> None:
        """Update s and Lambda from the constraint violation W - Z, and raise k."""
        after = distance(W, Z)
        if before > 0 and after > 0:
            self.s *= alpha(self.k, self.M, self.r) * before / after
        self.multipliers = {
            name: multiplier + self.s * (W[name] - Z[name]) for name, multiplier in self.multipliers.items()
        }
        self.k += 1

    def _check(self) -> None:
        if not self.s > 0:
            raise SettingError(f"step_size is {self.s}", "a number above 0", "About rho / 10 works.")
        if not self.M > 1:
            raise SettingError(f"M is {self.M}", "a number above 1", "The paper's default is 300.")
        if not 0 < self.r < 1:
            raise SettingError(f"r is {self.r}", "a number between 0 and 1", "The paper's default is 0.1.")
        if self.on_reject not in get_args(OnReject):
            raise SettingError(f"on_reject is {self.on_reject!r}", "'continue' or 'return'", "Choose one.")
        if self.step_rule not in get_args(StepRule):
            raise SettingError(
                f"step_rule is {self.step_rule!r}", "'contracting' or 'published'", "Choose one."
            )


def alpha(k: int, M: float, r: float) -> float:
    """Return the step-size factor alpha^k = 1 - 1 / (M k^(1 - 1/k^r)), k >= 1 (equation 6)."""
    return float(1 - 1 / (M * k ** (1 - 1 / k**r)))
