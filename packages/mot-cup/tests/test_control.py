"""Conformal control: the bound on its misses, and what it does to short streams."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mot_cup.conformal import (
    AdaptiveConformal,
    ConformalControl,
    Stream,
    assess,
    choose_gains,
    conformal_quantiles,
)
from tenfold import DataError, SettingError

ALPHA = 0.1


def scores(count: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.abs(np.random.default_rng(seed).standard_t(4, size=(count, 2)))


def stream(count: int, seed: int, scale: float = 1.0, size: int = 5) -> Stream:
    return Stream(np.arange(count) // size, scores(count, seed, scale), np.ones((count, 2)))


class Slow:
    """The same in plain Python, of one dimension, from the formulas."""

    def __init__(self, held: np.ndarray, gain: float, step: float) -> None:
        self.held, self.gain, self.step = np.sort(held), gain, step
        self.theta, self.E, self.sizes = np.log(9.0), 0.0, []

    def quantile(self, u: float) -> float:
        n, end = len(self.held), np.log(len(self.held))
        if u > end:
            return self.held[-1] * np.exp(u - end)
        if u < -end:
            return self.held[0] * np.exp(u + end)
        return self.held[int(np.ceil(round((n + 1) / (1 + np.exp(-u)), 9))) - 1]

    def expected(self) -> float:
        mean = np.mean(self.sizes) if self.sizes else 1.0
        return self.quantile(self.theta + self.gain * self.E / mean)

    def update(self, frame: np.ndarray) -> None:
        used, ahead = self.expected(), self.quantile(self.theta)
        self.sizes.append(len(frame))
        self.E += np.sum(frame > used) - ALPHA * len(frame)
        theta = self.theta + self.step * (np.sum(frame > ahead) - ALPHA * len(frame)) / np.mean(self.sizes)
        self.theta = np.clip(theta, -np.log(len(self.held)), np.log(len(self.held)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gain=st.floats(0, 5),
    step=st.floats(0, 2),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=40),
)
def test_it_is_its_formulas(seed: int, gain: float, step: float, sizes: list[int]) -> None:
    generator, held = np.random.default_rng(seed), scores(60, 0)[:, :1]
    frames = [generator.exponential(generator.exponential(3), size=(size, 1)) for size in sizes]
    control, slow, expected = ConformalControl(held, gain=gain, step=step), Slow(held[:, 0], gain, step), []
    for frame in frames:
        np.testing.assert_allclose(control.quantiles, slow.expected(), rtol=1e-12)
        expected += [slow.expected()] * len(frame)
        control.update(frame)
        slow.update(frame[:, 0])
    whole = Stream(np.repeat(np.arange(len(sizes)), sizes), np.concatenate(frames), np.ones((sum(sizes), 1)))
    used = ConformalControl(held, gain=gain, step=step).follow(whole)
    np.testing.assert_allclose(used[:, 0], expected, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), gain=st.floats(0.1, 5), step=st.floats(0, 2), size=st.integers(1, 8))
def test_misses_are_bounded_whatever_the_data(seed: int, gain: float, step: float, size: int) -> None:
    """Scores between q(-b) and q(b), chosen in view of the quantiles so as to miss or to be covered."""
    generator, held = np.random.default_rng(seed), np.arange(1.0, 101.0)[:, None]
    b = np.log(100.0)
    control = ConformalControl(held, gain=gain, step=step)
    excess, most = 0.0, 0
    for _ in range(150):
        count = int(generator.integers(1, size + 1))
        ahead = np.full((count, 1), 100.0 if generator.random() < generator.random() else 1.0)
        excess += float((ahead > control.quantiles).sum()) - ALPHA * count
        most = max(most, count)
        control.update(ahead)
        assert abs(excess) <= most * (2 * b / gain + 1)
        assert np.isfinite(control.quantiles).all()
        assert (control.quantiles > 0).all()


def test_without_gain_and_step_it_is_split_conformal() -> None:
    held = scores(500, 0)
    used = ConformalControl(held, gain=0, step=0).follow(stream(100, 1))
    assert (used == conformal_quantiles(held, 0.9)).all()


@pytest.mark.parametrize("scale", [0.4, 2.5])
def test_a_short_stream_of_other_errors_has_its_coverage(scale: float) -> None:
    held = scores(2000, 3)
    gaps = np.array(
        [
            [np.abs(assess(stream(150, seed, scale, 2), form).gap) for form in forms]
            for seed in range(20)
            for forms in [(ConformalControl(held), AdaptiveConformal(held, step=0.1))]
        ]
    ).mean(axis=(0, 2))
    assert gaps[0] < 0.01
    assert gaps[0] < gaps[1] / 2


def test_labels_are_used_only_after_their_frame() -> None:
    original = stream(100, 5)
    changed = original.scores.copy()
    changed[50:] = 100.0
    used = [
        ConformalControl(scores(100, 6)).follow(Stream(original.frames, values, original.sigma))
        for values in (original.scores, changed)
    ]
    assert (used[0][:55] == used[1][:55]).all()
    assert (used[0][55:] != used[1][55:]).any()


def test_gains_are_chosen_where_streams_move_and_not_where_they_do_not() -> None:
    held = scores(2000, 0)
    moving = [(stream(300, seed, scale), held) for seed, scale in enumerate([0.4, 0.6, 1.6, 2.5])]
    gain, step = choose_gains(moving)
    assert gain.shape == step.shape == (2,)
    assert (gain > 0).all()
    gain, step = choose_gains([(Stream(np.arange(10), held[:10], np.ones((10, 2))), held)], gains=[50.0])
    assert gain.tolist() == step.tolist() == [0, 0]
    with pytest.raises(DataError, match="no streams"):
        choose_gains([])


def test_what_makes_no_sense_is_refused() -> None:
    held = scores(100, 0)
    for gain, step in [(-1.0, 0.0), (1.0, -0.1), (np.nan, 0.0), (1.0, np.inf)]:
        with pytest.raises(SettingError, match="0 or more"):
            ConformalControl(held, gain=gain, step=step)
    with pytest.raises(SettingError, match="9 scores or more"):
        ConformalControl(held[:8])
    with pytest.raises(DataError, match="dimensions"):
        ConformalControl(held).update([[1.0, 2.0, 3.0]])
