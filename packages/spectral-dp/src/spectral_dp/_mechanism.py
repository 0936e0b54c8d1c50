"""The mechanism: optimizers that release a filtered, noised sum of clipped per-sample gradients.

With per-sample gradients g_i, the bound C, the noise multiplier sigma and a projection P a layer,

    S = sum_i c_i P g_i,   c_i = min(1, C / |P g_i|),   the norm taken over all layers together,
    release P (S + sigma C z),   z standard normal in the coordinates of the real parameters.

Adding or removing a sample moves S by at most C, so that S + sigma C z is the Gaussian mechanism and P
after it is post-processing. The filtered noise has the variance sigma^2 C^2 in every direction of P's
range and none outside: what is saved is the noise outside, and what clipping would spend there. That is
the order "filter-clip-noise". In the paper's order, "clip-noise-filter", S = sum_i c_i g_i with
c_i = min(1, C / |g_i|).

The paper adds complex noise to a spectrum, which takes care with the symmetric halves, the constant
and the Nyquist frequency. Real noise in the parameters' own coordinates needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.optimizers.optimizer import _check_processed_flag, _generate_noise, _mark_as_processed
from torch import Tensor, nn

from spectral_dp._noise import add_entropy_normal_
from spectral_dp._projections import Projection
from tenfold import DivergedError, SettingError

Order = Literal["filter-clip-noise", "clip-noise-filter"]


class SpectralDPOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimizer on per-sample gradients, with a filter.

    Parameters
    ----------
    *args, **kwargs
        Those of ``opacus.optimizers.DPOptimizer``. Without ``generator`` the noise is drawn from the
        operating system's entropy; with one it can be replayed, and the result is not private.
    projections : mapping of Parameter to Projection
        Bound to the parameters; the others are not filtered.
    order : {"filter-clip-noise", "clip-noise-filter"}

    Raises
    ------
    DivergedError
        In ``step``, before noise is added and the step is charged: a per-sample gradient is not finite.
    """

    def __init__(
        self,
        *args: Any,
        projections: Mapping[nn.Parameter, Projection],
        order: Order = "filter-clip-noise",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.projections = dict(projections)
        self.order = order

    def clip_and_accumulate(self) -> None:
        """Filter the per-sample gradients if that comes first, clip them and add them up."""
        for p in self.params:
            # Here, as the filtered samples below are new tensors without Opacus's mark of use.
            _check_processed_flag(p.grad_sample)
            samples = self._get_flat_grad_sample(p)
            check_finite(samples)
            if self.order == "filter-clip-noise" and p in self.projections:
                filtered = self.projections[p](samples)
                parts = isinstance(p.grad_sample, list)
                p.grad_sample = list(filtered.split([len(g) for g in p.grad_sample])) if parts else filtered
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Add noise to the sums and filter the result."""
        _add_noise(self, self.projections)


class SpectralDPOptimizerFastGradientClipping(DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """Opacus's optimizer on gradients that were clipped through the loss, with a filter.

    Parameters
    ----------
    *args, **kwargs, projections, order
        As for `SpectralDPOptimizer`. The norms that the loss is weighted by come from
        `SpectralGhostModule`, which must have the same projections.

    Raises
    ------
    DivergedError
        In ``step``, before noise is added and the step is charged: the gradient is not finite.
    SettingError
        In ``step``: `max_grad_norm` is no longer that which the gradient was clipped to.
    """

    def __init__(
        self,
        *args: Any,
        projections: Mapping[nn.Parameter, Projection],
        order: Order = "filter-clip-noise",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.projections = dict(projections)
        self.order = order
        self.clipped_to = self.max_grad_norm

    def accumulate(self) -> None:
        """Add the clipped gradient to the sums, filtered if that comes first."""
        if self.max_grad_norm != self.clipped_to:
            raise SettingError(
                f"max_grad_norm became {self.max_grad_norm}",
                f"{self.clipped_to}, which ghost clipping goes on using",
                'Schedule the bound with grad_sample_mode="hooks".',
            )
        for p in self.params:
            check_finite(p.grad)
            if self.order == "filter-clip-noise" and p in self.projections:
                # Before the noise: a filter afterwards alone would leave the rounding of what it
                # removes, which is not clipped, outside its range and without noise.
                p.grad = self.projections[p](p.grad)
        super().accumulate()

    def add_noise(self) -> None:
        """Add noise to the sums and filter the result."""
        _add_noise(self, self.projections)


def check_finite(gradients: Tensor) -> None:
    """Raise `DivergedError` unless every entry of `gradients` is finite."""
    if not bool(torch.isfinite(gradients).all()):
        raise DivergedError(
            "a per-sample gradient is NaN or infinite",
            "finite gradients; no noise was added and nothing was charged",
            "Look for samples that are not finite, or lower the learning rate.",
        )


def _add_noise(
    optimizer: DPOptimizer | DPOptimizerFastGradientClipping, projections: Mapping[nn.Parameter, Projection]
) -> None:
    std = optimizer.noise_multiplier * optimizer.max_grad_norm
    for p in optimizer.params:
        _check_processed_flag(p.summed_grad)
        noised = _noised(p.summed_grad, std, optimizer.generator)
        projection = projections.get(p)
        p.grad = (noised if projection is None else projection(noised)).view_as(p)
        _mark_as_processed(p.summed_grad)


def _noised(total: Tensor, std: float, generator: torch.Generator | None) -> Tensor:
    if generator is not None:
        replayable: Tensor = _generate_noise(std=std, reference=total, generator=generator)
        return total + replayable
    noised = total.clone(memory_format=torch.contiguous_format)
    if std:
        add_entropy_normal_(noised, std)
    return noised
