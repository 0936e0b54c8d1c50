"""The one-run audit: valid on mechanisms whose epsilon is known, and near it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from spectral_dp.audit import epsilon_lower_bound, gaussian_epsilon, one_run_audit, one_run_p_value
from tenfold import DataError, SettingError


def p_value_by_the_theorem(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Sum the binomial probabilities of the theorem one by one."""
    right = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [
        math.comb(guesses, count) * right**count * (1 - right) ** (guesses - count)
        for count in range(guesses + 1)
    ]
    beta = sum(mass[correct:])
    alpha = max(sum(mass[max(0, correct - i) : correct]) / i for i in range(1, canaries + 1))
    return min(1.0, beta + 2 * canaries * delta * alpha)


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "epsilon", "delta"),
    [
        *itertools.product([30], [20], [0, 1, 12, 20], [0.0, 1.0, 3.0], [0.0, 1e-3, 0.1]),
        (50, 50, 40, 2.0, 1e-4),
    ],
)
def test_p_value_is_the_theorem_s(
    canaries: int, guesses: int, correct: int, epsilon: float, delta: float
) -> None:
    ours = one_run_p_value(canaries, guesses, correct, epsilon=epsilon, delta=delta)
    assert ours == pytest.approx(p_value_by_the_theorem(canaries, guesses, correct, epsilon, delta), rel=1e-9)


def test_bound_without_delta_has_a_closed_form_when_all_are_right() -> None:
    accuracy = 0.05 ** (1 / 100)
    expected = math.log(accuracy / (1 - accuracy))
    assert epsilon_lower_bound(100, 100, 100, delta=0) == pytest.approx(expected, abs=1e-5)
    assert epsilon_lower_bound(500, 100, 100, delta=0) == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 60).flatmap(lambda m: st.tuples(st.just(m), st.integers(1, m))),
    st.sampled_from([0.0, 1e-6, 1e-3, 0.05]),
)
def test_bound_grows_with_right_guesses_and_falls_with_delta(counts: tuple[int, int], delta: float) -> None:
    canaries, guesses = counts
    bounds = [epsilon_lower_bound(canaries, guesses, right, delta=delta) for right in range(guesses + 1)]
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(bounds))
    exact = [epsilon_lower_bound(canaries, guesses, right, delta=0) for right in range(guesses + 1)]
    assert all(bound <= without + 1e-6 for bound, without in zip(bounds, exact, strict=True))


def test_bound_on_randomized_response_is_below_the_truth_and_near_it() -> None:
    """The number of right guesses is then binomial, so that coverage can be summed exactly."""
    epsilon, accuracy = 2.0, math.exp(2) / (1 + math.exp(2))
    bounds = {}
    for canaries in (50, 2000):
        counts = np.arange(int(binom.ppf(1e-6, canaries, accuracy)), canaries + 1)
        bounds[canaries] = np.array(
            [epsilon_lower_bound(canaries, canaries, int(count), delta=0) for count in counts]
        )
        chance = binom.pmf(counts, canaries, accuracy)
        assert chance[bounds[canaries] > epsilon].sum() <= 0.05
        if canaries == 2000:
            assert (chance * bounds[canaries]).sum() > 0.9 * epsilon


def test_randomized_response_in_repeated_runs() -> None:
    generator = np.random.default_rng(0)
    accuracy = math.e / (1 + math.e)

    def respond(included: np.ndarray) -> np.ndarray:
        answers: np.ndarray = np.where(generator.random(len(included)) < accuracy, included, ~included)
        return answers + 0.1 * generator.random(len(included))

    found = [
        one_run_audit(respond, canaries=1000, guesses=600, delta=1e-9, generator=generator).epsilon
        for _ in range(200)
    ]
    assert np.mean(np.array(found) > 1) <= 0.05
    assert np.median(found) > 0.7


@pytest.mark.parametrize("mu", [0.7, 1.0, 2.0])
def test_gaussian_mechanism_is_never_refuted(mu: float) -> None:
    """Canaries are orthogonal unit vectors in a sum with noise: each one's score is a normal number."""
    generator = np.random.default_rng(1)
    claim = gaussian_epsilon(mu, 1e-5)
    found = [
        one_run_audit(
            lambda included: included * mu + generator.standard_normal(len(included)),
            canaries=1000,
            guesses=100,
            generator=generator,
        ).epsilon
        for _ in range(20)
    ]
    assert max(found) < claim
    assert min(found) > 0.1 * claim


def test_a_training_that_leaks_is_refuted() -> None:
    found = one_run_audit(
        lambda included: included.astype(float),
        canaries=1000,
        guesses=400,
        generator=np.random.default_rng(0),
    )
    assert found.correct == 400
    assert found.epsilon == found.attainable > 4


def test_abstention_guesses_the_extremes_alone() -> None:
    scores = np.array([5.0, -4.0, 0.1, 0.2, 3.0, -0.1])

    def training(included: np.ndarray) -> np.ndarray:
        seen.append(included.copy())
        included[:] = False
        return scores

    seen: list[np.ndarray] = []
    found = one_run_audit(training, canaries=6, guesses=3, generator=np.random.default_rng(3))
    assert found.correct == int(seen[0][0]) + int(seen[0][4]) + int(not seen[0][1])


def test_the_coins_are_fair_and_differ_between_runs() -> None:
    drawn: list[np.ndarray] = []

    def training(included: np.ndarray) -> np.ndarray:
        drawn.append(included)
        return np.zeros(len(included))

    for _ in range(2):
        one_run_audit(training, canaries=4000, guesses=10)
    assert abs(drawn[0].mean() - 0.5) < 0.06
    assert (drawn[0] != drawn[1]).any()


@pytest.mark.parametrize("scores", [np.zeros(3), np.full(10, np.nan), np.full(10, np.inf), np.zeros((10, 1))])
def test_other_scores_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(DataError):
        one_run_audit(lambda included: scores, canaries=10, guesses=4)


@pytest.mark.parametrize(
    "change", [{"guesses": 11}, {"guesses": 0}, {"delta": 0.0}, {"delta": 1.5}, {"confidence": 1.0}]
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        one_run_audit(np.asarray, **({"canaries": 10, "guesses": 4} | change))  # type: ignore[arg-type]


def test_an_impossible_claim_is_refused() -> None:
    for epsilon, delta in ((-1.0, 0.0), (1.0, 1.0), (math.nan, 0.0)):
        with pytest.raises(SettingError):
            one_run_p_value(10, 5, 3, epsilon=epsilon, delta=delta)
    with pytest.raises(SettingError):
        epsilon_lower_bound(10, 5, 6, delta=0)
