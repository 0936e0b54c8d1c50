"""Adaptive conformal prediction on streams that are not exchangeable."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mot_cup import BoxCovariance, Detections
from mot_cup.conformal import (
    AdaptiveConformal,
    Calibration,
    Stream,
    Tracked,
    assess,
    choose_step,
    conformal_quantiles,
)
from tenfold import DataError, SettingError, UnknownNameError


def scores(count: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.abs(np.random.default_rng(seed).standard_t(4, size=(count, 2)))


def stream(count: int, seed: int, scale: float = 1.0) -> Stream:
    return Stream(np.arange(count) // 5, scores(count, seed, scale), np.ones((count, 2)))


@pytest.mark.parametrize("tracked", ["level", "quantile"])
def test_a_step_of_0_is_split_conformal(tracked: Tracked) -> None:
    held = scores(500, 0)
    adaptive = AdaptiveConformal(held, step=0, tracked=tracked)
    assert (adaptive.follow(stream(100, 1)) == conformal_quantiles(held, 0.9)).all()


@pytest.mark.parametrize("tracked", ["level", "quantile"])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_coverage_comes_back_on_a_stream_of_other_errors(tracked: Tracked, scale: float) -> None:
    step = {"level": 0.02, "quantile": 0.1}[tracked]
    shifted = stream(1000, 2, scale)
    fixed = assess(shifted, AdaptiveConformal(scores(2000, 3), step=0, tracked=tracked))
    moving = assess(shifted, AdaptiveConformal(scores(2000, 3), step=step, tracked=tracked))
    assert (np.abs(fixed.gap) > 0.05).all()
    assert (np.abs(moving.gap) < 0.015).all()
    assert (moving.interval_score < fixed.interval_score).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), step=st.floats(0.01, 0.5), sizes=st.lists(st.integers(0, 6), max_size=40))
def test_misses_telescope_whatever_the_data(seed: int, step: float, sizes: list[int]) -> None:
    generator = np.random.default_rng(seed)
    adaptive = AdaptiveConformal(scores(50, 0), step=step)
    first, misses, count = adaptive.quantiles, np.zeros(2), 0
    for size in sizes:
        frame = generator.exponential(generator.exponential(), size=(size, 2))
        misses += (frame > adaptive.quantiles).sum(axis=0)
        count += size
        adaptive.update(frame)
    np.testing.assert_allclose(misses - 0.1 * count, np.log(adaptive.quantiles / first) / step, atol=1e-6)


def test_the_level_of_the_paper_becomes_infinite_and_empty_and_comes_back() -> None:
    adaptive = AdaptiveConformal(scores(99, 0), step=0.06, tracked="level")
    assert assess(stream(30, 1, 0.0), adaptive).void.tolist() == [0, 0]
    hits = Stream(np.arange(200), np.zeros((200, 2)), np.ones((200, 2)))
    misses = Stream(np.arange(200), np.full((200, 2), 1e6), np.ones((200, 2)))
    assert adaptive.follow(hits)[-1].tolist() == [0, 0]
    used = adaptive.follow(misses)
    infinite = np.isinf(used).all(axis=1)
    assert infinite.mean() > 0.5
    assert (used[~infinite] <= adaptive.largest).all()
    # An infinite interval cannot miss, so that the path turns back at once.
    assert not (infinite[1:] & infinite[:-1]).all()


def test_labels_are_used_only_after_their_frame() -> None:
    original = stream(100, 5)
    changed = original.scores.copy()
    changed[50:] = 100.0
    used = [
        AdaptiveConformal(scores(100, 6), step=0.2).follow(Stream(original.frames, values, original.sigma))
        for values in (original.scores, changed)
    ]
    assert (used[0][:55] == used[1][:55]).all()
    assert (used[0][55:] != used[1][55:]).any()
    assert (used[0][50:55] == used[0][50]).all()


def test_a_step_is_chosen_where_streams_move_and_not_where_they_do_not() -> None:
    held = scores(2000, 0)
    moving = [(stream(500, seed, scale), held) for seed, scale in enumerate([0.4, 0.6, 1.6, 2.5])]
    assert (choose_step(moving) > 0).all()
    assert (choose_step(moving, tracked="level") > 0).all()
    exact = [(Stream(np.zeros(10, int), held[:10], np.ones((10, 2))), held)]
    assert choose_step(exact, steps=[0.1]).tolist() == [0, 0]
    with pytest.raises(DataError, match="no streams"):
        choose_step([])


def test_what_makes_no_sense_is_refused() -> None:
    held = scores(100, 0)
    with pytest.raises(SettingError, match="0 or more"):
        AdaptiveConformal(held, step=-0.1)
    with pytest.raises(UnknownNameError, match="quantil"):
        AdaptiveConformal(held, tracked="quantil")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="9 scores or more"):
        AdaptiveConformal(held[:8])
    adaptive = AdaptiveConformal(held)
    with pytest.raises(DataError, match="dimensions"):
        adaptive.update([[1.0, 2.0, 3.0]])
    with pytest.raises(DataError, match="dimensions"):
        adaptive.follow(Stream(np.arange(9), np.ones((9, 3)), np.ones((9, 3))))
    with pytest.raises(DataError, match="0 or more"):
        adaptive.update([[1.0, np.nan]])
    with pytest.raises(DataError, match="order of frames"):
        Stream(np.array([2, 1]), held[:2], np.ones((2, 2)))


def test_a_calibration_takes_the_quantiles_of_the_moment() -> None:
    calibration = Calibration(np.full((1, 4), 2.0), np.array([100]), level=0.9)
    adaptive = AdaptiveConformal(np.full((100, 4), 2.0), level=0.9, step=0.5)
    adaptive.update([[3.0, 1.0, 1.0, 1.0]])
    moved = dataclasses.replace(calibration, quantiles=adaptive.quantiles[None])
    box = Detections(np.array([[0.0, 0, 9, 9]]), covariance=BoxCovariance(np.eye(4)[None], "xywh", "px"))
    factors = np.exp([0.45, -0.05, -0.05, -0.05])
    np.testing.assert_allclose(moved.half_widths(box)[0], 2 * factors)
    before, after = (np.diag(item.covariance(box).matrices[0]) for item in (calibration, moved))
    np.testing.assert_allclose(after / before, factors**2)
