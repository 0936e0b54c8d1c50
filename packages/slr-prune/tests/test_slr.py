"""The mathematics of SLR and ADMM, against closed forms, a second implementation and cvxpy."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import slr_prune
from slr_prune import STRUCTURES, ADMMPruner, SLRPruner, register_structure
from slr_prune._slr import alpha
from tenfold import DivergedError, SettingError, UnknownNameError

SPARSITY = {"0": 0.5, "2": 0.75}


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()


def walk(model: nn.Module, generator: np.random.Generator, scale: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.from_numpy(generator.normal(size=parameter.shape))


@pytest.mark.parametrize(
    ("k", "M", "r", "value"),
    [
        (1, 300.0, 0.1, 1 - 1 / 300),
        (2, 10.0, 0.5, 1 - 1 / (10 * 2 ** (1 - 1 / math.sqrt(2)))),
        (16, 4.0, 0.5, 1 - 1 / (4 * 16**0.75)),
    ],
)
def test_alpha_is_equation_6(k: int, M: float, r: float, value: float) -> None:
    assert alpha(k, M, r) == pytest.approx(value, rel=1e-15)


def test_alpha_rises_towards_one() -> None:
    values = [alpha(k, 300.0, 0.1) for k in range(1, 1000)]
    assert values == sorted(values)
    assert values[-1] < 1


class Literal:
    """SLR written down once more, line by line from the module's head, on flat NumPy arrays."""

    def __init__(self, W: list[np.ndarray], rho: float, s: float, on_reject: str, step_rule: str) -> None:
        self.rho, self.s, self.k, self.on_reject, self.step_rule = rho, s, 1, on_reject, step_rule
        self.L = [np.zeros_like(w) for w in W]
        self.Z = self.project(W, self.L)
        self.W_prev, self.f_prev = W, None

    def project(self, W: list[np.ndarray], L: list[np.ndarray]) -> list[np.ndarray]:
        result = []
        for w, multiplier, sparsity in zip(W, L, SPARSITY.values(), strict=True):
            target = w + multiplier / self.rho
            kept = np.argsort(-np.abs(target), kind="stable")[: round(w.size * (1 - sparsity))]
            z = np.zeros_like(w)
            z[kept] = target[kept]
            result.append(z)
        return result

    def lagrangian(self, f: float, W: Any, Z: Any, L: Any) -> float:
        return f + sum(
            float(multiplier @ (w - z) + self.rho / 2 * (w - z) @ (w - z))
            for w, z, multiplier in zip(W, Z, L, strict=True)
        )

    @staticmethod
    def norm(W: Any, Z: Any) -> float:
        return sum(float(np.linalg.norm(w - z)) for w, z in zip(W, Z, strict=True))

    def iterate(self, f: float, W: list[np.ndarray]) -> tuple[bool, bool]:
        s_start, k_start, L_start, Z_prev = self.s, self.k, self.L, self.Z
        n1 = self.norm(self.W_prev, Z_prev)
        first = self.k == 1 or (
            self.f_prev is None
            or self.lagrangian(f, W, Z_prev, self.L)
            < self.lagrangian(self.f_prev, self.W_prev, Z_prev, self.L)
        )
        if first:
            self.s = alpha(self.k, 300.0, 0.1) * self.s * n1 / self.norm(W, Z_prev)
            self.L = [m + self.s * (w - z) for m, w, z in zip(self.L, W, Z_prev, strict=True)]
            self.k += 1
        elif self.on_reject == "return":
            return first, False
        Z = self.project(W, self.L)
        second = self.lagrangian(f, W, Z, self.L) < self.lagrangian(f, W, Z_prev, self.L)
        if second:
            n1 = self.norm(W, Z_prev) if self.step_rule == "contracting" and first else n1
            self.s = alpha(self.k, 300.0, 0.1) * self.s * n1 / self.norm(W, Z)
            self.L = [m + self.s * (w - z) for m, w, z in zip(self.L, W, Z, strict=True)]
            self.Z = Z
            self.k += 1
        elif self.on_reject == "return":
            self.s, self.k, self.L = s_start, k_start, L_start
            return first, second
        if first or second:
            self.W_prev, self.f_prev = W, f
        return first, second


def flat(tensors: Mapping[str, Tensor]) -> list[np.ndarray]:
    return [tensor.detach().flatten().numpy().copy() for tensor in tensors.values()]


