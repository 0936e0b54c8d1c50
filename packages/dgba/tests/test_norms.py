"""Steps and projections: optimal against cvxpy and brute force, within their sets, sample by sample."""

import itertools

import cvxpy as cp
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dgba._norms import NORMS, project, random_start, steepest
from tenfold import SettingError, UnknownNameError

SEEDS = st.integers(0, 2**31)


def problem(seed: int, n: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors with ties and zeros, and boxes in which many sides have no room."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (n, size), generator=generator).double()

    return draw(-4, 4) / 2, -draw(0, 4) / 4, draw(0, 4) / 4


def norm_of(d: Tensor, norm: str) -> Tensor:
    order = {"linf": torch.inf, "l2": 2, "l1": 1, "l0": 0}[norm]
    return torch.linalg.vector_norm(d.reshape(d.shape[0], -1), order, dim=1)


def budgets(norm: str, size: int) -> st.SearchStrategy[float]:
    return st.integers(0, size).map(float) if norm == "l0" else st.floats(0, 3)


def constraints(d: cp.Variable, norm: str, eps: float, lo: Tensor, hi: Tensor) -> list[cp.Constraint]:
    return [
        cp.norm(d, {"l2": 2, "l1": 1, "linf": "inf"}[norm]) <= eps,
        lo[0].numpy() <= d,
        d <= hi[0].numpy(),
    ]


@pytest.mark.parametrize("norm", NORMS)
@given(data=st.data(), seed=SEEDS)
def test_steps_and_projections_keep_to_the_ball_and_the_box(
    norm: str, data: st.DataObject, seed: int
) -> None:
    v, lo, hi = problem(seed, 3, 8)
    eps = data.draw(budgets(norm, 8))
    for d in (steepest(v, norm, eps, lo, hi), project(v, norm, eps, lo, hi)):
        assert (lo <= d).all()
        assert (d <= hi).all()
        assert (norm_of(d, norm) <= eps * (1 + 1e-12) + 1e-12).all()
        assert (d * v >= 0).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("seed", range(8))
def test_steps_and_projections_are_those_of_cvxpy(norm: str, seed: int) -> None:
    v, lo, hi = problem(seed, 1, 12)
    eps = 0.25 * (seed + 1)
    d = cp.Variable(12)
    inside = constraints(d, norm, eps, lo, hi)
    best = cp.Problem(cp.Maximize(v[0].numpy() @ d), inside).solve(solver="CLARABEL")
    assert (steepest(v, norm, eps, lo, hi) * v).sum().item() == pytest.approx(best, abs=1e-6)
    least = cp.Problem(cp.Minimize(cp.sum_squares(d - v[0].numpy())), inside).solve(solver="CLARABEL")
    assert (project(v, norm, eps, lo, hi) - v).square().sum().item() == pytest.approx(least, abs=1e-5)


@given(seed=SEEDS, eps=st.integers(0, 6))
def test_l0_is_the_best_choice_of_entries(seed: int, eps: int) -> None:
    v, lo, hi = problem(seed, 1, 6)
    corner = torch.where(v > 0, hi, lo)
    nearest = v.clamp(lo, hi)
    gains, distances = [], []
    for chosen in itertools.combinations(range(6), eps):
        mask = torch.zeros(1, 6)
        mask[0, list(chosen)] = 1
        gains.append((v * corner * mask).sum())
        distances.append((v - nearest * mask).square().sum())
    assert (v * steepest(v, "l0", eps, lo, hi)).sum() == pytest.approx(max(gains))
    assert (v - project(v, "l0", eps, lo, hi)).square().sum() == pytest.approx(min(distances))


@given(seed=SEEDS, eps=st.integers(0, 8))
def test_l1_beats_every_integer_point(seed: int, eps: int) -> None:
    """With integer data the greedy solution is integral, so brute force over integers finds it."""
    v, lo, hi = (4 * tensor for tensor in problem(seed, 1, 4))
    grids = [range(int(low), int(high) + 1) for low, high in zip(lo[0] / 4, hi[0] / 4, strict=True)]
    points = torch.tensor([d for d in itertools.product(*grids) if sum(map(abs, d)) <= eps]).double()
    step = steepest(v, "l1", eps, (lo / 4).ceil(), (hi / 4).floor())
    assert (v * step).sum() == pytest.approx((points @ v[0]).max())


@pytest.mark.parametrize("norm", NORMS)
def test_samples_do_not_matter_to_each_other(norm: str) -> None:
    v, lo, hi = problem(0, 5, 20)
    eps = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    for method in (steepest, project):
        together = method(v, norm, eps, lo, hi)
        for i in range(5):
            alone = method(v[i : i + 1], norm, float(eps[i]), lo[i : i + 1], hi[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_a_projection_leaves_what_is_inside_alone(norm: str) -> None:
    v, lo, hi = problem(1, 4, 10)
    inside = project(v, norm, 2, lo, hi)
    torch.testing.assert_close(project(inside, norm, 2, lo, hi), inside, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_are_inside_and_each_samples_own(norm: str) -> None:
    lo, hi = torch.full((6, 3, 4, 4), -0.4), torch.full((6, 3, 4, 4), 0.7)
    eps = 5.0 if norm == "l0" else 0.5

    def starts(samples: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(sample) for sample in samples]
        return random_start(norm, eps, lo[samples], hi[samples], generators)

    together = starts([0, 1, 2, 3, 4, 5])
    assert ((lo <= together) & (together <= hi)).all()
    assert (norm_of(together, norm) <= eps * (1 + 1e-6)).all()
    assert not torch.equal(together[0], together[1])
    assert torch.equal(together[[4, 2]], starts([4, 2]))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_random_starts_fill_the_ball_evenly(norm: str) -> None:
    """In m dimensions, the share of a ball within radius r eps is r^m."""
    lo, hi = torch.full((4000, 3), -1.0), torch.full((4000, 3), 1.0)
    generators = [torch.Generator().manual_seed(sample) for sample in range(4000)]
    radii = norm_of(random_start(norm, 0.5, lo, hi, generators), norm) / 0.5
    for r in (0.5, 0.8):
        assert (radii <= r).double().mean().item() == pytest.approx(r**3, abs=0.03)


def test_nothing_is_done_for_no_samples() -> None:
    empty = torch.zeros(0, 3, 2, 2)
    for norm in NORMS:
        assert steepest(empty, norm, 1, empty, empty).shape == empty.shape
        assert random_start(norm, 1, empty, empty, []).shape == empty.shape


def test_bad_input_is_refused() -> None:
    v, lo, hi = problem(0, 2, 3)
    with pytest.raises(SettingError, match="eps is -1"):
        steepest(v, "l2", -1, lo, hi)
    with pytest.raises(SettingError, match="eps is inf"):
        steepest(v, "linf", float("inf"), lo, hi)
    with pytest.raises(SettingError, match="eps is nan"):
        project(v, "l2", float("nan"), lo, hi)
    with pytest.raises(SettingError, match="a box without 0"):
        steepest(v, "l2", 1, lo + 2, hi + 2)
    with pytest.raises(SettingError, match=r"\(2, 3\), \(2, 2\)"):
        steepest(v, "l2", 1, lo[:, :2], hi)
    with pytest.raises(UnknownNameError, match="'linf'"):
        steepest(v, "inf", 1, lo, hi)
    with pytest.raises(SettingError, match="1 generators for 2 samples"):
        random_start("l2", 1, lo, hi, [torch.Generator()])
