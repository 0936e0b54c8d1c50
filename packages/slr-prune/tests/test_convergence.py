"""With a convex constraint set, SLR and ADMM reach cvxpy's optimum and its dual values."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slr_prune import STRUCTURES, ADMMPruner, SLRPruner, register_structure
from slr_prune._lagrangian import LagrangianPruner

SIZES = (4, 8)
TOTAL = sum(SIZES)
RHO = 2.0
METHODS: dict[str, tuple[type[LagrangianPruner], dict[str, Any]]] = {
    "slr": (SLRPruner, {"M": 10.0}),
    "slr, return": (SLRPruner, {"M": 10.0, "on_reject": "return"}),
    "admm": (ADMMPruner, {}),
}


@pytest.fixture(autouse=True)
def first_half_structure() -> Iterator[None]:
    @register_structure("first half")
    def first_half(weight: Tensor, sparsity: float) -> Tensor:
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[: weight.numel() // 2] = True
        return mask.view(weight.shape)

    yield
    del STRUCTURES["first half"]


class Subspace:
    """The masks of the structure are the projection already."""


class Box:
    """Entries between -1/2 and 1/2."""

    rho: float

    def project(self, W: Mapping[str, Tensor], multipliers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: (weight + multipliers[name] / self.rho).clamp(-0.5, 0.5) for name, weight in W.items()}


class Ball:
    """Every layer within a Euclidean ball of radius 0.7."""

    rho: float

    def project(self, W: Mapping[str, Tensor], multipliers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        targets = {name: weight + multipliers[name] / self.rho for name, weight in W.items()}
        return {name: target * min(1.0, 0.7 / target.norm().item()) for name, target in targets.items()}


SETS: dict[type, Callable[[list[Any]], list[Any]]] = {
    Subspace: lambda layers: [layer[layer.size // 2 :] == 0 for layer in layers],
    Box: lambda layers: [cvxpy.abs(layer) <= 0.5 for layer in layers],
    Ball: lambda layers: [cvxpy.norm2(layer) <= 0.7 for layer in layers],
}


@dataclass(frozen=True, eq=False)
class Problem:
    """1/2 (w - a)' H (w - a) over the weights of two layers at once."""

    H: Tensor
    a: Tensor

    def value(self, w: Tensor) -> float:
        return float((w - self.a) @ self.H @ (w - self.a) / 2)

    def exact_step(self, w: Tensor, z: Tensor, multiplier: Tensor) -> Tensor:
        left = self.H + RHO * torch.eye(TOTAL, dtype=torch.float64)
        return torch.linalg.solve(left, self.H @ self.a + RHO * z - multiplier)

    def gradient_steps(self, w: Tensor, z: Tensor, multiplier: Tensor) -> Tensor:
        rate = 1 / (torch.linalg.eigvalsh(self.H)[-1] + RHO)
        for _ in range(3):
            w = w - rate * (self.H @ (w - self.a) + multiplier + RHO * (w - z))
        return w

    def by_cvxpy(self, constrain: Callable[[list[Any]], list[Any]]) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the optimum, the optimal point and the dual values of w = z."""
        w, layers = cvxpy.Variable(TOTAL), [cvxpy.Variable(size) for size in SIZES]
        agree = w == cvxpy.hstack(layers)
        objective = 0.5 * cvxpy.quad_form(w - self.a.numpy(), cvxpy.psd_wrap(self.H.numpy()))
        program = cvxpy.Problem(cvxpy.Minimize(objective), [agree, *constrain(layers)])
        optimum = program.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10)
        return optimum, w.value, agree.dual_value


def draw(seed: int) -> Problem:
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(TOTAL, TOTAL))
    H = root @ root.T / TOTAL + np.eye(TOTAL)
    return Problem(torch.from_numpy(H), torch.from_numpy(generator.normal(size=TOTAL)))


def network(a: Tensor) -> nn.Sequential:
    model = nn.Sequential(*(nn.Linear(size, 1, bias=False, dtype=torch.float64) for size in SIZES))
    write(model, a)
    return model


def write(model: nn.Sequential, w: Tensor) -> None:
    with torch.no_grad():
        for layer, part in zip(model, w.split(SIZES), strict=True):
            layer.weight.copy_(part[None])


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors.values()])


def pruner_on(constraint: type, method: str, model: nn.Module) -> LagrangianPruner:
    base, settings = METHODS[method]
    made = type(f"{constraint.__name__}{base.__name__}", (constraint, base), {})
    pruner = made(model, 0.5, structure="first half", rho=RHO, **settings)
    assert isinstance(pruner, LagrangianPruner)
    return pruner


@pytest.mark.parametrize("constraint", SETS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [Problem.exact_step, Problem.gradient_steps], ids=["exact", "inexact"])
def test_the_optimum_and_the_dual_values_are_reached(constraint: type, method: str, step: Any) -> None:
    problem = draw(seed=3)
    optimum, point, duals = problem.by_cvxpy(SETS[constraint])
    model = network(problem.a)
    pruner = pruner_on(constraint, method, model)
    for _ in range(500):
        w = step(problem, flat(pruner.present()), flat(pruner.Z), flat(pruner.multipliers))
        write(model, w)
        pruner.step(problem.value(w))
    assert problem.value(flat(pruner.Z)) == pytest.approx(optimum, abs=1e-6)
    assert problem.value(flat(pruner.present())) == pytest.approx(optimum, abs=1e-3)
    np.testing.assert_allclose(flat(pruner.Z), point, atol=1e-3)
    np.testing.assert_allclose(flat(pruner.multipliers), duals, atol=1e-3)
    assert np.abs(duals).max() > 0.1
    assert pruner.residual() < 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_multiplier_steps_that_vanish_too_soon_stop_short_of_the_optimum(seed: int) -> None:
    problem = draw(seed)
    optimum, _, _ = problem.by_cvxpy(SETS[Box])
    model = network(problem.a)
    pruner = type("BoxSLR", (Box, SLRPruner), {})(model, 0.5, structure="first half", rho=RHO, M=1.5)
    for _ in range(200):
        write(model, problem.exact_step(flat(pruner.present()), flat(pruner.Z), flat(pruner.multipliers)))
        pruner.step(problem.value(flat(pruner.present())))
    assert problem.value(flat(pruner.Z)) > optimum + 1e-5
    assert pruner.residual() > 1e-2


@pytest.mark.parametrize("constraint", SETS)
def test_the_z_step_is_cvxpys_minimiser_of_the_lagrangian(constraint: type) -> None:
    generator = torch.Generator().manual_seed(0)
    W, multiplier = torch.randn(2, TOTAL, dtype=torch.float64, generator=generator)
    pruner = pruner_on(constraint, "slr", network(W))
    multipliers = {
        name: part[None] for name, part in zip(pruner.weights, multiplier.split(SIZES), strict=True)
    }
    Z = pruner.project(pruner.present(), multipliers)

    layers = [cvxpy.Variable(size) for size in SIZES]
    gap = W.numpy() - cvxpy.hstack(layers)
    objective = multiplier.numpy() @ gap + RHO / 2 * cvxpy.sum_squares(gap)
    optimum = cvxpy.Problem(cvxpy.Minimize(objective), SETS[constraint](layers)).solve(solver=cvxpy.CLARABEL)
    assert pruner.lagrangian(0.0, pruner.present(), Z, multipliers) == pytest.approx(optimum, abs=1e-6)
    np.testing.assert_allclose(flat(Z), np.hstack([layer.value for layer in layers]), atol=1e-4)
