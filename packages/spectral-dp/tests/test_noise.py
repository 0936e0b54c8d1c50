import pytest
import torch
from scipy.stats import kstest

from spectral_dp import entropy_normal


def test_the_deviates_are_standard_normal_and_independent() -> None:
    draws = entropy_normal((2, 50_000))
    assert draws.dtype == torch.float64
    for row in draws:
        assert kstest(row.numpy(), "norm").pvalue > 1e-5
    # Both halves come from the same radii; neither they nor their squares may be correlated.
    for power in (1, 2):
        assert abs(float(torch.corrcoef(draws**power)[0, 1])) < 6 / 50_000**0.5


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (4, 5)])
def test_every_shape_can_be_asked_for(shape: tuple[int, ...]) -> None:
    draws = entropy_normal(shape)
    assert draws.shape == shape
    assert bool(torch.isfinite(draws).all())


def test_no_seed_repeats_it() -> None:
    torch.manual_seed(0)
    first = entropy_normal((8,))
    torch.manual_seed(0)
    assert not torch.equal(first, entropy_normal((8,)))
