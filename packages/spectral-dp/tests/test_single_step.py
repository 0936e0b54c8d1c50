"""The single-step audit: it measures planted noise, and catches the ways of getting it wrong."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from spectral_dp.audit import (
    Mechanism,
    SingleStepAudit,
    check_clipping,
    frequency_canaries,
    gaussian_delta,
    gaussian_epsilon,
    repeat,
    single_step_audit,
)
from tenfold import DataError, SettingError

DIMENSION = 16
DRAWS = 50_000


def clip(gradients: Tensor, bound: float = 1.0) -> Tensor:
    norms = gradients.norm(dim=-1, keepdim=True)
    return gradients * (bound / (norms + 1e-9)).clamp(max=1)


def gaussian(factor: Tensor, bound: float = 1.0, seed: int = 0) -> Mechanism:
    """Return clipping, summing and noise whose covariance is factor factor'."""
    generator = torch.Generator().manual_seed(seed)

    def mechanism(gradients: Tensor, draws: int) -> Tensor:
        noise = torch.randn(draws, factor.shape[1], generator=generator)
        return clip(gradients, bound).sum(dim=0) + noise @ factor.T

    return mechanism


def short_in(direction: Tensor, deviation: float) -> Tensor:
    unit = direction / direction.norm()
    return torch.eye(len(unit)) - (1 - deviation) * torch.outer(unit, unit)


def audited(mechanism: Mechanism, canaries: dict[str, Tensor] | None = None) -> SingleStepAudit:
    return single_step_audit(
        mechanism,
        dimension=DIMENSION,
        max_grad_norm=1.0,
        noise_multiplier=1.0,
        canaries=canaries,
        draws=DRAWS,
    )


@pytest.mark.parametrize(("bound", "noise"), [(1.0, 1.0), (0.3, 2.0)])
def test_isotropic_noise_is_as_claimed(bound: float, noise: float) -> None:
    found = single_step_audit(
        gaussian(noise * bound * torch.eye(64), bound),
        dimension=64,
        max_grad_norm=bound,
        noise_multiplier=noise,
        draws=DRAWS,
    )
    assert found.mu == pytest.approx(1 / noise, rel=0.02)
    assert found.epsilon == pytest.approx(gaussian_epsilon(1 / noise, 1e-5), rel=0.03)
    for canary in found.canaries:
        assert canary.mu == pytest.approx(1 / noise, abs=0.025)
        assert canary.norm == pytest.approx(1, abs=0.025 * noise)
    assert found.findings() == []


@pytest.mark.parametrize("deviation", [0.5, 0.8, 0.9])
def test_noise_short_in_one_direction_is_measured_and_flagged(deviation: float) -> None:
    direction = torch.randn(64, generator=torch.Generator().manual_seed(1))
    found = single_step_audit(
        gaussian(short_in(direction, deviation)),
        dimension=64,
        max_grad_norm=1.0,
        noise_multiplier=1.0,
        canaries={"short": direction},
        draws=DRAWS,
    )
    assert found.mu == pytest.approx(1 / deviation, rel=0.02)
    assert found.canaries[0].mu == pytest.approx(1 / deviation, rel=0.03)
    findings = " ".join(found.findings())
    assert "worst direction" in findings
    assert "least noise" in findings
    assert "canary short" in findings


def test_plain_eigenvalue_would_have_been_wrong() -> None:
    """The correction matters: without it isotropic noise in 64 dimensions seems 3 % short."""
    found = single_step_audit(
        gaussian(torch.eye(64)), dimension=64, max_grad_norm=1.0, noise_multiplier=1.0, canaries={}
    )
    assert 1 / found.noise[0] > 1.025
    assert abs(found.mu - 1) < 0.01


def test_canaries_that_move_nothing_tell_nothing() -> None:
    """Without its correction T^2 would tell sqrt(2 k / n) = 0.05 of pure chance."""
    generator = torch.Generator().manual_seed(0)
    found = single_step_audit(
        lambda gradients, draws: torch.randn(draws, 64, generator=generator),
        dimension=64,
        max_grad_norm=1.0,
        noise_multiplier=1.0,
    )
    assert max(canary.mu for canary in found.canaries) < 0.04
    assert max(canary.norm for canary in found.canaries) < 0.04


def test_covariance_on_a_subspace() -> None:
    basis = torch.linalg.qr(torch.randn(DIMENSION, 5, generator=torch.Generator().manual_seed(2))).Q
    projection = basis @ basis.T
    inner = gaussian(torch.eye(DIMENSION))

    def mechanism(gradients: Tensor, draws: int) -> Tensor:
        return inner(gradients, draws) @ projection

    canaries = {"inside": basis[:, 0], "outside": torch.eye(DIMENSION)[0] - projection[0]}
    arguments = {"dimension": DIMENSION, "max_grad_norm": 1.0, "noise_multiplier": 1.0, "canaries": canaries}
    found = single_step_audit(mechanism, subspace=basis, **arguments)  # type: ignore[arg-type]
    assert found.dimension == 5
    assert found.mu == pytest.approx(1, rel=0.02)
    assert [canary.mu for canary in found.canaries] == pytest.approx([1, 0], abs=0.025)
    assert found.findings() == []
    wrong = single_step_audit(inner, subspace=basis, **arguments)  # type: ignore[arg-type]
    assert any("outside the subspace" in finding for finding in wrong.findings())


