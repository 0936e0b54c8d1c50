"""Ghost clipping with filtered norms: Opacus's module, with the norm samplers of this package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping
from torch import Tensor, nn

from spectral_dp._mechanism import check_counts
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
    SettingError
        In the backward pass: a layer saw another number of samples than the others.
    """

    def __init__(self, m: nn.Module, *, projections: Mapping[nn.Module, Projection], **kwargs: Any) -> None:
        samplers = {kind: partial(_sample, own, dict(projections)) for kind, own in NORM_SAMPLERS.items()}
        # Set before the hooks are made, and on the instance: Opacus looks them up through self.
        object.__setattr__(
            self, "NORM_SAMPLERS", {**GradSampleHooksFastGradientClipping.NORM_SAMPLERS, **samplers}
        )
        super().__init__(m, **kwargs)

    def get_norm_sample(self) -> Tensor:
        """Return the norm of every sample's gradient, over all parameters together."""
        check_counts([len(p._norm_sample) for p in self.trainable_parameters], self.trainable_parameters)
        norms: Tensor = super().get_norm_sample()
        return norms


def _sample(
    sampler: NormSampler,
    projections: Mapping[nn.Module, Projection],
    layer: nn.Module,
    activations: list[Tensor],
    backprops: Tensor,
) -> Norms:
    return sampler(layer, activations, backprops, projections.get(layer))
