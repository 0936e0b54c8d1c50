"""Per-sample gradients, and their norms after a filter without the gradients themselves.

A linear layer's per-sample gradient is a sum over positions (tokens, pixels of a convolution's output)
of outer products, g = sum_t d_t x_t', and the filter acts on the inputs, P g = sum_t d_t (P x_t)'. So

    |P g|^2 = |d|^2 |P x|^2                        with one position,
    |P g|^2 = sum_st (d_s . d_t) (P x_s . P x_t)   with several: the product of two Gram matrices.

A convolution is the same on its unfolded patches, a few samples at a time. Where Gram matrices would
take more products than the gradients, those of a few samples are formed after all, as those of a whole
batch are in Opacus's fast gradient clipping.
For a block-circulant layer with one position

    |P g|^2 = (1/k) sum_f w_f m_f (sum_q |X_q(f)|^2) (sum_p |G_p(f)|^2)

with m the mask and w_f = 1 at the constant and the Nyquist frequency, 2 elsewhere. It needs a mask: with
any other projection, or with several positions, the gradient is formed, which is small here.

An embedding adds up the d_t of every token: |g|^2 is the sum of d_s . d_t over the pairs of positions
that hold the same token.

Opacus has norm samplers for ``nn.Linear`` and ``nn.Embedding`` alone, without a filter, and that of
the embedding fails for gradients whose memory is not contiguous, as most encoders give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler, register_norm_sampler
from torch import Tensor, nn

from spectral_dp._circulant import BlockCirculantLinear
from spectral_dp._convolution import SpectralConv2d
from spectral_dp._projections import FFTLowPass, Projection

Norms = dict[Tensor, Tensor]
NormSampler = Callable[[Any, list[Tensor], Tensor, Projection | None], Norms]

PART = 1 << 19
"""Entries of a convolution's patches, many times its inputs, that are held at once: they fit in a cache."""


