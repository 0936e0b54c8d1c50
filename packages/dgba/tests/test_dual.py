"""The dual for batches: value and bound enclose the linear program's optimum, sample by sample."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from dgba._programs import coupled_step, dual_step
from tenfold import SettingError, UnknownNameError

INF = math.inf


def batch(n: int, tasks: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of very different sizes, and the boxes of images in [0, 1] at eps 8/255."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randn(n, tasks, 1, generator=generator, dtype=torch.float64).mul(1.5).exp()
    G = torch.randn(n, tasks, size, generator=generator, dtype=torch.float64) * sizes
    x = torch.rand(n, size, generator=generator, dtype=torch.float64).mul(1.2).sub(0.1).clamp(0, 1)
    return G, (-x).clamp(min=-8 / 255), (1 - x).clamp(max=8 / 255)


def optimum(G: Tensor, lo: Tensor, hi: Tensor, objective: str, **bounds: Any) -> float:
    """Return one sample's optimum by HiGHS."""
    tasks, size = G.shape
    w = np.array(bounds.get("weights") or [1.0] * tasks)
    g, upper, sides = G.numpy(), [], []
    if objective == "worst":
        cost = np.append(np.zeros(size), -1.0)
        for t in np.flatnonzero(w):
            upper.append(np.append(-w[t] * g[t], 1.0))
            sides.append(0.0)
    else:
        cost = np.append(-(w @ g), 0.0)
    for sign, name in ((-1.0, "floors"), (1.0, "ceilings")):
        for t, bound in enumerate(bounds.get(name) or []):
            if math.isfinite(bound):
                upper.append(np.append(sign * g[t], 0.0))
                sides.append(sign * bound)
    box = [*zip(lo.tolist(), hi.tolist(), strict=True), (None, None)]
    found = linprog(cost, np.array(upper) if upper else None, sides or None, bounds=box)
    assert found.status == 0
    return -float(found.fun)


COUPLINGS: list[tuple[str, dict[str, Any]]] = [
    ("worst", {}),
    ("worst", {"weights": [1.0, 0.0, 3.0]}),
    ("worst", {"weights": [1.0, 1.0, 0.0], "ceilings": [INF, INF, 0.0]}),
    ("total", {}),
    ("total", {"ceilings": [INF, 0.1, 0.2]}),
    ("total", {"floors": [0.2, -INF, 0.05], "ceilings": [INF, 0.1, INF]}),
    ("worst", {"floors": [0.2, -INF, -INF]}),
]


@pytest.mark.parametrize(("objective", "couplings"), COUPLINGS)
@pytest.mark.parametrize("size", [20, 400])
def test_value_and_bound_enclose_the_optimum(objective: str, couplings: dict[str, Any], size: int) -> None:
    """Floors and ceilings are in units of the largest gain of each task."""
    G, lo, hi = batch(5, 3, size)
    reach = (G.abs() * torch.maximum(-lo, hi).unsqueeze(1)).sum(2)
    bounds = {
        name: values if name == "weights" else torch.tensor(values) * reach
        for name, values in couplings.items()
    }
    step = dual_step(G, lo, hi, objective=objective, tolerance=1e-5, **bounds)
    assert ((lo <= step.delta) & (step.delta <= hi)).all()
    torch.testing.assert_close(step.gains, (G * step.delta.unsqueeze(1)).sum(2))
    for i in range(5):
        own = {
            name: values[i].tolist() if torch.is_tensor(values) else values for name, values in bounds.items()
        }
        best = optimum(G[i], lo[i], hi[i], objective, **own)
        largest = reach[i].max().item()
        slack = 1e-5 * max(abs(best), 1e-4 * largest)
        assert best <= step.bound[i] + 1e-9 * largest
        assert step.value[i] == pytest.approx(best, abs=2 * slack)
        assert step.gap[i] <= 2 * slack
        assert step.shortfall[i] <= 1e-6 * largest


def test_the_weights_are_in_the_simplex_and_their_closed_form_gain_is_the_bound() -> None:
    G, lo, hi = batch(4, 4, 200, seed=1)
    step = dual_step(G, lo, hi, tolerance=1e-6)
    torch.testing.assert_close(step.weights.sum(1), torch.ones(4, dtype=torch.float64))
    assert (step.weights >= 0).all()
    c = (step.weights.unsqueeze(1) @ G).squeeze(1)
    torch.testing.assert_close(torch.maximum(c * lo, c * hi).sum(1), step.bound)


def test_it_is_the_relaxation_of_the_integer_program() -> None:
    generator = np.random.default_rng(0)
    G = generator.integers(-9, 10, (3, 40)).astype(float)
    lo, hi = -generator.integers(0, 5, 40), generator.integers(0, 5, 40)
    step = dual_step(*(torch.from_numpy(array[np.newaxis]).double() for array in (G, lo, hi)), tolerance=1e-7)
    relaxed = coupled_step(G, lo, hi, objective="worst", relaxed=True)
    assert step.value.item() == pytest.approx(relaxed.value, rel=1e-6)
    assert coupled_step(G, lo, hi, objective="worst").value <= step.bound.item() + 1e-9


