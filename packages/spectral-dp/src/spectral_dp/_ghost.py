"""Ghost clipping with filtered norms: Opacus's module, with the norm samplers of this package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping
from torch import Tensor, nn

from spectral_dp._mechanism import check_finite
from spectral_dp._projections import Projection
from spectral_dp._samplers import NORM_SAMPLERS, Norms, NormSampler


class SpectralGhostModule(GradSampleModuleFastGradientClipping):  # type: ignore[misc]
    """A model whose per-sample gradient norms are those of the filtered gradients.

    The samplers belong to this wrapper: what Opacus does with other models is not changed.

    Parameters
    ----------
    m : nn.Module
        The model.
    projections : mapping of Module to Projection
        Of the layers whose weights are filtered before clipping, bound to them.
    **kwargs
        Those of ``opacus.grad_sample.GradSampleModuleFastGradientClipping``.

    Raises
    ------
    DivergedError
        In the backward pass: the norm of a per-sample gradient is not finite.
    """

    def __init__(self, m: nn.Module, *, projections: Mapping[nn.Module, Projection], **kwargs: Any) -> None:
        samplers = {kind: partial(_sample, own, dict(projections)) for kind, own in NORM_SAMPLERS.items()}
        # Set before the hooks are made, and on the instance: Opacus looks them up through self.
        object.__setattr__(
            self, "NORM_SAMPLERS", {**GradSampleHooksFastGradientClipping.NORM_SAMPLERS, **samplers}
        )
        super().__init__(m, **kwargs)

    def get_clipping_coef(self) -> Tensor:
        """Return the factor of every sample, min(1, C / norm)."""
        norms = self.get_norm_sample()
        check_finite(norms)
        coefficients: Tensor = (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        return coefficients


def _sample(
    sampler: NormSampler,
    projections: Mapping[nn.Module, Projection],
    layer: nn.Module,
    activations: list[Tensor],
    backprops: Tensor,
) -> Norms:
    return sampler(layer, activations, backprops, projections.get(layer))
