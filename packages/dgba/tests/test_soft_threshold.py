import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgba import soft_threshold, universal_threshold
from tenfold import SettingError

NUMBERS = st.floats(-100, 100)


@given(y=NUMBERS, threshold=st.floats(0, 100), other=NUMBERS)
def test_it_minimises_distance_plus_absolute_value(y: float, threshold: float, other: float) -> None:
    def objective(x: float) -> float:
        return (x - y) ** 2 / 2 + threshold * abs(x)

    assert objective(float(soft_threshold(np.array([y]), threshold)[0])) <= objective(other) + 1e-9


def test_noise_alone_rarely_passes_the_universal_threshold() -> None:
    noise = 3 * np.random.default_rng(0).normal(size=(100, 1000))
    passed = np.any(soft_threshold(noise, universal_threshold(1000, sigma=3)) != 0, axis=1)
    assert 0 < passed.mean() < 0.3


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_an_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(SettingError, match="threshold is"):
        soft_threshold(np.ones(3), threshold)


@pytest.mark.parametrize(("n", "sigma"), [(0, 1.0), (10, 0.0)])
def test_impossible_noise_is_refused(n: int, sigma: float) -> None:
    with pytest.raises(SettingError, match="sigma is"):
        universal_threshold(n, sigma)
