"""Proper scores by closed forms and Monte Carlo."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi2, multivariate_normal, norm

from mot_cup.scores import (
    chi_square_bounds,
    coverage,
    gaussian_crps,
    gaussian_nll,
    interval_score,
    interval_width,
    joint_coverage,
    joint_gaussian_nll,
    nees,
    nis,
)
from tenfold import DataError, SettingError

errors = st.floats(-20, 20)
sigmas = st.floats(0.05, 20)


@given(e=errors, sigma=sigmas)
def test_nll_is_that_of_the_density(e: float, sigma: float) -> None:
    assert gaussian_nll(e, sigma) == pytest.approx(-norm.logpdf(e, scale=sigma))


@pytest.mark.parametrize(("e", "sigma"), [(0.0, 1.0), (0.3, 0.2), (-2.0, 0.7), (1.0, 5.0)])
def test_crps_is_the_integral_of_squared_differences_of_distributions(e: float, sigma: float) -> None:
    below, _ = quad(lambda x: norm.cdf(x, scale=sigma) ** 2, e - 40 * sigma, e)
    above, _ = quad(lambda x: norm.sf(x, scale=sigma) ** 2, e, e + 40 * sigma)
    assert gaussian_crps(e, sigma) == pytest.approx(below + above, rel=1e-6)


def test_crps_is_the_energy_form_of_many_draws() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(scale=1.5, size=(2, 400_000))
    drawn = np.abs(first - 0.8).mean() - np.abs(first - second).mean() / 2
    assert gaussian_crps(0.8, 1.5) == pytest.approx(drawn, abs=0.01)


@given(e=errors, sigma=sigmas, unit=st.floats(0.1, 10))
def test_scores_change_with_the_unit_as_told(e: float, sigma: float, unit: float) -> None:
    assert gaussian_nll(unit * e, unit * sigma) - gaussian_nll(e, sigma) == pytest.approx(np.log(unit))
    assert gaussian_crps(unit * e, unit * sigma) == pytest.approx(unit * gaussian_crps(e, sigma))
    assert interval_score([unit * e], [unit * sigma], 0.9) == pytest.approx(
        unit * interval_score([e], [sigma], 0.9)
    )


def test_no_other_spread_scores_better_than_the_true_one() -> None:
    drawn = np.random.default_rng(1).normal(scale=2.0, size=200_000)
    spreads = 2.0 * np.array([0.5, 0.8, 1.0, 1.25, 2.0])
    for score in (
        lambda spread: gaussian_nll(drawn, spread).mean(),
        lambda spread: gaussian_crps(drawn, spread).mean(),
        lambda spread: interval_score(drawn, norm.ppf(0.95) * spread, 0.9).mean(),
    ):
        assert int(np.argmin([score(spread) for spread in spreads])) == 2


def test_interval_score_is_the_width_and_ten_times_either_miss() -> None:
    assert interval_score([0.5, 3.0, -3.0], [1.0, 1.0, 1.0], 0.8) == pytest.approx([2.0, 22.0, 22.0])
    assert interval_score([0.5], [np.inf], 0.8) == np.inf
    assert interval_width([[1.0, 2.0], [3.0, 4.0]]).tolist() == [4.0, 6.0]


def test_coverage_counts_by_dimension_and_jointly() -> None:
    made = np.array([[0.5, 0.5], [0.5, -2.0], [-2.0, 0.5], [2.0, 1.0]])
    assert coverage(made, 1.0).tolist() == [0.5, 0.75]
    assert joint_coverage(made, 1.0) == 0.25
    assert coverage(made, np.inf).tolist() == [1, 1]


def test_joint_nll_is_that_of_the_density_and_splits_when_independent() -> None:
    generator = np.random.default_rng(2)
    roots = generator.normal(size=(20, 3, 3))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(3)
    vectors = generator.normal(size=(20, 3))
    expected = [-multivariate_normal.logpdf(e, cov=P) for e, P in zip(vectors, covariances, strict=True)]
    np.testing.assert_allclose(joint_gaussian_nll(vectors, covariances), expected)
    sigma = np.array([0.5, 1.0, 2.0])
    independent = joint_gaussian_nll(vectors, np.tile(np.diag(sigma**2), (20, 1, 1)))
    np.testing.assert_allclose(independent, gaussian_nll(vectors, sigma).sum(axis=1))


def test_nees_of_a_consistent_filter_is_within_its_bounds_and_others_are_not() -> None:
    generator = np.random.default_rng(3)
    root = np.array([[1.0, 0.0], [0.7, 0.3]])
    drawn = generator.normal(size=(2000, 2)) @ root.T
    covariances = np.tile(root @ root.T, (2000, 1, 1))
    low, high = chi_square_bounds(2000, 2)
    assert low < 2 < high
    assert low < nees(drawn, covariances).mean() < high
    assert nis(drawn, covariances / 1.5).mean() > high
    assert nis(drawn, 1.5 * covariances).mean() < low


def test_bounds_hold_the_mean_as_often_as_they_say() -> None:
    means = np.random.default_rng(4).chisquare(3, size=(20_000, 10)).mean(axis=1)
    low, high = chi_square_bounds(10, 3, 0.9)
    assert (low, high) == pytest.approx((chi2.ppf(0.05, 30) / 10, chi2.ppf(0.95, 30) / 10))
    assert ((means > low) & (means < high)).mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_nll([np.nan], [1.0]), "finite errors"),
        (lambda: gaussian_crps([0.0], [0.0]), "above 0"),
        (lambda: coverage([], []), "one or more"),
        (lambda: interval_score([0.0], [-1.0], 0.9), "0 or more"),
        (lambda: interval_score([0.0], [np.nan], 0.9), "0 or more"),
        (lambda: nees([[1.0, 1.0]], [np.ones((2, 2))]), "positive definite"),
        (lambda: nees([[1.0, 1.0]], [np.eye(3)]), r"\(n, d, d\)"),
    ],
)
def test_values_that_make_no_sense_are_refused(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]


def test_impossible_levels_are_refused() -> None:
    with pytest.raises(SettingError, match="between 0 and 1"):
        interval_score([0.0], [1.0], 1.0)
    with pytest.raises(SettingError, match="1 or more"):
        chi_square_bounds(0, 4)
