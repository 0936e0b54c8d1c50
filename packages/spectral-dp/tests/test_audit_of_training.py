"""The package's own optimizer under its own audits."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spectral_dp import (
    DCTLowPass,
    FFTLowPass,
    Projection,
    SpectralDPOptimizer,
    epsilon,
    noise_multiplier,
)
from spectral_dp._mechanism import Order
from spectral_dp.audit import frequency_canaries, one_run_audit, single_step_audit

EXAMPLE = Path(__file__).parents[1] / "examples" / "audit_training.py"
SIZE = 16
BOUND = 0.5
PROJECTIONS: list[Projection] = [FFTLowPass(0.5, (SIZE,)), DCTLowPass(0.5, (SIZE,)), FFTLowPass(1.0, (SIZE,))]


def optimizer_of(
    parameter: nn.Parameter, noise: float, projection: Projection, order: Order
) -> SpectralDPOptimizer:
    return SpectralDPOptimizer(
        torch.optim.SGD([parameter], lr=1.0),
        noise_multiplier=noise,
        max_grad_norm=BOUND,
        expected_batch_size=None,
        loss_reduction="sum",
        projections={parameter: projection},
        order=order,
    )


@pytest.mark.parametrize("order", ["filter-clip-noise", "clip-noise-filter"])
@pytest.mark.parametrize("projection", PROJECTIONS, ids=str)
def test_a_step_is_as_private_as_claimed(projection: Projection, order: Order) -> None:
    def mechanism(gradients: Tensor, draws: int) -> Tensor:
        # Fibres of a tall weight are noised and filtered apart: each is a draw. The gradients, in the
        # first, are clipped there and added to all.
        parameter = nn.Parameter(torch.zeros(draws, SIZE))
        optimizer = optimizer_of(parameter, 1.0, projection, order)
        parameter.grad_sample = torch.zeros(len(gradients), draws, SIZE)
        parameter.grad_sample[:, 0] = gradients
        optimizer.clip_and_accumulate()
        parameter.summed_grad = parameter.summed_grad.view(draws, -1)[0].repeat(draws)
        optimizer.add_noise()
        assert parameter.grad is not None
        return parameter.grad

    found = single_step_audit(
        mechanism,
        dimension=SIZE,
        max_grad_norm=BOUND,
        noise_multiplier=1.0,
        canaries=frequency_canaries(SIZE, (1, 3)),
        subspace=projection.bases()[0].T,
        batch=2,
    )
    assert found.dimension == projection.rank
    assert found.mu == pytest.approx(1, rel=0.02)
    assert found.findings() == []


def test_lower_bound_of_training_is_below_the_claim_and_not_far() -> None:
    """Canaries are gradients along the kept frequencies, and the auditor sees every update."""
    canaries, guesses = 1000, 100
    steps, delta, fibre = 4, 1e-5, 100
    projection = FFTLowPass(0.5, (fibre,))
    noise = noise_multiplier(4.0, 1.0, steps, delta)
    kept = projection.bases()[0][: fibre // 2].float()
    fibres = canaries // len(kept)
    directions = 10 * BOUND * torch.kron(torch.eye(fibres), kept).view(canaries, fibres, fibre)

    def train(included: np.ndarray) -> np.ndarray:
        parameter = nn.Parameter(torch.zeros(fibres, fibre))
        optimizer = optimizer_of(parameter, noise, projection, "filter-clip-noise")
        for _ in range(steps):
            parameter.grad_sample = directions[torch.from_numpy(included)]
            optimizer.step()
            optimizer.zero_grad()
        scores: np.ndarray = -(directions.flatten(1) @ parameter.detach().flatten()).numpy()
        return scores

    claim = epsilon(noise, 1.0, steps, delta)
    assert claim == pytest.approx(4, abs=0.02)
    found = [
        one_run_audit(
            train, canaries=canaries, guesses=guesses, delta=delta, generator=np.random.default_rng(seed)
        ).epsilon
        for seed in range(5)
    ]
    assert max(found) < claim
    assert np.mean(found) >= 0.25 * claim, found


@pytest.mark.slow
def test_lower_bound_through_the_engine_is_below_the_claim_and_not_far() -> None:
    """The documented configuration: the command of examples/audit_training.py, five times."""
    train = runpy.run_path(str(EXAMPLE))["train"]
    found = [
        one_run_audit(
            train, canaries=4000, guesses=200, delta=1e-5, generator=np.random.default_rng(seed)
        ).epsilon
        for seed in range(5)
    ]
    assert max(found) < 4
    assert np.mean(found) >= 0.4 * 4, found
