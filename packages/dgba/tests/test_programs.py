"""Programs in whole pixel values: the closed form against CBC, couplings against enumeration."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dgba._norms import steepest
from dgba._programs import coupled_step, integer_step, pixel_box
from tenfold import SettingError, UnknownNameError

Pixels = NDArray[np.int64]


def instance(seed: int, n: int, tasks: int) -> tuple[NDArray[np.float64], Pixels, Pixels]:
    """Integer gradients, zeros among them, and the box of an image that reaches both ends of its range."""
    generator = np.random.default_rng(seed)
    image = generator.choice([0, 1, 3, 100, 254, 255], n)
    box = pixel_box(image, int(generator.integers(1, 4)))
    return generator.integers(-9, 10, (tasks, n)).astype(float), *box


def points(lo: Pixels, hi: Pixels) -> Pixels:
    sides = (range(low, high + 1) for low, high in zip(lo, hi, strict=True))
    return np.array(list(itertools.product(*sides)))


@pytest.mark.parametrize("seed", range(12))
def test_the_closed_form_equals_cbc_on_a_hundred_instances(seed: int) -> None:
    """A hundred images in one program, which nothing couples: each must be optimal. 1,200 in all."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (100, 24))
    images[generator.random(images.shape) < 0.2] = 255
    images[generator.random(images.shape) < 0.2] = 0
    boxes = [
        pixel_box(image, int(eps)) for image, eps in zip(images, generator.integers(0, 17, 100), strict=True)
    ]
    lo, hi = (np.stack(sides) for sides in zip(*boxes, strict=True))
    c = generator.integers(-50, 51, images.shape).astype(np.float64)
    solved = integer_step(c.ravel(), lo.ravel(), hi.ravel()).reshape(c.shape)
    sides = (torch.from_numpy(side).double() for side in (lo, hi))
    closed = steepest(torch.from_numpy(c), "linf", 16.0, *sides).numpy()
    assert np.array_equal((c * solved).sum(1), (c * closed).sum(1))
    assert ((lo <= solved) & (solved <= hi)).all()


@pytest.mark.parametrize("seed", range(6))
def test_couplings_of_tasks_are_those_of_enumeration(seed: int) -> None:
    G, lo, hi = instance(seed, 5, 3)
    every = points(lo, hi)
    gains = every @ G.T
    worst = coupled_step(G, lo, hi, objective="worst")
    assert worst.value == gains.min(1).max()
    assert worst.optimal
    weighted = coupled_step(G, lo, hi, objective="worst", weights=[2, 0, 1])
    assert weighted.value == np.minimum(2 * gains[:, 0], gains[:, 2]).max()
    floor = 0.5 * gains[:, 0].max()
    kept = (gains[:, 0] >= floor) & (gains[:, 1] <= 0)
    bounded = coupled_step(G, lo, hi, floors=[floor, -np.inf, -np.inf], ceilings=[np.inf, 0, np.inf])
    assert bounded.value == gains[kept].sum(1).max()
    np.testing.assert_array_equal(bounded.gains, G @ bounded.delta)
    spared = coupled_step(G, lo, hi, weights=[1, 0, 0], ceilings=[np.inf, 0, 0])
    assert spared.value == gains[(gains[:, 1] <= 0) & (gains[:, 2] <= 0), 0].max()


@pytest.mark.parametrize("seed", range(4))
def test_a_pixel_counts_once_for_its_channels(seed: int) -> None:
    G, lo, hi = instance(seed, 6, 2)
    every = points(lo, hi)
    gains = every @ G.T
    for pixels in (0, 1, 2):
        entries = coupled_step(G, lo, hi, pixels=pixels)
        assert entries.value == gains[(every != 0).sum(1) <= pixels].sum(1).max()
        owners = np.array([7, 7, 7, 2, 2, 2])
        changed = (every[:, :3] != 0).any(1).astype(int) + (every[:, 3:] != 0).any(1)
        grouped = coupled_step(G, lo, hi, objective="worst", pixels=pixels, pixel_of=owners)
        assert grouped.value == gains[changed <= pixels].min(1).max()


def test_the_l0_step_is_the_programs() -> None:
    G, lo, hi = instance(3, 30, 1)
    sides = (torch.from_numpy(side[np.newaxis]).double() for side in (lo, hi))
    step = steepest(torch.from_numpy(G), "l0", 4, *sides).numpy()
    assert coupled_step(G, lo, hi, pixels=4).value == (G * step).sum()


def test_relaxed_it_is_integral_without_couplings_and_no_worse_with_them() -> None:
    G, lo, hi = instance(1, 30, 3)
    total = coupled_step(G, lo, hi, relaxed=True)
    np.testing.assert_allclose(total.delta, np.rint(total.delta), atol=1e-9)
    assert total.value == pytest.approx(coupled_step(G, lo, hi).value)
    relaxed = coupled_step(G, lo, hi, objective="worst", relaxed=True)
    whole = coupled_step(G, lo, hi, objective="worst")
    assert whole.value <= relaxed.value + 1e-6
    assert (np.abs(relaxed.delta - np.rint(relaxed.delta)) > 1e-6).sum() <= 2  # tasks less one


def test_entries_without_a_gradient_stay_as_they_are() -> None:
    assert not coupled_step(np.zeros((2, 3)), [-1] * 3, [1] * 3).delta.any()
    assert integer_step([0.0, 2.0, 0.0], [-1] * 3, [1] * 3).tolist() == [0, 1, 0]


def test_bad_input_is_refused() -> None:
    G, lo, hi = instance(0, 4, 2)
    with pytest.raises(SettingError, match="that no perturbation was found to keep to"):
        coupled_step(G, lo, hi, floors=[1e4, 0])
    with pytest.raises(UnknownNameError, match="'worst'"):
        coupled_step(G, lo, hi, objective="worse")
    with pytest.raises(SettingError, match="above ceilings"):
        coupled_step(G, lo, hi, floors=[1, 0], ceilings=[0, 0])
    with pytest.raises(SettingError, match="2 numbers, one a task"):
        coupled_step(G, lo, hi, weights=[1.0])
    with pytest.raises(SettingError, match="not all 0"):
        coupled_step(G, lo, hi, weights=[0.0, 0.0])
    with pytest.raises(SettingError, match="NaN or infinite"):
        coupled_step(G * np.nan, lo, hi)
    with pytest.raises(SettingError, match="between whole numbers"):
        coupled_step(G, lo + 0.5, hi + 0.5)
    with pytest.raises(SettingError, match="lo above hi"):
        coupled_step(G, hi + 1, lo)
    with pytest.raises(SettingError, match=r"gradients of shape \(4,\)"):
        coupled_step(G[0], lo, hi)
    with pytest.raises(SettingError, match="-1 pixels"):
        coupled_step(G, lo, hi, pixels=-1)
    with pytest.raises(SettingError, match="pixels of type float64"):
        pixel_box([0.5], 1)
    with pytest.raises(SettingError, match="eps -1"):
        pixel_box([5], -1)