@given(
    st.integers(0, 10_000),
    st.lists(st.floats(0.0, 3.0), min_size=1, max_size=8),
    st.sampled_from(["continue", "return"]),
    st.sampled_from(["contracting", "published"]),
)
@settings(max_examples=60, deadline=None)
def test_iterations_follow_the_equations(
    seed: int, losses: list[float], on_reject: Any, step_rule: Any
) -> None:
    model = network(seed)
    pruner = SLRPruner(model, SPARSITY, rho=0.5, on_reject=on_reject, step_rule=step_rule)
    literal = Literal(flat(pruner.weights), 0.5, 0.05, on_reject, step_rule)
    generator = np.random.default_rng(seed)
    for loss in losses:
        walk(model, generator, 0.3)
        pruner.step(loss)
        assert pruner.accepted == literal.iterate(loss, flat(pruner.weights))
        assert pruner.k == literal.k
        assert pruner.s == pytest.approx(literal.s, rel=1e-9)
        for ours, theirs in zip(
            flat(pruner.multipliers) + flat(pruner.Z), literal.L + literal.Z, strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_rejecting_branches_are_reached() -> None:
    seen = set()
    for seed in range(20):
        model = network(seed)
        pruner = SLRPruner(model, SPARSITY, on_reject="return")
        generator = np.random.default_rng(seed)
        for loss in generator.uniform(0, 3, size=6):
            walk(model, generator, 0.3)
            pruner.step(float(loss))
            seen.add(pruner.accepted)
        pruner.step(0.0)
        pruner.step(0.0)
        seen.add(pruner.accepted)
    assert {(True, True), (False, False)} <= seen


def test_multiplier_steps_contract_by_alpha() -> None:
    model = network()
    pruner = SLRPruner(model, {"0": 0.5}, rho=1.0)
    start = {name: multiplier.clone() for name, multiplier in pruner.multipliers.items()}
    walk(model, np.random.default_rng(0), 0.2)
    (W,), (Z,) = flat(pruner.present()), flat(pruner.Z)
    pruner.step(1.0)
    first = 0.1 * alpha(1, 300.0, 0.1) * np.linalg.norm(network()[0].weight.detach().flatten().numpy() - Z)
    total = flat(pruner.multipliers)[0] - flat(start)[0]
    s1 = first / np.linalg.norm(W - Z)
    second = np.linalg.norm(total - s1 * (W - Z))
    assert pruner.accepted == (True, True)
    assert second == pytest.approx(alpha(2, 300.0, 0.1) * first, rel=1e-12)


@pytest.mark.parametrize("method", [SLRPruner, ADMMPruner])
def test_the_penaltys_gradient_is_multiplier_plus_rho_times_violation(method: type[SLRPruner]) -> None:
    model = network()
    pruner = method(model, SPARSITY, rho=0.7)
    generator = np.random.default_rng(0)
    for _ in range(4):
        walk(model, generator, 0.2)
        pruner.step(1.0)
        model.zero_grad()
        pruner.penalty().backward()
        for name, weight in pruner.weights.items():
            expected = pruner.multipliers[name] + 0.7 * (weight - pruner.Z[name])
            torch.testing.assert_close(weight.grad, expected.detach(), rtol=1e-12, atol=1e-14)
            assert not pruner.multipliers[name].requires_grad
            assert not pruner.Z[name].requires_grad


def test_previous_weights_are_a_copy() -> None:
    model = network()
    pruner = SLRPruner(model, SPARSITY)
    before = {name: weight.clone() for name, weight in pruner._W.items()}
    walk(model, np.random.default_rng(0), 1.0)
    for name, weight in before.items():
        assert torch.equal(pruner._W[name], weight)


class ADMMThroughSLR(SLRPruner):
    """SLR with the first update off, s = rho and both conditions accepting."""

    def _condition1(self, loss: float, W: Mapping[str, Tensor]) -> bool:
        return True

    def _condition2(self, W: Mapping[str, Tensor], Z: Mapping[str, Tensor]) -> bool:
        return True

    def _update(self, before: float, W: Mapping[str, Tensor], Z: Mapping[str, Tensor]) -> None:
        first = Z is self._z_before
        if not first:
            self.s = self.rho
            super()._update(0.0, W, Z)

    def iterate(self, loss: float) -> None:
        self._z_before = self.Z
        super().iterate(loss)


def test_admm_is_recovered_exactly() -> None:
    one, two = network(), network()
    slr, admm = ADMMThroughSLR(one, SPARSITY, rho=0.3), ADMMPruner(two, SPARSITY, rho=0.3)
    for seed in range(10):
        walk(one, np.random.default_rng(seed), 0.2)
        walk(two, np.random.default_rng(seed), 0.2)
        slr.step(1.0)
        admm.step(1.0)
        for name in slr.weights:
            assert torch.equal(slr.Z[name], admm.Z[name])
            assert torch.equal(slr.multipliers[name], admm.multipliers[name])


@pytest.fixture
def fixed_support() -> Iterator[None]:
    """A convex constraint set: the subspace of the first half of the entries."""

    @register_structure("first half")
    def first_half(weight: Tensor, sparsity: float) -> Tensor:
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[: weight.numel() // 2] = True
        return mask.view(weight.shape)

    yield
    del STRUCTURES["first half"]


@pytest.mark.parametrize("on_reject", ["continue", "return"])
@pytest.mark.parametrize("seed", range(3))
def test_a_convex_set_leads_to_cvxpys_optimum(fixed_support: None, seed: int, on_reject: Any) -> None:
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(8, 8))
    H, a = root @ root.T / 8 + np.eye(8), generator.normal(size=8)
    w = cvxpy.Variable(8)
    problem = cvxpy.Problem(cvxpy.Minimize(0.5 * cvxpy.quad_form(w - a, cvxpy.psd_wrap(H))), [w[4:] == 0])
    optimum = problem.solve(solver=cvxpy.CLARABEL)

    model = nn.Linear(8, 1, bias=False).double()
    holder = nn.Sequential(model)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(a))
    rho = 2.0
    pruner = SLRPruner(holder, {"0": 0.5}, structure="first half", rho=rho, M=20, on_reject=on_reject)
    for _ in range(400):
        Z, multiplier = (flat(item)[0] for item in (pruner.Z, pruner.multipliers))
        W = np.linalg.solve(H + rho * np.eye(8), H @ a + rho * Z - multiplier)
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(W))
        pruner.step(float(0.5 * (W - a) @ H @ (W - a)))
    Z = flat(pruner.Z)[0]
    assert 0.5 * (Z - a) @ H @ (Z - a) == pytest.approx(optimum, abs=1e-6)
    assert pruner.residual() < 1e-2