@register_grad_sampler(BlockCirculantLinear)  # type: ignore[untyped-decorator]
def circulant_grad_sample(
    layer: BlockCirculantLinear, activations: list[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    """Return the per-sample gradients of a block-circulant layer.

    Parameters
    ----------
    layer : BlockCirculantLinear
    activations : list of Tensor
        One tensor, the inputs, of shape (samples, ..., in_features).
    backprops : Tensor
        Shape (samples, ..., out_features).

    Returns
    -------
    dict
        Parameter to its gradients, of shape (samples, *parameter).
    """
    x, d = _positions(activations[0].to(backprops.dtype)), _positions(backprops)
    gradients: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad and not len(d):
        gradients[layer.weight] = d.new_zeros(0, *layer.weight.shape)
    elif layer.weight.requires_grad:
        spectrum = torch.einsum("ntqf,ntpf->npqf", layer.spectrum(x).conj(), layer.spectrum(d))
        gradients[layer.weight] = torch.fft.irfft(spectrum, n=layer.block)
    if layer.bias is not None and layer.bias.requires_grad:
        gradients[layer.bias] = d.sum(1)
    return gradients


@register_grad_sampler(SpectralConv2d)  # type: ignore[untyped-decorator]
def spectral_conv_grad_sample(
    layer: SpectralConv2d, activations: list[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    """Return the per-sample gradients of a spectral convolution, at all lags.

    Parameters
    ----------
    layer : SpectralConv2d
    activations : list of Tensor
        One tensor, the inputs, of shape (samples, channels, *image).
    backprops : Tensor
        Shape (samples, out_channels, *output).

    Returns
    -------
    dict
        Parameter to its gradients, of shape (samples, *parameter).
    """
    gradients: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad and not len(backprops):
        gradients[layer.weight] = backprops.new_zeros(0, *layer.weight.shape)
    elif layer.weight.requires_grad:
        x, d = layer.spectra(activations[0].to(backprops.dtype), backprops)
        gradients[layer.weight] = torch.fft.irfft2(d.conj()[:, :, None] * x[:, None], s=layer.lags)
    if layer.bias is not None and layer.bias.requires_grad:
        gradients[layer.bias] = backprops.sum((2, 3))
    return gradients


def linear_norm_sample(
    layer: nn.Linear, activations: list[Tensor], backprops: Tensor, projection: Projection | None = None
) -> Norms:
    """Return the norms of the filtered per-sample gradients of a linear layer.

    Parameters
    ----------
    layer : nn.Linear
    activations : list of Tensor
        One tensor, the inputs, of shape (samples, ..., in_features).
    backprops : Tensor
        Shape (samples, ..., out_features).
    projection : Projection, optional
        Bound to the layer's inputs.

    Returns
    -------
    dict
        Parameter to norms, of shape (samples,).
    """
    x, d = _positions(activations[0].to(backprops.dtype)), _positions(backprops)
    norms: Norms = {}
    if layer.weight.requires_grad:
        norms[layer.weight] = _outer_norms(x, d, projection)
    if layer.bias is not None and layer.bias.requires_grad:
        norms[layer.bias] = d.sum(1).norm(dim=1)
    return norms


def conv_norm_sample(
    layer: nn.Conv1d | nn.Conv2d,
    activations: list[Tensor],
    backprops: Tensor,
    projection: Projection | None = None,
) -> Norms:
    """Return the norms of the filtered per-sample gradients of a convolution.

    Parameters
    ----------
    layer : nn.Conv1d or nn.Conv2d
    activations : list of Tensor
        One tensor, the inputs, of shape (samples, channels, *image).
    backprops : Tensor
        Shape (samples, out_channels, *image).
    projection : Projection, optional
        Bound to the kernel, or to the input channels and the kernel.

    Returns
    -------
    dict
        Parameter to norms, of shape (samples,).
    """
    norms: Norms = {}
    if layer.weight.requires_grad:
        parts = [
            _conv_norms(layer, x, d, projection)
            for x, d in _parts(layer, activations[0].to(backprops.dtype), backprops)
        ]
        norms[layer.weight] = torch.cat([backprops.new_zeros(0), *parts])
    if layer.bias is not None and layer.bias.requires_grad:
        norms[layer.bias] = backprops.flatten(2).sum(2).norm(dim=1)
    return norms


def circulant_norm_sample(
    layer: BlockCirculantLinear,
    activations: list[Tensor],
    backprops: Tensor,
    projection: Projection | None = None,
) -> Norms:
    """Return the norms of the filtered per-sample gradients of a block-circulant layer.

    Parameters
    ----------
    layer : BlockCirculantLinear
    activations : list of Tensor
        One tensor, the inputs, of shape (samples, ..., in_features).
    backprops : Tensor
        Shape (samples, ..., out_features).
    projection : Projection, optional
        Bound to a block.

    Returns
    -------
    dict
        Parameter to norms, of shape (samples,).
    """
    x, d = _positions(activations[0].to(backprops.dtype)), _positions(backprops)
    norms: Norms = {}
    if layer.weight.requires_grad:
        mask = isinstance(projection, FFTLowPass) and projection.axes == (layer.block,)
        if len(d) and x.shape[1] == 1 and (projection is None or mask):
            weights = _hermitian_weights(layer.block, _kept(projection, 0)).to(x)
            inputs = layer.spectrum(x[:, 0]).abs().square().sum(1)
            outputs = layer.spectrum(d[:, 0]).abs().square().sum(1)
            norms[layer.weight] = (inputs * outputs * weights).sum(1).div(layer.block).sqrt()
        else:
            gradients = circulant_grad_sample(layer, [x], d)[layer.weight]
            norms[layer.weight] = _norms(_filtered(gradients, projection), len(gradients))
    if layer.bias is not None and layer.bias.requires_grad:
        norms[layer.bias] = d.sum(1).norm(dim=1)
    return norms


def spectral_conv_norm_sample(
    layer: SpectralConv2d,
    activations: list[Tensor],
    backprops: Tensor,
    projection: Projection | None = None,
) -> Norms:
    """Return the norms of the filtered per-sample gradients of a spectral convolution.

    Parameters
    ----------
    layer : SpectralConv2d
    activations : list of Tensor
        One tensor, the inputs, of shape (samples, channels, *image).
    backprops : Tensor
        Shape (samples, out_channels, *output).
    projection : Projection, optional
        Bound to the lags.

    Returns
    -------
    dict
        Parameter to norms, of shape (samples,).
    """
    norms: Norms = {}
    if layer.weight.requires_grad and not len(backprops):
        norms[layer.weight] = backprops.new_zeros(0)
    elif layer.weight.requires_grad and (projection is None or isinstance(projection, FFTLowPass)):
        x, d = layer.spectra(activations[0].to(backprops.dtype), backprops)
        energy = x.abs().square().sum(1) * d.abs().square().sum(1)
        height, width = layer.lags
        rows = _two_sided_mask(height, _kept(projection, 0)).to(energy)
        columns = _hermitian_weights(width, _kept(projection, 1)).to(energy)
        norms[layer.weight] = (energy @ columns @ rows).div(height * width).sqrt()
    elif layer.weight.requires_grad:
        gradients = spectral_conv_grad_sample(layer, activations, backprops)[layer.weight]
        norms[layer.weight] = _norms(_filtered(gradients, projection), len(gradients))
    if layer.bias is not None and layer.bias.requires_grad:
        norms[layer.bias] = backprops.sum((2, 3)).norm(dim=1)
    return norms


def embedding_norm_sample(
    layer: nn.Embedding, activations: list[Tensor], backprops: Tensor, projection: Projection | None = None
) -> Norms:
    """Return the norms of the per-sample gradients of an embedding.

    Parameters
    ----------
    layer : nn.Embedding
    activations : list of Tensor
        One tensor, the tokens, of shape (samples, ...).
    backprops : Tensor
        Shape (samples, ..., embedding_dim).
    projection : None
        Embeddings are not filtered.

    Returns
    -------
    dict
        Parameter to norms, of shape (samples,).
    """
    if not layer.weight.requires_grad:
        return {}
    d = _positions(backprops)
    tokens = activations[0].reshape(d.shape[:2])
    same = tokens.unsqueeze(1) == tokens.unsqueeze(2)
    if layer.padding_idx is not None:
        same &= (tokens != layer.padding_idx).unsqueeze(1)
    squares = (same * (d @ d.transpose(1, 2))).sum((1, 2))
    return {layer.weight: squares.clamp(min=0).sqrt()}


@register_norm_sampler(BlockCirculantLinear)  # type: ignore[untyped-decorator]
def _circulant_norm_sample(
    layer: BlockCirculantLinear, activations: list[Tensor], backprops: Tensor
) -> Norms:
    return circulant_norm_sample(layer, activations, backprops)


@register_norm_sampler(SpectralConv2d)  # type: ignore[untyped-decorator]
def _spectral_conv_norm_sample(layer: SpectralConv2d, activations: list[Tensor], backprops: Tensor) -> Norms:
    return spectral_conv_norm_sample(layer, activations, backprops)


def few_gradients(
    layer: nn.Module, activations: list[Tensor], backprops: Tensor, projection: Projection | None
) -> Norms | None:
    """Return the per-sample gradients of a layer that have fewer entries than `backprops`.

    Parameters
    ----------
    layer : nn.Module
    activations : list of Tensor
        One tensor, the inputs, whose first axis is that of the samples.
    backprops : Tensor
        The gradient of the layer's output.
    projection : Projection, optional
        Of a convolution's weight.

    Returns
    -------
    dict or None
        Parameter to gradients, of shape (samples, entries), those of a filtered weight as coefficients;
        None for a layer that has more, or that takes fewer products by its norm sampler.
    """
    n = len(backprops)
    if type(layer) in NORMALISATIONS:
        gradients = _normalisation_gradients(layer, activations, backprops)
        return {p: gradient.reshape(n, p.numel()) for p, gradient in gradients.items()}
    if not isinstance(layer, nn.Conv1d | nn.Conv2d) or not n or not layer.weight.requires_grad:
        return None
    entries = layer.weight.numel()
    if projection is not None:
        entries = entries // projection.size * projection.rank
    positions, inputs = backprops[0, 0].numel(), layer.weight[0].numel()
    outputs = layer.out_channels // layer.groups
    if entries > backprops[0].numel() or _gram_is_less(positions, inputs, outputs):
        return None
    parts = [
        _filtered(_conv_gradients(layer, x, d), projection, layer.in_channels // layer.groups)
        for x, d in _parts(layer, activations[0].to(backprops.dtype), backprops)
    ]
    few = {layer.weight: torch.cat([part.reshape(-1, entries) for part in parts])}
    if layer.bias is not None and layer.bias.requires_grad:
        few[layer.bias] = backprops.flatten(2).sum(2)
    return few


NORMALISATIONS = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.LayerNorm)

NORM_SAMPLERS: dict[type[nn.Module], NormSampler] = {
    nn.Linear: linear_norm_sample,
    nn.Conv1d: conv_norm_sample,
    nn.Conv2d: conv_norm_sample,
    nn.Embedding: embedding_norm_sample,
    BlockCirculantLinear: circulant_norm_sample,
    SpectralConv2d: spectral_conv_norm_sample,
}


def fibres(layer: nn.Module) -> list[tuple[int, ...]]:
    """Return the trailing axes of `layer`'s weight that can be filtered together; none if it has none."""
    if type(layer) is nn.Linear:
        return [(layer.in_features,)]
    if type(layer) is nn.Conv1d or type(layer) is nn.Conv2d:
        kernel = tuple(layer.kernel_size)
        return [kernel, (layer.in_channels // layer.groups, *kernel)]
    if type(layer) is BlockCirculantLinear:
        return [(layer.block,)]
    if type(layer) is SpectralConv2d:
        return [layer.lags]
    return []


def _positions(x: Tensor) -> Tensor:
    """Reshape (samples, ..., features) to (samples, positions, features)."""
    return x.reshape(len(x), x[0].numel() // x.shape[-1] if len(x) else 1, x.shape[-1])


def _filtered(x: Tensor, projection: Projection | None, channels: int = 1) -> Tensor:
    """Return `x`, of shape (..., inputs), or what has the norms of its projection."""
    return x if projection is None else projection.coefficients(x.unflatten(-1, (channels, -1)))


def _outer_norms(x: Tensor, d: Tensor, projection: Projection | None, channels: int = 1) -> Tensor:
    """Return the norms of ``sum_t d_t (P x_t)'`` for x (samples, positions, inputs), d alike with outputs."""
    samples, positions, inputs = x.shape
    norms: Tensor
    if positions == 1:
        norms = d[:, 0].norm(dim=1) * _norms(_filtered(x, projection, channels), samples)
    elif _gram_is_less(positions, inputs, d.shape[2]):
        filtered = _filtered(x, projection, channels).reshape(samples, positions, -1)
        products = (filtered @ filtered.transpose(1, 2)) * (d @ d.transpose(1, 2))
        norms = products.sum((1, 2)).clamp(min=0).sqrt()
    else:
        gradients = d.transpose(1, 2) @ x
        norms = _norms(_filtered(gradients, projection, channels), samples)
    return norms


def _gram_is_less(positions: int, inputs: int, outputs: int) -> bool:
    """Return whether Gram matrices take fewer products than a gradient, and no more memory."""
    return positions * (inputs + outputs) <= inputs * outputs


def _normalisation_gradients(
    layer: nn.Module, activations: list[Tensor], backprops: Tensor
) -> dict[Any, Tensor]:
    """Return Opacus's per-sample gradients, which take several copies of the inputs, by a few samples."""
    sampler = GradSampleModule.GRAD_SAMPLERS[type(layer)]
    size = max(1, PART // max(1, backprops[:1].numel()))
    parts = [
        sampler(layer, [x], d) for x, d in zip(activations[0].split(size), backprops.split(size), strict=True)
    ]
    return {p: torch.cat([part[p] for part in parts]) for p in parts[0]}


def _norms(x: Tensor, samples: int) -> Tensor:
    norms: Tensor = x.reshape(samples, x.numel() // max(1, samples)).norm(dim=1)
    return norms


def _parts(layer: nn.Conv1d | nn.Conv2d, x: Tensor, d: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Split a batch into parts of about `PART` entries in their patches, or gradients if that is more."""
    if not len(d):
        return iter(())
    patches = d[0, 0].numel() * layer.weight[0].numel() * layer.groups
    size = max(1, PART // max(patches, layer.weight.numel()))
    return zip(x.split(size), d.split(size), strict=True)


def _conv_norms(
    layer: nn.Conv1d | nn.Conv2d, images: Tensor, backprops: Tensor, projection: Projection | None
) -> Tensor:
    """Return the norms of the weight's filtered per-sample gradients, of shape (samples,)."""
    x, d = _grouped(layer, images, backprops)
    squares = _outer_norms(x, d, projection, layer.in_channels // layer.groups)
    norms: Tensor = squares.view(len(images), layer.groups).norm(dim=1)
    return norms


def _conv_gradients(layer: nn.Conv1d | nn.Conv2d, images: Tensor, backprops: Tensor) -> Tensor:
    """Return the weight's per-sample gradients, of shape (samples, outputs, inputs of a group)."""
    x, d = _grouped(layer, images, backprops)
    return (d.transpose(1, 2) @ x).reshape(len(images), layer.out_channels, -1)


def _grouped(layer: nn.Conv1d | nn.Conv2d, images: Tensor, backprops: Tensor) -> tuple[Tensor, Tensor]:
    """Return the patches and the backprops of every group, of shape (samples * groups, positions, ...)."""
    n, groups = len(images), layer.groups
    patches = _patches(layer, images)
    x = patches.reshape(n * groups, -1, patches.shape[2]).transpose(1, 2)
    return x, backprops.reshape(n * groups, layer.out_channels // groups, -1).transpose(1, 2)


def _patches(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """Return what each output position sees, of shape (samples, channels * kernel, positions)."""
    if isinstance(layer, nn.Conv1d):
        x = x.unsqueeze(2)
    axes = len(layer.kernel_size)
    kernel, stride, dilation = (
        (1,) * (2 - axes) + tuple(sizes) for sizes in (layer.kernel_size, layer.stride, layer.dilation)
    )
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    elif layer.padding == "valid":
        totals = [0, 0]
    else:
        totals = [0] * (2 - axes) + [2 * int(size) for size in layer.padding]
    if any(total % 2 for total in totals):
        # More on the right, as PyTorch does.
        x = nn.functional.pad(x, [size for total in reversed(totals) for size in (0, total % 2)])
    padding = (totals[0] // 2, totals[1] // 2)
    return nn.functional.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)


def _kept(projection: Projection | None, axis: int) -> int | None:
    return None if projection is None else len(projection.bases()[axis])


def _hermitian_weights(length: int, kept: int | None) -> Tensor:
    """Return how many of the `kept` lowest bins each bin of a real transform stands for."""
    weights = torch.full((length // 2 + 1,), 2.0, dtype=torch.float64)
    weights[0] = 1
    if length % 2 == 0:
        weights[-1] = 1
    if kept is not None:
        weights[kept // 2 + 1 :] = 0
    return weights


def _two_sided_mask(length: int, kept: int | None) -> Tensor:
    """Return 1 for the `kept` lowest frequencies of both signs of a transform, 0 for the others."""
    frequencies = torch.arange(length)
    frequencies = torch.minimum(frequencies, length - frequencies)
    return torch.ones(length) if kept is None else (frequencies <= kept // 2).double()
