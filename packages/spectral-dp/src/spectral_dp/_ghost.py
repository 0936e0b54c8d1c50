"""Ghost clipping with filtered norms, in one backward pass.

Opacus's ghost clipping goes through the model twice: a backward pass for the norms, whose gradients of
the parameters are thrown away, and one of the loss weighted by the clipping factors c_i. Samples do not
mix, so that in the second pass the gradient d_i of every layer's output is merely c_i d_i. Here one pass
down to the outputs of the layers gives the d_i; their norms and factors follow, and each layer's
parameters get their gradient from c_i d_i by that layer alone (the book-keeping of Bu et al., "Differentially
Private Optimization on Large Foundation Models", ICML 2023). It costs the memory of the d_i, a batch's
activations once more, and never that of a batch of parameters.

A model with layers that one forward pass calls several times takes Opacus's two passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import (
    DPLossFastGradientClipping,
    DPTensorFastGradientClipping,
)
from opacus.utils.module_utils import requires_grad
from torch import Tensor, nn

from spectral_dp._mechanism import check_counts
from spectral_dp._projections import Projection
from spectral_dp._samplers import NORM_SAMPLERS, Norms, NormSampler
from tenfold import SettingError


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
        samplers = {kind: partial(self._sample, own) for kind, own in NORM_SAMPLERS.items()}
        # Set before the hooks are made, and on the instance: Opacus looks them up through self.
        object.__setattr__(
            self, "NORM_SAMPLERS", {**GradSampleHooksFastGradientClipping.NORM_SAMPLERS, **samplers}
        )
        super().__init__(m, **kwargs)
        self._projections = dict(projections)
        self._outputs: dict[nn.Module, Any] = {}
        self._coefficients: dict[nn.Module, Tensor] = {}

    def capture_activations_hook(self, module: nn.Module, forward_input: Any, forward_output: Any) -> None:
        """Keep a layer's output beside its inputs."""
        super().capture_activations_hook(module, forward_input, forward_output)
        if self.hooks_enabled and module.training and torch.is_grad_enabled() and requires_grad(module):
            self._outputs[module] = forward_output

    def get_norm_sample(self) -> Tensor:
        """Return the norm of every sample's gradient, over all parameters together."""
        check_counts([len(p._norm_sample) for p in self.trainable_parameters], self.trainable_parameters)
        norms: Tensor = super().get_norm_sample()
        return norms

    def take_outputs(self) -> dict[nn.Module, Tensor] | None:
        """Return, and forget, the outputs of the layers in the last forward pass.

        Returns
        -------
        dict or None
            None unless every parameter took part once, through an output whose rows are samples.
        """
        outputs = dict(self._outputs)
        self._outputs.clear()
        once = all(p._forward_counter == 1 for p in self.trainable_parameters)
        rows = self.batch_first and all(isinstance(z, Tensor) for z in outputs.values())
        return outputs if once and rows else None

    def set_clipped_gradients(self, losses: Tensor, outputs: dict[nn.Module, Tensor]) -> None:
        """Set every parameter's gradient to that of the losses, each times its clipping factor.

        Parameters
        ----------
        losses : Tensor
            Shape (samples,).
        outputs : dict
            From `take_outputs`; emptied.

        Raises
        ------
        SettingError
            There is not one loss for each sample that the layers saw.
        """
        self.disable_hooks()
        try:
            backprops = list(
                torch.autograd.grad(
                    losses.sum(), list(outputs.values()), retain_graph=True, materialize_grads=True
                )
            )
        finally:
            self.enable_hooks()
        for layer, d in zip(outputs, backprops, strict=True):
            self.capture_backprops_hook(layer, (), (d,), loss_reduction="sum", batch_first=True)
        factors = self.get_clipping_coef()
        if losses.shape != factors.shape:
            raise SettingError(
                f"losses of shape {tuple(losses.shape)} for {len(factors)} samples",
                "one loss for each sample that the layers saw",
                "Let the first axis of every layer's input be that of the samples.",
            )
        while outputs:
            layer, z = outputs.popitem()
            self._set_gradients(layer, z, torch.einsum("n,n...->n...", factors, backprops.pop()))

    def _set_gradients(self, layer: nn.Module, output: Tensor, backprops: Tensor) -> None:
        """Set the gradients of a layer's parameters, given that of its output."""
        whole = type(layer) not in self.GRAD_SAMPLERS
        parameters = {name: p for name, p in layer.named_parameters(recurse=whole) if p.requires_grad}
        if layer in self._coefficients and "weight" in parameters:
            # sum_i c_i d_i (B x_i)' B: what the filter removes, which is not clipped, does not arise.
            d, x = backprops.flatten(0, -2), self._coefficients.pop(layer).flatten(0, -2)
            weight = parameters.pop("weight")
            weight.grad = self._projections[layer].expand(d.T @ x, weight.shape)
        if parameters:
            gradients = torch.autograd.grad(
                output, list(parameters.values()), backprops, materialize_grads=True
            )
            for p, gradient in zip(parameters.values(), gradients, strict=True):
                p.grad = gradient

    def _sample(
        self, sampler: NormSampler, layer: nn.Module, activations: list[Tensor], backprops: Tensor
    ) -> Norms:
        projection = self._projections.get(layer)
        if projection is None or not isinstance(layer, nn.Linear):
            return sampler(layer, activations, backprops, projection)
        # An isometry of the projection's range, with fewer entries.
        x = activations[0].to(backprops.dtype)
        self._coefficients[layer] = projection.coefficients(x).view(*x.shape[:-1], projection.rank)
        return sampler(layer, [self._coefficients[layer]], backprops, None)


class GhostLoss(DPLossFastGradientClipping):  # type: ignore[misc]
    """A criterion whose ``backward()`` leaves clipped gradients, in one pass where the model allows it.

    Called as the criterion is.

    Parameters
    ----------
    *args
        Those of ``opacus.utils.fast_gradient_clipping_utils.DPLossFastGradientClipping``, with a
        `SpectralGhostModule` and, as the optimizer, `GhostPasses`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> DPTensorFastGradientClipping:
        """Return the losses of a batch."""
        loss = super().__call__(*args, **kwargs)
        return _Losses(loss.module, loss.optimizer, loss.loss_per_sample, loss.loss_reduction)


class _Losses(DPTensorFastGradientClipping):  # type: ignore[misc]
    """The losses of a batch. Sums and multiples of them are Opacus's, and take its two passes."""

    def backward(self) -> None:
        outputs = self.module.take_outputs()
        if outputs is None:
            super().backward()
        else:
            self.optimizer.zero_grad()
            self.module.set_clipped_gradients(self.loss_per_sample, outputs)
