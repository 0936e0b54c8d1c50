"""Ghost clipping with filtered norms, in one backward pass.

Opacus's ghost clipping goes through the model twice: a backward pass for the norms, whose gradients of
the parameters are thrown away, and one of the loss weighted by the clipping factors c_i. Samples do not
mix, so that in the second pass the gradient d_i of every layer's output is merely c_i d_i. Here one pass
down to the outputs of the layers gives the d_i; their norms and factors follow, and each layer's
parameters get their gradient from c_i d_i by that layer alone (the book-keeping of Bu et al., "Differentially
Private Optimization on Large Foundation Models", ICML 2023). It costs the memory of the d_i. A layer whose
per-sample gradients g_i have fewer entries than its d_i, as most convolutions and normalisations, keeps those
instead, and has its sum of c_i g_i at once. Never is there more than a batch of activations.

A model with layers that one forward pass calls several times takes Opacus's two passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import (
    DPLossFastGradientClipping,
    DPTensorFastGradientClipping,
)
from opacus.utils.module_utils import requires_grad
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from spectral_dp._mechanism import check_counts
from spectral_dp._projections import Projection
from spectral_dp._samplers import NORM_SAMPLERS, Norms, NormSampler, few_gradients
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
        self._outputs: dict[nn.Module, _Output | None] = {}
        self._sources: dict[nn.Module, None] = {}
        self._waiting: dict[nn.Module, None] = {}
        self._backprops: dict[nn.Module, Tensor] = {}
        self._inputs: dict[nn.Module, Tensor] = {}
        self._gradients: dict[Any, Tensor] = {}

    def capture_activations_hook(self, module: nn.Module, forward_input: Any, forward_output: Any) -> None:
        """Keep a layer's place in the graph beside its inputs."""
        super().capture_activations_hook(module, forward_input, forward_output)
        if self.hooks_enabled and module.training and torch.is_grad_enabled() and requires_grad(module):
            self._outputs[module] = None
            if isinstance(forward_output, Tensor):
                self._outputs[module] = _Output.of(forward_output)
                forward_output.register_hook(partial(self._take, module))

    def get_norm_sample(self) -> Tensor:
        """Return the norm of every sample's gradient, over all parameters together."""
        check_counts([len(p._norm_sample) for p in self.trainable_parameters], self.trainable_parameters)
        norms: Tensor = super().get_norm_sample()
        return norms

    def take_outputs(self) -> dict[nn.Module, _Output] | None:
        """Return, and forget, the places in the graph of the layers' outputs in the last forward pass.

        Returns
        -------
        dict or None
            None unless every parameter took part once, through an output whose rows are samples.
        """
        outputs = {layer: z for layer, z in self._outputs.items() if z is not None}
        rows = self.batch_first and len(outputs) == len(self._outputs)
        self._outputs.clear()
        once = all(p._forward_counter == 1 for p in self.trainable_parameters)
        return outputs if once and rows else None

    def set_clipped_gradients(
        self, losses: Tensor, outputs: dict[nn.Module, _Output]
    ) -> dict[nn.Parameter, Tensor]:
        """Set every parameter's gradient to that of the losses, each times its clipping factor.

        Parameters
        ----------
        losses : Tensor
            Shape (samples,).
        outputs : dict
            From `take_outputs`; changed.

        Returns
        -------
        dict
            Of parameters whose gradient is not set: the coefficients of its projection.

        Raises
        ------
        SettingError
            There is not one loss for each sample that the layers saw.
        """
        self._backward(losses, outputs)
        factors = self.get_clipping_coef()
        if losses.shape != factors.shape:
            raise SettingError(
                f"losses of shape {tuple(losses.shape)} for {len(factors)} samples",
                "one loss for each sample that the layers saw",
                "Let the first axis of every layer's input be that of the samples.",
            )
        filtered = {layer.weight for layer in self._projections}
        coefficients: dict[nn.Parameter, Tensor] = {}
        while self._gradients:
            p, gradients = self._gradients.popitem()
            total = factors @ gradients
            if p in filtered:
                coefficients[p] = total
            else:
                p.grad = total.view_as(p)
        while self._backprops:
            layer, d = self._backprops.popitem()
            scaled = torch.einsum("n,n...->n...", factors, d)
            coefficients |= self._set_gradients(layer, outputs.pop(layer), scaled)
        return coefficients

    def _backward(self, losses: Tensor, outputs: dict[nn.Module, _Output]) -> None:
        """Let every layer take its d_i, which are there while the pass is at its output.

        The pass is asked for the d_i of the layers alone that lie behind no other, so that it does not
        hold all of them at once. The first one finds out which these are.
        """
        self._waiting = dict.fromkeys(outputs)
        for left in (self._inputs, self._gradients, self._backprops):
            left.clear()
        self.disable_hooks()
        try:
            sources = [layer for layer in outputs if layer in self._sources] or [next(iter(outputs))]
            while sources:
                found = torch.autograd.grad(
                    losses.sum(),
                    [outputs[layer].edge for layer in sources],
                    retain_graph=True,
                    allow_unused=True,
                )
                for layer, d in zip(sources, found, strict=True):
                    self._take(layer, outputs[layer].zeros() if d is None else d)
                self._sources |= dict.fromkeys(sources)
                sources = list(self._waiting)
        finally:
            self._waiting.clear()
            self.enable_hooks()

    def _take(self, layer: Any, d: Tensor) -> None:
        """Take a layer's gradients where they are few, else their norms, and d if it is needed again."""
        if layer not in self._waiting:
            return
        few = few_gradients(layer, layer.activations[-1], d, self._projections.get(layer))
        if few is None:
            self._backprops[layer] = d
            self.enable_hooks()
            self.capture_backprops_hook(layer, (), (d,), loss_reduction="sum", batch_first=True)
            self.disable_hooks()
        else:
            self._gradients |= few
            for p, gradients in cast(dict[Any, Tensor], few).items():
                p._norm_sample = gradients.norm(dim=1)
                p._forward_counter -= 1
            layer.activations.pop()
        del self._waiting[layer]

    def _set_gradients(
        self, layer: nn.Module, output: _Output, backprops: Tensor
    ) -> dict[nn.Parameter, Tensor]:
        """Set the gradients of a layer's parameters, given that of its output, or return coefficients."""
        coefficients = {}
        whole = type(layer) not in self.GRAD_SAMPLERS
        parameters = {name: p for name, p in layer.named_parameters(recurse=whole) if p.requires_grad}
        if layer in self._inputs and "weight" in parameters:
            # sum_i c_i d_i (B x_i)': what the filter removes, which is not clipped, does not arise.
            d, x = backprops.flatten(0, -2), self._inputs.pop(layer).flatten(0, -2)
            coefficients[parameters.pop("weight")] = (d.T @ x).flatten()
        if parameters:
            gradients = torch.autograd.grad(
                output.edge, list(parameters.values()), backprops, materialize_grads=True
            )
            for p, gradient in zip(parameters.values(), gradients, strict=True):
                p.grad = gradient
        return coefficients

    def _sample(
        self, sampler: NormSampler, layer: nn.Module, activations: list[Tensor], backprops: Tensor
    ) -> Norms:
        projection = self._projections.get(layer)
        if projection is None or not isinstance(layer, nn.Linear):
            return sampler(layer, activations, backprops, projection)
        # An isometry of the projection's range, with fewer entries.
        x = activations[0].to(backprops.dtype)
        coefficients = projection.coefficients(x).view(*x.shape[:-1], projection.rank)
        if layer in self._waiting:
            self._inputs[layer] = coefficients
        return sampler(layer, [coefficients], backprops, None)


@dataclass(frozen=True)
class _Output:
    """Where a layer's output is in the graph, without what it holds, and its shape."""

    edge: GradientEdge
    like: Tensor
    device: torch.device

    @classmethod
    def of(cls, z: Tensor) -> _Output:
        return cls(get_gradient_edge(z), torch.empty_like(z, device="meta"), z.device)

    def zeros(self) -> Tensor:
        return torch.zeros_like(self.like, device=self.device)


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
            self.optimizer.keep(self.module.set_clipped_gradients(self.loss_per_sample, outputs))
