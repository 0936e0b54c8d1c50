"""The mechanism: optimizers that release a filtered, noised sum of clipped per-sample gradients.

With per-sample gradients g_i, the bound C, the noise multiplier sigma and a projection P a layer, whose
range has the orthonormal basis B, P = B' B,

    S = sum_i c_i P g_i,   c_i = min(1, C / |P g_i|),   the norm taken over all layers together,
    release B' (B S + sigma C z),   z standard normal in the coordinates of P's range.

Adding or removing a sample moves B S by C at most, so that B S + sigma C z is the Gaussian mechanism and B'
after it is post-processing. It is distributed as P (S + sigma C z') with noise z' on every parameter, but
draws less, and nothing that P removes, not even its rounding, is released without noise. That is the
order "filter-clip-noise". In the paper's order, "clip-noise-filter", S = sum_i c_i g_i with
c_i = min(1, C / |g_i|).

The paper adds complex noise to a spectrum, which takes care with the symmetric halves, the constant
and the Nyquist frequency. Real noise in the parameters' own coordinates needs none.

It also clips layer by layer, with C / sqrt(L) for each of L layers. Bounds whose squares add up to C^2
leave the sensitivity at C, and the noise is the same; C for every layer would need sqrt(L) times as much.

Several processes each hold a part of the batch: one of them adds the noise, and the sum over processes,
which P commutes with, is what every one of them gets.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.distributed
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.optimizers.optimizer import _check_processed_flag, _generate_noise, _mark_as_processed
from torch import Tensor, nn

from spectral_dp._adam import AdamCorrected
from spectral_dp._noise import add_entropy_normal_
from spectral_dp._projections import Projection
from tenfold import DivergedError, SettingError

Order = Literal["filter-clip-noise", "clip-noise-filter"]


class SpectralDPOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimizer on per-sample gradients, with a filter.

    Parameters
    ----------
    *args, **kwargs
        Those of ``opacus.optimizers.DPOptimizer``, with the expected batch size of all processes
        together. Without ``generator`` the noise is drawn from the operating system's entropy; with one
        it can be replayed, and the result is not private.
    projections : mapping of Parameter to Projection
        Bound to the parameters; the others are not filtered.
    order : {"filter-clip-noise", "clip-noise-filter"}
    layers : sequence of (sequence of Parameter, float), optional
        Clip the parameters of each layer together, to a bound of its own; the squares of the bounds add
        up to that of ``max_grad_norm``, which they stay in proportion to when it is scheduled. By
        default one bound for all parameters together.
    distributed : bool
        Add up the sums of all processes of torch.distributed's default group.

    Raises
    ------
    SettingError
        `layers` does not have every parameter once, or its bounds do not add up.
        Or, in ``step``, a layer saw another number of samples than the others.
    DivergedError
        In ``step``, in every process, before noise is added and the step is charged: a per-sample
        gradient is not finite.
    """

    def __init__(
        self,
        *args: Any,
        projections: Mapping[nn.Parameter, Projection],
        order: Order = "filter-clip-noise",
        layers: Sequence[tuple[Sequence[nn.Parameter], float]] | None = None,
        distributed: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.projections = dict(projections)
        self.order = order
        layers = [(self.params, self.max_grad_norm)] if layers is None else layers
        _check_layers(layers, self.params, self.max_grad_norm)
        self.shares: list[tuple[list[Any], float]] = [
            (list(layer), bound / self.max_grad_norm) for layer, bound in layers
        ]
        self.distributed = distributed

    def clip_and_accumulate(self) -> None:
        """Filter the per-sample gradients if that comes first, clip them and add them up.

        The sums of filtered gradients are those of their coefficients.
        """
        check_counts([len(self._get_flat_grad_sample(p)) for p in self.params], self.params)
        for layer, share in self.shares:
            samples = [self._samples(p) for p in layer]
            norms = torch.stack([g.norm(dim=1) for g in samples]).norm(dim=0)
            factors = (share * self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
            for p, gradients in zip(layer, samples, strict=True):
                total = factors @ gradients
                p.summed_grad = total if p.summed_grad is None else p.summed_grad + total
                _mark_as_processed(p.grad_sample)

    def coefficients(self, p: Any) -> Tensor:
        """Return B S of a parameter that is filtered."""
        total: Tensor = p.summed_grad
        filtered = self.order == "filter-clip-noise"
        return total if filtered else self.projections[p].coefficients(total.view_as(p))

    def add_noise(self) -> None:
        """Add noise to the sums and filter the result."""
        _release(self)

    def scale_grad(self) -> None:
        """Divide by the expected batch size, and tell `AdamCorrected` the variance of the noise."""
        super().scale_grad()
        _tell_noise(self)

    def _samples(self, p: Any) -> Tensor:
        """Return the per-sample gradients of `p`, or their coefficients, in a row each."""
        _check_processed_flag(p.grad_sample)
        samples: Tensor = self._get_flat_grad_sample(p).to(p.dtype)
        width = p.numel()
        if self.order == "filter-clip-noise" and p in self.projections:
            width = width // self.projections[p].size * self.projections[p].rank
            return self.projections[p].coefficients(samples).reshape(len(samples), width)
        return samples.reshape(len(samples), width)


class SpectralDPOptimizerFastGradientClipping(DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """Opacus's optimizer on gradients that were clipped through the loss, with a filter.

    Parameters
    ----------
    *args, **kwargs, projections, distributed
        As for `SpectralDPOptimizer`. The norms that the loss is weighted by come from
        `SpectralGhostModule`, which must have the same projections.

    Raises
    ------
    DivergedError
        In ``step``, in every process, before noise is added and the step is charged: the gradient is
        not finite.
    SettingError
        In ``step``: `max_grad_norm` is no longer that which the gradient was clipped to, or a parameter
        is trained that was frozen before, whose gradient nothing clips.
    """

    def __init__(
        self,
        *args: Any,
        projections: Mapping[nn.Parameter, Projection],
        distributed: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.projections = dict(projections)
        self.distributed = distributed
        self.clipped_to = self.max_grad_norm
        self.clipped = set(self.params)
        self.filtered: dict[Any, Tensor] = {}
        self.waits_for_step = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient, and the sums unless they wait for the rest of a batch."""
        self.waits_for_step = False
        self.filtered.clear()
        super().zero_grad(set_to_none)

    def accumulate(self) -> None:
        """Add the clipped gradient, or its coefficients where it is filtered, to the sums."""
        if self.max_grad_norm != self.clipped_to:
            raise SettingError(
                f"max_grad_norm became {self.max_grad_norm}",
                f"{self.clipped_to}, which ghost clipping goes on using",
                'Schedule the bound with grad_sample_mode="hooks".',
            )
        if not self.clipped.issuperset(self.params):
            raise SettingError(
                "parameters that were frozen, or not there, when the model was made private",
                "those of then: ghost clipping does not see others",
                "Choose what to train first, then call make_private.",
            )
        for p in self.params:
            total = self._clipped_sum(p)
            p.summed_grad = total if p.summed_grad is None else p.summed_grad.add_(total)
            p.grad = None
        self.waits_for_step = False

    def coefficients(self, p: Any) -> Tensor:
        """Return B S of a parameter that is filtered."""
        total: Tensor = p.summed_grad
        return total

    def add_noise(self) -> None:
        """Add noise to the sums and filter the result."""
        _release(self)

    def scale_grad(self) -> None:
        """Divide by the expected batch size, and tell `AdamCorrected` the variance of the noise."""
        super().scale_grad()
        _tell_noise(self)

    def _clipped_sum(self, p: Any) -> Tensor:
        if p not in self.projections:
            total: Tensor = p.grad
            return total
        if p in self.filtered:
            return self.filtered.pop(p)
        return self.projections[p].coefficients(p.grad).flatten()


class GhostPasses:
    """What a ghost loss sees of the optimizer.

    Before it computes clipped gradients it calls ``zero_grad`` to forget what Opacus's first pass left.
    That would forget the clipped gradient of an earlier batch as well, without a word.

    Parameters
    ----------
    optimizer : SpectralDPOptimizerFastGradientClipping
    """

    def __init__(self, optimizer: SpectralDPOptimizerFastGradientClipping) -> None:
        self.optimizer = optimizer
        self.loss_reduction = optimizer.loss_reduction

    def zero_grad(self) -> None:
        """Make room for a clipped gradient.

        Raises
        ------
        SettingError
            The optimizer has not used the gradient of the backward pass before this one.
        """
        if self.optimizer.waits_for_step:
            raise SettingError(
                "a second backward pass before the optimizer's step",
                "a step, or optimizer.zero_grad(), after each in ghost mode",
                "Split large batches by opacus.utils.batch_memory_manager.BatchMemoryManager.",
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.waits_for_step = True

    def keep(self, coefficients: Mapping[nn.Parameter, Tensor]) -> None:
        """Keep the clipped gradients of filtered parameters, as their coefficients, for the step."""
        self.optimizer.filtered.update(coefficients)


def check_counts(counts: Sequence[int], params: Sequence[nn.Parameter]) -> None:
    """Raise `SettingError` unless every parameter has the same number of per-sample gradients."""
    if len(set(counts)) > 1:
        least = min(counts)
        shape = tuple(params[counts.index(least)].shape)
        raise SettingError(
            f"a batch of {least} for the parameter of shape {shape} and of {max(counts)} for another",
            "layers that all see every sample of the batch once",
            "Give inputs that samples share, such as position_ids, to each: ids.expand(len(x), -1).",
        )


_Optimizer = SpectralDPOptimizer | SpectralDPOptimizerFastGradientClipping


def _check_layers(
    layers: Sequence[tuple[Sequence[nn.Parameter], float]], params: Sequence[nn.Parameter], bound: float
) -> None:
    clipped = Counter(p for layer, _ in layers for p in layer)
    if clipped != Counter(params):
        raise SettingError(
            f"layers with {clipped.total()} parameters, {len(clipped)} of them different",
            f"each of the {len(params)} parameters of the optimizer in one layer",
            "Leave out what is frozen, and name what layers share once.",
        )
    total = math.hypot(*(own for _, own in layers))
    # Written so that NaN is refused as well.
    if not abs(total - bound) <= 1e-6 * bound or min(own for _, own in layers) <= 0:
        raise SettingError(
            f"bounds of layers that together are {total}",
            f"{bound}, the root of the sum of their squares, and all of them positive",
            "Take max_grad_norm / sqrt(number of layers) for each.",
        )


def _release(optimizer: _Optimizer) -> None:
    """Set the gradients to B' (B S + sigma C z), with S the sum over all processes."""
    _check_finite([p.summed_grad for p in optimizer.params], optimizer.distributed)
    std = optimizer.noise_multiplier * optimizer.max_grad_norm
    if optimizer.distributed and torch.distributed.get_rank() > 0:
        std = 0.0
    for p in optimizer.params:
        _check_processed_flag(p.summed_grad)
        projection = optimizer.projections.get(p)
        total = p.summed_grad if projection is None else optimizer.coefficients(p)
        released = (
            total.clone(memory_format=torch.contiguous_format) if projection is None else total.contiguous()
        )
        if std and optimizer.generator is None:
            add_entropy_normal_(released, std)
        elif std:
            noise: Tensor = _generate_noise(std=std, reference=p.detach(), generator=optimizer.generator)
            released += (noise if projection is None else projection.coefficients(noise)).view_as(released)
        if optimizer.distributed:
            torch.distributed.all_reduce(released)
        if projection is not None:
            released = projection.expand(released, p.shape)
        p.grad = released.view_as(p)
        _mark_as_processed(p.summed_grad)


def _check_finite(sums: Sequence[Tensor], distributed: bool) -> None:
    # A sample that is not finite leaves its mark in the sum: its clipping factor is 0 or NaN.
    broken = ~torch.isfinite(torch.stack([total.sum() for total in sums]).sum())
    if distributed:
        flag = broken.int()
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        broken = flag.bool()
    if bool(broken):
        raise DivergedError(
            "a per-sample gradient is NaN or infinite",
            "finite gradients; no noise was added and nothing was charged",
            "Look for samples that are not finite, or lower the learning rate.",
        )


def _tell_noise(optimizer: _Optimizer) -> None:
    adam = optimizer.original_optimizer
    if isinstance(adam, AdamCorrected):
        std = optimizer.noise_multiplier * optimizer.max_grad_norm
        if optimizer.loss_reduction == "mean":
            std /= optimizer.expected_batch_size * optimizer.accumulated_iterations
        adam.noise_variance = {
            p: std**2 * (optimizer.projections[p].diagonal(p) if p in optimizer.projections else 1.0)
            for p in optimizer.params
        }
