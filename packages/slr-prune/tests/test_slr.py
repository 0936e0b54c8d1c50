"""The mathematics of SLR and ADMM, against closed forms, enumeration and a second implementation."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import slr_prune
from slr_prune import ADMMPruner, SLRPruner
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


@pytest.mark.parametrize("on_reject", ["continue", "return"])
def test_what_follows_a_rejected_first_condition(on_reject: Any) -> None:
    model = network()
    pruner = SLRPruner(model, SPARSITY, rho=0.5, on_reject=on_reject)
    generator = np.random.default_rng(0)
    walk(model, generator, 0.3)
    pruner.step(1.0)
    W_before, Z_before, L_before = (flat(item) for item in (pruner.present(), pruner.Z, pruner.multipliers))
    s_before, k_before = pruner.s, pruner.k
    walk(model, generator, 0.3)
    pruner.step(100.0)
    if on_reject == "return":
        assert pruner.accepted == (False, False)
        assert (pruner.s, pruner.k) == (s_before, k_before)
        unchanged = zip(flat(pruner.Z) + flat(pruner.multipliers), Z_before + L_before, strict=True)
        assert all(np.array_equal(after, before) for after, before in unchanged)
    else:
        assert pruner.accepted == (False, True)
        assert pruner.k == k_before + 1
        W, Z = flat(pruner.present()), flat(pruner.Z)
        ratio = Literal.norm(W_before, Z_before) / Literal.norm(W, Z)
        assert pruner.s == pytest.approx(alpha(k_before, 300.0, 0.1) * s_before * ratio, rel=1e-12)
        for after, before, w, z in zip(flat(pruner.multipliers), L_before, W, Z, strict=True):
            np.testing.assert_allclose(after, before + pruner.s * (w - z), rtol=1e-12)


@given(st.integers(0, 10_000), st.floats(0.01, 10.0))
@settings(max_examples=20, deadline=None)
def test_the_z_step_is_the_best_over_all_supports(seed: int, rho: float) -> None:
    layer = nn.Linear(8, 1, bias=False).double()
    pruner = SLRPruner(nn.Sequential(layer), 5 / 8, rho=rho)
    W, multiplier = np.random.default_rng(seed).normal(size=(2, 8))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(W))
    multipliers = {"0.weight": torch.from_numpy(multiplier)[None]}
    Z = pruner.project(pruner.present(), multipliers)
    best = min(
        # what the removed entries cost, and what the kept ones gain at their stationary point
        sum(multiplier[i] * W[i] + rho / 2 * W[i] ** 2 for i in range(8) if i not in support)
        - sum(multiplier[i] ** 2 / (2 * rho) for i in support)
        for support in itertools.combinations(range(8), 3)
    )
    assert pruner.lagrangian(0.0, pruner.present(), Z, multipliers) == pytest.approx(best, rel=1e-9, abs=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_second_condition_holds_whenever_the_projection_moves(seed: int) -> None:
    model = network(seed)
    pruner = SLRPruner(model, SPARSITY, rho=0.5)
    generator = np.random.default_rng(seed)
    for moved in (True, True, False, False):
        before = flat(pruner.Z)
        if moved:
            walk(model, generator, 0.3)
            pruner.step(1.0)
            assert pruner.accepted[1]
            assert not all(map(np.array_equal, flat(pruner.Z), before))
        else:
            pruner.multipliers = {name: torch.zeros_like(value) for name, value in pruner.Z.items()}
            pruner.Z = pruner.project(pruner.present(), pruner.multipliers)
            pruner.step(math.nextafter(1e9, 2e9))
            assert pruner.accepted == (False, False)


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
