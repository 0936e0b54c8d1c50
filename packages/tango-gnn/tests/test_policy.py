import copy

import pytest
import torch

from tango_gnn import Policy, choose_bits, quantize, relative_error
from tenfold import SettingError


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"bits": 9}, "bits is 9"),
        ({"bits": "half"}, "bits is 'half'"),
        ({"rounding": "up"}, "rounding is 'up'"),
        ({"max_error": 0.0}, "max_error is 0.0"),
    ],
)
def test_impossible_settings_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Policy(**setting)


def test_off_quantises_nothing() -> None:
    assert not Policy.off().quantizes
    assert Policy().quantizes
    assert Policy(bits="auto").quantizes


def test_seeds_come_from_the_generator_and_nearest_needs_none() -> None:
    def seeds(start: int) -> list[int | None]:
        policy = Policy(generator=torch.Generator().manual_seed(start))
        return [policy.seed() for _ in range(3)]

    assert seeds(0) == seeds(0) != seeds(1)
    assert len(set(seeds(0))) == 3
    assert Policy(rounding="nearest").seed() is None


def test_a_policy_is_copied_with_its_generator() -> None:
    policy = Policy(generator=torch.Generator().manual_seed(0))
    assert copy.deepcopy(policy).seed() == policy.seed()


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_relative_error_is_that_of_the_rounding(bits: int) -> None:
    x = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    scale = x.abs().max() / (2 ** (bits - 1) - 1)
    rounded = (x / scale).round() * scale
    expected = float((x - rounded).abs().sum() / x.abs().sum())
    assert relative_error(x, Policy(bits=bits, rounding="nearest")) == pytest.approx(expected, rel=1e-4)


def test_the_relative_error_of_zeros_and_of_float32_is_zero() -> None:
    assert relative_error(torch.zeros(3, 3), Policy()) == 0
    assert relative_error(torch.randn(3, 3), Policy.off()) == 0


def test_the_width_is_the_smallest_that_is_good_enough() -> None:
    x = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    for max_error in (0.02, 0.1, 0.3):
        policy = Policy(rounding="nearest", max_error=max_error)
        bits = choose_bits(x, policy)
        errors = {width: relative_error(x, Policy(bits=width, rounding="nearest")) for width in range(4, 9)}
        assert bits == min((width for width in errors if errors[width] < max_error), default=8)
    assert choose_bits(x, Policy(rounding="nearest", max_error=0.02)) > choose_bits(x, Policy())


def test_a_heavy_tail_needs_all_bits() -> None:
    x = torch.full((100, 10), 0.1)
    x[0, 0] = 100.0
    assert choose_bits(x, Policy(rounding="nearest")) == 8


def test_stochastic_rounding_is_right_on_average() -> None:
    x = torch.linspace(-1, 1, 101).requires_grad_()
    policy = Policy(bits=4, reuse=False, generator=torch.Generator().manual_seed(0))
    mean = torch.stack([quantize(x, policy).dequantize() for _ in range(2000)]).mean(0)
    step = 1 / 7
    # Five standard errors of a Bernoulli variable, at worst.
    assert (mean - x).abs().max() < 5 * step / 2 / 2000**0.5
