import multiprocessing

import pytest
import torch
from scipy.stats import kstest

from spectral_dp import entropy_normal
from spectral_dp._noise import add_entropy_normal_


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_added_in_double_precision_across_the_blocks(dtype: torch.dtype) -> None:
    total = torch.full((5, 10_007), 3.0, dtype=dtype)
    add_entropy_normal_(total, 0.5)
    assert kstest((total.double().flatten().numpy() - 3) / 0.5, "norm").pvalue > 1e-5
    assert total.double().unique().numel() > 0.9 * total.numel()  # no block is repeated


def test_a_forked_process_draws_other_noise() -> None:
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(
        target=lambda: sender.send(entropy_normal((4,)).tolist())
    )
    child.start()
    here = entropy_normal((4,)).tolist()
    assert receiver.poll(30)
    assert receiver.recv() != here
    child.join(30)