def test_samples_do_not_matter_to_each_other() -> None:
    G, lo, hi = batch(6, 3, 60, seed=2)
    floors = torch.full((6, 3), -INF)
    floors[::2, 1] = 0.1
    together = dual_step(G, lo, hi, floors=floors)
    for i in range(6):
        one = slice(i, i + 1)
        alone = dual_step(G[one], lo[one], hi[one], floors=floors[one])
        torch.testing.assert_close(alone.delta, together.delta[one], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(alone.weights, together.weights[one], rtol=1e-6, atol=1e-9)


def test_gradients_that_conflict_gain_nothing() -> None:
    G, lo, hi = batch(2, 1, 50, seed=3)
    step = dual_step(torch.cat([G, -G], 1), lo, hi)
    largest = (G[:, 0].abs() * torch.maximum(-lo, hi)).sum(1)
    assert (step.bound.abs() <= 1e-6 * largest).all()
    assert (step.value.abs() <= 1e-6 * largest).all()
    torch.testing.assert_close(step.weights, torch.full((2, 2), 0.5, dtype=torch.float64), rtol=0, atol=1e-4)


def test_one_task_or_the_same_one_again_is_the_closed_form() -> None:
    """Also with a tolerance that is never reached."""
    G, lo, hi = batch(2, 1, 50, seed=6)
    best = torch.maximum(G * lo.unsqueeze(1), G * hi.unsqueeze(1)).sum((1, 2))
    for copies in (1, 3):
        step = dual_step(G.repeat(1, copies, 1), lo, hi, tolerance=0.0)
        torch.testing.assert_close(step.value, best)
        torch.testing.assert_close(step.bound, best)


@given(seed=st.integers(0, 2**31), tasks=st.integers(2, 5), size=st.integers(1, 30))
@example(seed=67108864, tasks=4, size=3)  # of rank too low for its Newton system
@settings(max_examples=25, deadline=None)
def test_the_gap_is_closed_whatever_the_gradients(seed: int, tasks: int, size: int) -> None:
    """Integer gradients with zeros, ties and copies, in boxes with sides of no length."""
    generator = torch.Generator().manual_seed(seed)
    G = torch.randint(-2, 3, (3, tasks, size), generator=generator).double()
    lo, hi = (torch.randint(0, 3, (3, size), generator=generator).double() for _ in range(2))
    step = dual_step(G, -lo, hi, tolerance=1e-4)
    reach = (G.abs() * torch.maximum(lo, hi).unsqueeze(1)).sum(2).amax(1)
    assert (step.gap >= -1e-9).all()
    assert (step.gap <= 1e-4 * torch.maximum(step.bound.abs(), 1e-2 * reach)).all()


def test_floors_that_cannot_be_met_are_missed_as_little_as_possible() -> None:
    G, lo, hi = batch(3, 2, 50, seed=4)
    most = torch.maximum(G * lo.unsqueeze(1), G * hi.unsqueeze(1)).sum(2)
    floors = torch.stack([most[:, 0] + 1.0, torch.full((3,), -INF, dtype=torch.float64)], 1)
    step = dual_step(G, lo, hi, objective="total", floors=floors)
    torch.testing.assert_close(step.shortfall, torch.ones(3, dtype=torch.float64), rtol=1e-2, atol=0)


def test_images_keep_their_shape_and_type_and_zero_gradients_do_no_harm() -> None:
    G, lo, hi = (tensor.float() for tensor in batch(3, 2, 48, seed=5))
    G[1] = 0
    step = dual_step(G.reshape(3, 2, 3, 4, 4), lo.reshape(3, 3, 4, 4), hi.reshape(3, 3, 4, 4))
    assert step.delta.shape == (3, 3, 4, 4)
    assert step.delta.dtype == torch.float32
    assert step.value[1] == 0
    assert step.weights.isfinite().all()
    assert ((step.gap >= -1e-6) & (step.gap <= 1e-2)).all()


def test_bad_input_is_refused() -> None:
    G, lo, hi = batch(2, 2, 5)
    with pytest.raises(UnknownNameError, match="'worst'"):
        dual_step(G, lo, hi, objective="best")
    with pytest.raises(SettingError, match=r"gradients of shape \(2, 2, 5\)"):
        dual_step(G, lo[:, :3], hi)
    with pytest.raises(SettingError, match="not finite"):
        dual_step(G * math.nan, lo, hi)
    with pytest.raises(SettingError, match="lo above hi"):
        dual_step(G, hi + 1, lo)
    with pytest.raises(SettingError, match="not all 0"):
        dual_step(G, lo, hi, weights=[0.0, 0.0])
    with pytest.raises(SettingError, match="2 numbers, one a task"):
        dual_step(G, lo, hi, floors=[1.0])