def test_a_mean_is_audited_at_its_scale() -> None:
    inner = gaussian(torch.eye(DIMENSION))
    found = single_step_audit(
        lambda gradients, draws: inner(gradients, draws) / 256,
        dimension=DIMENSION,
        max_grad_norm=1.0,
        noise_multiplier=1.0,
        scale=1 / 256,
    )
    assert found.mu == pytest.approx(1, rel=0.02)
    assert found.findings() == []


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


GENERATOR = torch.Generator().manual_seed(5)


def real_part_of_complex_noise(gradients: Tensor, draws: int) -> Tensor:
    spectrum = torch.fft.fft(clip(gradients).sum(dim=0), norm="ortho")
    noise = torch.complex(normal(draws, DIMENSION), normal(draws, DIMENSION)) / math.sqrt(2)
    return torch.fft.ifft(spectrum + noise, norm="ortho").real


def half_spectrum(gradients: Tensor, draws: int) -> Tensor:
    spectrum = clip(torch.fft.rfft(gradients, norm="ortho")).sum(dim=0)
    noise = torch.complex(normal(draws, len(spectrum)), normal(draws, len(spectrum))) / math.sqrt(2)
    return torch.fft.irfft(spectrum + noise, n=DIMENSION, norm="ortho")


def real_noise_on_a_complex_spectrum(gradients: Tensor, draws: int) -> Tensor:
    spectrum = torch.fft.fft(clip(gradients).sum(dim=0), norm="ortho")
    return torch.fft.ifft(spectrum + normal(draws, DIMENSION), norm="ortho").real


def backward_norm(gradients: Tensor, draws: int) -> Tensor:
    noise = torch.complex(normal(draws, DIMENSION), normal(draws, DIMENSION))
    return torch.fft.ifft(torch.fft.fft(clip(gradients).sum(dim=0)) + noise).real


def noise_over_batch(gradients: Tensor, draws: int) -> Tensor:
    noise = normal(draws, *gradients.shape) / len(gradients)
    return (clip(gradients) + noise).sum(dim=1)


def last_bin_without_noise(gradients: Tensor, draws: int) -> Tensor:
    noise = torch.fft.rfft(normal(draws, DIMENSION), norm="ortho")
    noise[:, -1] = 0
    return clip(gradients).sum(dim=0) + torch.fft.irfft(noise, n=DIMENSION, norm="ortho")


def clip_after_the_sum(gradients: Tensor, draws: int) -> Tensor:
    return clip(gradients.sum(dim=0)) + normal(draws, DIMENSION)


@pytest.mark.parametrize(
    ("mutant", "least"),
    [
        (real_part_of_complex_noise, 1.40),
        (half_spectrum, 1.40),
        (real_noise_on_a_complex_spectrum, math.inf),
        (backward_norm, 3.90),
        (noise_over_batch, 2.75),
        (last_bin_without_noise, math.inf),
        (clip_after_the_sum, 1.30),
    ],
)
def test_mutants_are_caught(mutant: Mechanism, least: float) -> None:
    found = audited(mutant)
    assert max(found.mu, *(canary.mu for canary in found.canaries)) >= least
    assert found.findings()


