"""The mechanism audited in white box, beside six mutants that the same audit must catch."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from spectral_dp import (
    DCTLowPass,
    FFTLowPass,
    Projection,
    PublicSubspace,
    SpectralDPOptimizer,
    SpectralDPOptimizerFastGradientClipping,
)
from spectral_dp._mechanism import Order
from tenfold import DivergedError, SettingError

BLOCK = 16
DRAWS = 60_000
BOUND = 0.5

Mechanism = Callable[[Tensor, float, int], Tensor]
"""Release from per-sample gradients (samples, BLOCK), at a noise multiplier, drawn a number of times."""


def waves() -> dict[str, Tensor]:
    """Unit vectors in every class of bins."""
    t = torch.arange(BLOCK, dtype=torch.float64)
    vectors = {"DC": torch.ones(BLOCK).double(), "Nyquist": (-1.0) ** t}
    for f in (1, 3, 7):
        vectors[f"cosine {f}"] = torch.cos(2 * math.pi * f * t / BLOCK)
        vectors[f"sine {f}"] = torch.sin(2 * math.pi * f * t / BLOCK)
    return {name: vector / vector.norm() for name, vector in vectors.items()}


def optimizer_for(
    parameter: nn.Parameter, sigma: float, projection: Projection | None, order: Order = "filter-clip-noise"
) -> SpectralDPOptimizer:
    return SpectralDPOptimizer(
        torch.optim.SGD([parameter], lr=1.0),
        noise_multiplier=sigma,
        max_grad_norm=BOUND,
        expected_batch_size=None,
        loss_reduction="sum",
        projections={} if projection is None else {parameter: projection},
        order=order,
    )


def ours(projection: Projection, order: Order = "filter-clip-noise") -> Mechanism:
    def mechanism(gradients: Tensor, sigma: float, draws: int) -> Tensor:
        # Rows of a wide parameter are fibres with independent noise; the gradients are those of the first.
        parameter = nn.Parameter(torch.zeros(draws, BLOCK, dtype=torch.float64))
        optimizer = optimizer_for(parameter, sigma, projection, order)
        parameter.grad_sample = torch.zeros(len(gradients), draws, BLOCK, dtype=torch.float64)
        parameter.grad_sample[:, 0] = gradients
        optimizer.pre_step()
        assert parameter.grad is not None
        return parameter.grad

    return mechanism


def clip(g: Tensor) -> Tensor:
    return g * (BOUND / (g.norm(dim=-1, keepdim=True) + 1e-6)).clamp(max=1)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def root_two_complex(gradients: Tensor, sigma: float, draws: int) -> Tensor:
    """Complex noise with E|z|^2 = sigma^2 on the orthonormal spectrum, of which the real part is kept."""
    z = torch.complex(normal(draws, BLOCK), normal(draws, BLOCK)) * sigma * BOUND / math.sqrt(2)
    return torch.fft.ifft(torch.fft.fft(clip(gradients).sum(0), norm="ortho") + z, norm="ortho").real


def real_only(gradients: Tensor, sigma: float, draws: int) -> Tensor:
    """Real noise on a complex spectrum: nothing on the sines."""
    z = normal(draws, BLOCK) * sigma * BOUND
    return torch.fft.ifft(torch.fft.fft(clip(gradients).sum(0), norm="ortho") + z, norm="ortho").real


def backward_norm(gradients: Tensor, sigma: float, draws: int) -> Tensor:
    """Clipped in time, noised in an unnormalised spectrum."""
    z = torch.fft.fft(normal(draws, BLOCK) * sigma * BOUND, norm="ortho")
    return torch.fft.ifft(torch.fft.fft(clip(gradients).sum(0)) + z).real


def divided_noise(gradients: Tensor, sigma: float, draws: int) -> Tensor:
    """Noise / N to each of N samples."""
    n = 16
    z = (normal(n, draws, BLOCK) * sigma * BOUND / n).sum(0)
    return clip(gradients).sum(0) + z


def bare_last_bin(gradients: Tensor, sigma: float, draws: int) -> Tensor:
    """All bins of the one-sided spectrum but the last are noised."""
    z = torch.fft.rfft(normal(draws, BLOCK) * sigma * BOUND)
    z[:, -1] = 0
    return clip(gradients).sum(0) + torch.fft.irfft(z, n=BLOCK)


def clip_after_mean(gradients: Tensor, sigma: float, draws: int) -> Tensor:
    """The mean is clipped and scaled back to a sum."""
    return len(gradients) * clip(gradients.mean(0)) + normal(draws, BLOCK) * sigma * BOUND


MUTANTS = [root_two_complex, real_only, backward_norm, divided_noise, bare_last_bin, clip_after_mean]
FULL = FFTLowPass(1.0, (BLOCK,))
PROJECTIONS: dict[str, Projection] = {
    "fft 1": FULL,
    "fft 0.5": FFTLowPass(0.5, (BLOCK,)),
    "fft 2-D": FFTLowPass(0.5, (4, 4)),
    "dct 0.3": DCTLowPass(0.3, (BLOCK,)),
    "subspace": PublicSubspace(
        torch.linalg.qr(torch.randn(BLOCK, 5, generator=torch.Generator().manual_seed(0)).double())[0].T,
        "public",
    ),
}


def worst_mu(mechanism: Mechanism, projection: Projection) -> float:
    """Return C / sqrt(smallest eigenvalue of the noise on the projection's range), at sigma = 1.

    The smallest eigenvalue of a sample covariance lies below the true one; the edge of Marchenko and
    Pastur's law, (1 - sqrt(rank / draws))^2, corrects for that.
    """
    noise = projection.coefficients(mechanism(torch.zeros(1, BLOCK).double(), 1.0, DRAWS)).flatten(1)
    smallest = float(torch.linalg.eigvalsh(noise.T @ noise / DRAWS)[0])
    edge = (1 - math.sqrt(projection.rank / DRAWS)) ** 2
    return BOUND / math.sqrt(max(smallest, 1e-30) / edge)


def canary_mus(mechanism: Mechanism, projection: Projection) -> dict[str, float]:
    """Return shift over standard deviation along every wave that the projection keeps, at sigma = 1."""
    kept = {name: wave for name, wave in waves().items() if (projection(wave) - wave).norm() < 1e-9}
    noise = mechanism(torch.zeros(1, BLOCK).double(), 1.0, DRAWS)
    found = {}
    for name, wave in kept.items():
        shift = float(mechanism(100 * wave[None], 0.0, 1)[0] @ wave)
        found[name] = shift / max(float((noise @ wave).std()), 1e-15)
    return found


def largest_contribution(mechanism: Mechanism) -> float:
    """Return how far one sample moves the noiseless release, over crowds and adversarial samples."""
    generator = torch.Generator().manual_seed(1)
    directions = [*waves().values(), *torch.eye(BLOCK).double(), normal(BLOCK)]
    worst = 0.0
    for size in (1, 2, 16):
        spread = torch.randn(size, BLOCK, generator=generator, dtype=torch.float64)
        for crowd in (spread, waves()["DC"].expand(size, BLOCK), 1e4 * spread, torch.zeros_like(spread)):
            before = mechanism(crowd, 0.0, 1)[0]
            for direction in directions:
                for scale in (1e-3, 1.0, -1.0, 1e6, -1e9):
                    after = mechanism(torch.cat([crowd, scale * direction[None]]), 0.0, 1)[0]
                    worst = max(worst, float((after - before).norm()))
    return worst


def faults(mechanism: Mechanism, projection: Projection) -> list[str]:
    found = []
    torch.manual_seed(0)
    if abs(worst_mu(mechanism, projection) - 1) > 0.02:
        found.append("covariance")
    if any(mu > 1.02 for mu in canary_mus(mechanism, projection).values()):
        found.append("canary")
    if largest_contribution(mechanism) > BOUND * (1 + 1e-6):
        found.append("clipping")
    return found


@pytest.mark.parametrize("order", ["filter-clip-noise", "clip-noise-filter"])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_the_mechanism_has_the_noise_and_the_clipping_that_it_claims(name: str, order: Order) -> None:
    assert faults(ours(PROJECTIONS[name], order), PROJECTIONS[name]) == []


def test_canaries_of_every_class_of_bins_have_the_claimed_mu() -> None:
    found = canary_mus(ours(FULL), FULL)
    assert len(found) == 8
    for mu in found.values():
        assert mu == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant: Mechanism) -> None:
    expected = {
        "clip_after_mean": ["clipping"],
        "root_two_complex": ["covariance", "canary"],
        "real_only": ["covariance", "canary"],
        "backward_norm": ["covariance", "canary"],
        "divided_noise": ["covariance", "canary"],
        "bare_last_bin": ["covariance", "canary"],
    }
    assert faults(mutant, FULL) == expected[mutant.__name__]


def test_nothing_is_released_outside_the_range() -> None:
    projection = PROJECTIONS["fft 0.5"]
    gradients = 1e6 * torch.randn(4, BLOCK, dtype=torch.float64)
    released = ours(projection)(gradients, 1.0, 100)
    torch.testing.assert_close(projection(released), released, atol=1e-12, rtol=0)


def test_filtering_first_leaves_more_of_the_signal_to_the_bound() -> None:
    projection = PROJECTIONS["fft 0.5"]
    signal = waves()["cosine 1"] + 3 * waves()["Nyquist"]
    first = ours(projection)(signal[None], 0.0, 1).norm()
    last = ours(projection, "clip-noise-filter")(signal[None], 0.0, 1).norm()
    assert float(first) == pytest.approx(BOUND, rel=1e-5)
    assert float(last) == pytest.approx(BOUND / math.sqrt(10), rel=1e-5)


def test_noise_is_not_that_of_a_seed() -> None:
    torch.manual_seed(0)
    first = ours(FULL)(torch.zeros(1, BLOCK).double(), 1.0, 3)
    torch.manual_seed(0)
    assert not torch.equal(first, ours(FULL)(torch.zeros(1, BLOCK).double(), 1.0, 3))


def test_noise_is_not_in_the_state_of_the_optimizer() -> None:
    parameter = nn.Parameter(torch.zeros(2, BLOCK))
    optimizer = optimizer_for(parameter, 1.0, FULL)
    parameter.grad_sample = torch.zeros(1, 2, BLOCK)
    optimizer.step()
    assert optimizer.generator is None
    state = optimizer.state_dict()["state"]
    assert all(not isinstance(value, Tensor) for entry in state.values() for value in entry.values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradients_that_are_not_finite_are_refused_before_noise_and_charge(value: float) -> None:
    parameter = nn.Parameter(torch.zeros(2, BLOCK))
    charges: list[str] = []
    optimizer = optimizer_for(parameter, 1.0, FULL)
    optimizer.attach_step_hook(lambda _: charges.append("step"))
    parameter.grad_sample = torch.zeros(3, 2, BLOCK)
    parameter.grad_sample[1, 1, 4] = value
    with pytest.raises(DivergedError, match="nothing was charged"):
        optimizer.step()
    assert not charges
    assert parameter.grad is None
    assert not parameter.any()


def test_samples_cannot_be_used_twice() -> None:
    parameter = nn.Parameter(torch.zeros(2, BLOCK))
    optimizer = optimizer_for(parameter, 1.0, FULL)
    parameter.grad_sample = torch.ones(3, 2, BLOCK)
    for _ in range(2):
        optimizer.signal_skip_step()
    optimizer.step()
    with pytest.raises(ValueError, match="zero_grad"):
        optimizer.step()


def test_accumulated_samples_are_filtered_and_clipped_one_by_one() -> None:
    parameter = nn.Parameter(torch.zeros(1, BLOCK, dtype=torch.float64))
    samples = torch.randn(5, 1, BLOCK, dtype=torch.float64)
    sums = []
    for grad_sample in (samples, list(samples.split([2, 3]))):
        optimizer = optimizer_for(parameter, 0.0, PROJECTIONS["dct 0.3"])
        parameter.grad_sample = grad_sample
        optimizer.clip_and_accumulate()
        sums.append(PROJECTIONS["dct 0.3"].expand(parameter.summed_grad, (1, BLOCK)))
    torch.testing.assert_close(sums[0], clip(PROJECTIONS["dct 0.3"](samples)).sum(0))
    torch.testing.assert_close(sums[1], sums[0])


def test_a_step_is_charged_before_the_update() -> None:
    parameter = nn.Parameter(torch.zeros(2, BLOCK))
    optimizer = optimizer_for(parameter, 1.0, FULL)

    def refuse(_: object) -> None:
        raise RuntimeError("the budget is spent")

    optimizer.attach_step_hook(refuse)
    parameter.grad_sample = torch.zeros(1, 2, BLOCK)
    with pytest.raises(RuntimeError, match="budget"):
        optimizer.step()
    assert not parameter.any()


def test_a_bound_that_changes_under_ghost_clipping_is_refused() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = SpectralDPOptimizerFastGradientClipping(
        torch.optim.SGD([parameter], lr=1.0),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=None,
        loss_reduction="sum",
        projections={},
    )
    parameter.grad = torch.zeros(2)
    optimizer.max_grad_norm = 0.5
    with pytest.raises(SettingError, match="ghost clipping"):
        optimizer.step()