def test_state_is_restored_in_the_middle() -> None:
    def run(stop: int | None) -> tuple[list[np.ndarray], float]:
        model = network()
        pruner = SLRPruner(model, SPARSITY, rho=0.3)
        for epoch in range(8):
            walk(model, np.random.default_rng(epoch), 0.2)
            pruner.step(1.0 / (epoch + 1))
            if epoch == stop:
                saved_model, saved = model.state_dict(), pruner.state_dict()
                model = network(seed=9)
                model.load_state_dict(saved_model)
                pruner = SLRPruner(model, SPARSITY, rho=0.3)
                pruner.load_state_dict(saved)
        return flat(pruner.multipliers) + flat(pruner.Z), pruner.s

    arrays, s = run(None)
    for stop in (0, 3):
        again, s_again = run(stop)
        assert s_again == s
        for one, two in zip(arrays, again, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", [SLRPruner, ADMMPruner])
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_diverged_loss_is_refused(method: type[SLRPruner], loss: float) -> None:
    with pytest.raises(DivergedError, match="learning rate"):
        method(network(), SPARSITY).step(loss)


@pytest.mark.parametrize("method", [SLRPruner, ADMMPruner])
def test_diverged_weights_are_refused(method: type[SLRPruner]) -> None:
    model = network()
    pruner = method(model, SPARSITY)
    with torch.no_grad():
        model[0].weight *= 1e200
    with pytest.raises(DivergedError, match="residual"):
        pruner.step(1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": 0.0}, "rho is 0"),
        ({"rho": math.nan}, "rho is nan"),
        ({"step_size": -1.0}, "step_size"),
        ({"M": 1.0}, "M is"),
        ({"r": 1.0}, "r is"),
        ({"on_reject": "stop"}, "'continue' or 'return'"),
        ({"step_rule": "other"}, "'contracting' or 'published'"),
    ],
)
def test_impossible_parameters_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SLRPruner(network(), SPARSITY, **settings)


def test_an_unknown_structure_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'irregular'"):
        slr_prune.SLRPruner(network(), SPARSITY, structure="iregular")