def test_noise_in_real_coordinates_before_a_filter_is_as_claimed() -> None:
    keep = torch.arange(DIMENSION // 2 + 1) <= 4
    inner = gaussian(torch.eye(DIMENSION))

    def low_pass(gradients: Tensor, draws: int) -> Tensor:
        spectrum = torch.fft.rfft(inner(gradients, draws), norm="ortho") * keep
        return torch.fft.irfft(spectrum, n=DIMENSION, norm="ortho")

    waves = frequency_canaries(DIMENSION, (1, 2, 3, 4))
    kept = torch.stack([wave for name, wave in waves.items() if name != "Nyquist"], dim=1)
    found = single_step_audit(
        low_pass,
        dimension=DIMENSION,
        max_grad_norm=1.0,
        noise_multiplier=1.0,
        canaries=waves,
        subspace=kept,
    )
    assert found.mu == pytest.approx(1, rel=0.02)
    assert found.findings() == []
    assert {canary.name: canary.mu > 0.5 for canary in found.canaries} == {
        name: name != "Nyquist" for name in waves
    }


def test_a_step_of_one_release_is_repeated() -> None:
    generator = torch.Generator().manual_seed(0)

    def step(gradients: Tensor) -> Tensor:
        return clip(gradients).sum(dim=0) + torch.randn(3, generator=generator)

    found = single_step_audit(
        repeat(step), dimension=3, max_grad_norm=1.0, noise_multiplier=1.0, canaries={}, draws=4000
    )
    assert found.mu == pytest.approx(1, rel=0.05)


def test_noise_larger_than_claimed_is_no_finding() -> None:
    assert audited(gaussian(1.5 * torch.eye(DIMENSION)), {}).findings() == []


def test_the_waves_are_orthonormal_and_complete() -> None:
    for length in (7, 8):
        waves = frequency_canaries(length, tuple(range(1, (length - 1) // 2 + 1)))
        basis = torch.stack(list(waves.values()))
        torch.testing.assert_close(basis @ basis.T, torch.eye(length), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"draws": 100},
        {"max_grad_norm": 0.0},
        {"noise_multiplier": math.nan},
        {"scale": -1.0},
        {"batch": 0},
        {"delta": 1.0},
        {"subspace": torch.ones(DIMENSION, 2)},
        {"subspace": torch.eye(3)},
        {"canaries": {"zero": torch.zeros(DIMENSION)}},
        {"canaries": {"short": torch.ones(3)}},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    arguments: dict[str, object] = {"dimension": DIMENSION, "max_grad_norm": 1.0, "noise_multiplier": 1.0}
    with pytest.raises(SettingError):
        single_step_audit(gaussian(torch.eye(DIMENSION)), **(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "mechanism",
    [
        lambda gradients, draws: torch.zeros(draws, 3),
        lambda gradients, draws: torch.zeros(draws, DIMENSION, dtype=torch.complex64),
        lambda gradients, draws: torch.full((draws, DIMENSION), torch.nan),
        lambda gradients, draws: None,
    ],
)
def test_other_returns_are_refused(mechanism: Mechanism) -> None:
    with pytest.raises(DataError):
        audited(mechanism)


def guarded(gradients: Tensor) -> Tensor:
    if not bool(gradients.isfinite().all()):
        raise SettingError("a gradient with NaN", "finite numbers", "Look for a division by zero.")
    norms = gradients.double().norm(dim=1, keepdim=True)
    return (gradients * (1 / (norms + 1e-9)).clamp(max=1)).sum(dim=0)


def test_clipping_of_each_sample_passes() -> None:
    found = check_clipping(guarded, dimension=DIMENSION, max_grad_norm=1.0)
    assert found.findings() == []
    assert found.worst == pytest.approx(1, abs=1e-4)
    assert found.refused == ("all inf", "all nan")


@pytest.mark.parametrize(
    ("clipped_sum", "least"),
    [
        (lambda gradients: gradients.sum(dim=0), 1e17),
        (lambda gradients: clip(gradients.sum(dim=0)), 1.9),
        (lambda gradients: (gradients.sign() * gradients.abs().clamp(max=1)).sum(dim=0), 3.9),
        (lambda gradients: clip(gradients).sum(dim=0), math.inf),
    ],
)
def test_clipping_that_is_none_is_found(clipped_sum: Callable[[Tensor], Tensor], least: float) -> None:
    found = check_clipping(clipped_sum, dimension=DIMENSION, max_grad_norm=1.0)
    assert found.worst >= least
    assert len(found.findings()) == 1


def test_clipping_without_the_sum_is_refused() -> None:
    with pytest.raises(DataError, match="shape"):
        check_clipping(clip, dimension=DIMENSION, max_grad_norm=1.0)


def test_a_clipped_sum_that_fails_on_finite_gradients_is_refused() -> None:
    def fails(gradients: Tensor) -> Tensor:
        raise RuntimeError("no such luck")

    with pytest.raises(DataError, match="no such luck"):
        check_clipping(fails, dimension=3, max_grad_norm=1.0)


def test_epsilon_of_mu_inverts_delta() -> None:
    for mu in (1e-3, 0.1, 1.0, 5.0, 40.0):
        for delta in (1e-10, 1e-5, 1e-2):
            epsilon = gaussian_epsilon(mu, delta)
            if epsilon > 0:
                assert gaussian_delta(mu, epsilon) == pytest.approx(delta, rel=1e-4)
            else:
                assert gaussian_delta(mu, 0.0) <= delta
    assert gaussian_epsilon(1.0, 1e-5) == pytest.approx(4.377, abs=1e-3)
    assert gaussian_epsilon(0.0, 1e-5) == 0
    assert gaussian_epsilon(math.inf, 1e-5) == math.inf
    assert gaussian_delta(math.inf, 3.0) == 1


def test_delta_of_mu_is_the_supremum_over_tests() -> None:
    """Brute force over thresholds, the optimal tests between two normal distributions."""
    from scipy.special import ndtr

    mu, epsilon = 1.3, 0.7
    thresholds = np.linspace(-20, 20, 400_001)
    power = ndtr(mu - thresholds) - math.exp(epsilon) * ndtr(-thresholds)
    assert gaussian_delta(mu, epsilon) == pytest.approx(power.max(), rel=1e-6)


@pytest.mark.parametrize("arguments", [(-1.0, 1e-5), (1.0, 0.0), (math.nan, 1e-5)])
def test_epsilon_of_impossible_numbers_is_refused(arguments: tuple[float, float]) -> None:
    with pytest.raises(SettingError):
        gaussian_epsilon(*arguments)


def test_the_same_draws_give_the_same_report() -> None:
    first, second = (audited(gaussian(torch.eye(DIMENSION), seed=3), {}) for _ in range(2))
    assert dataclasses.asdict(first) == dataclasses.asdict(second)
