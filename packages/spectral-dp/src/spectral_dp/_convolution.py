"""The paper's convolution, whose gradient is filtered on the padded image.

The gradient of a convolution's kernel is the correlation of its input x with the gradient d of its
output, at the lags that the kernel has. The paper takes all lags there are, D = H + H_out - 1 along
each axis of the padded image, filters their spectrum,

    G(f) = sum_samples conj(D_po(f)) X_in(f),

and crops the kernel out of what comes back. So the parameter here has all D x D lags: its gradient is
the whole correlation, and clipping, noise and filter act on it as on any parameter's. The forward pass
uses the kernel's lags alone, a crop after the noise. By Parseval's theorem a sample's gradient has the norm

    |P g|^2 = (1 / D^2) sum_f w_f m_f (sum_in |X_in(f)|^2) (sum_po |D_po(f)|^2)

with m the mask and w_f the number of bins that a bin of the real transform stands for.

The noise outside the kernel's lags is wasted, and so is what clipping spends on their gradient, which is
most of it: expect less accuracy than from a filter on the kernel of an ``nn.Conv2d``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from spectral_dp._conversion import replace_layers
from tenfold import SettingError


class SpectralConv2d(nn.Module):
    """Drop-in for ``nn.Conv2d`` that is trained by the correlation at all lags.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : tuple of int
    image : tuple of int
        Height and width of the inputs.
    padding : tuple of int
        Zeros on each side of an axis.
    bias : bool

    Attributes
    ----------
    weight : Parameter
        Shape (out_channels, in_channels, D_h, D_w); ``weight[..., :h, :w]`` is the kernel. Lag -1 is at
        the end.
    bias : Parameter or None

    Raises
    ------
    SettingError
        A size is below 1, or the kernel is larger than the padded image.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        image: tuple[int, int],
        padding: tuple[int, int] = (0, 0),
        bias: bool = True,
    ) -> None:
        super().__init__()
        padded = tuple(size + 2 * extra for size, extra in zip(image, padding, strict=True))
        if (
            min(in_channels, out_channels, *kernel_size, *image) < 1
            or min(padding) < 0
            or any(kernel > size for kernel, size in zip(kernel_size, padded, strict=True))
        ):
            raise SettingError(
                f"{in_channels} to {out_channels} channels, kernel {kernel_size}, image {image}, "
                f"padding {padding}",
                "sizes from 1 up, and a kernel no larger than the padded image",
                "Give the height and the width of the layer's inputs.",
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.image = image
        self.padding = padding
        lags = [2 * size - kernel for size, kernel in zip(padded, kernel_size, strict=True)]
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, *lags))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    @property
    def lags(self) -> tuple[int, int]:
        """D along both axes."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def kernel(self) -> Tensor:
        """The part of the weight that the forward pass uses, of shape (out, in, h, w)."""
        return self.weight[..., : self.kernel_size[0], : self.kernel_size[1]]

    def reset_parameters(self) -> None:
        """Draw the kernel and the bias as ``nn.Conv2d`` does; the other lags are zero."""
        bound = (self.in_channels * self.kernel_size[0] * self.kernel_size[1]) ** -0.5
        with torch.no_grad():
            self.weight.zero_()
            self.kernel.uniform_(-bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x`` of shape ``(samples, in_channels, *image)``."""
        if x.shape[1:] != (self.in_channels, *self.image):
            raise SettingError(
                f"an input of shape {tuple(x.shape)}",
                f"shape (samples, {self.in_channels}, {self.image[0]}, {self.image[1]})",
                "Make the layer for the size of its inputs.",
            )
        y: Tensor = _Convolution.apply(x, self.weight, self)
        return y if self.bias is None else y + self.bias[:, None, None]

    def correlation(self, x: Tensor, d: Tensor) -> Tensor:
        """Return the gradient of the weight, summed over samples.

        Parameters
        ----------
        x : Tensor
            Inputs, of shape ``(samples, in_channels, *image)``.
        d : Tensor
            Gradients of the outputs without bias, of shape ``(samples, out_channels, *output)``.
        """
        if not len(x):
            return torch.zeros_like(self.weight)
        inputs, outputs = self.spectra(x, d)
        spectrum = torch.einsum("nofg,nifg->oifg", outputs.conj(), inputs)
        total: Tensor = torch.fft.irfft2(spectrum, s=self.lags)
        return total

    def spectra(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Return the one-sided spectra of inputs and gradients on the D x D grid; not of no samples."""
        height, width = self.padding
        padded = F.pad(x, (width, width, height, height))
        return torch.fft.rfft2(padded, s=self.lags), torch.fft.rfft2(d, s=self.lags)

    def extra_repr(self) -> str:
        """Describe the layer in the representation of a model."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, image={self.image}, "
            f"padding={self.padding}, bias={self.bias is not None}"
        )


class _Convolution(torch.autograd.Function):
    """A convolution by the kernel, with the whole correlation for the weight's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: SpectralConv2d) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, layer.kernel, padding=layer.padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        layer = ctx.layer
        x, weight = ctx.saved_tensors
        kernel = weight[..., : layer.kernel_size[0], : layer.kernel_size[1]]
        d_x = d_weight = None
        if ctx.needs_input_grad[0]:
            d_x = conv2d_input(x.shape, kernel, d, padding=layer.padding)
        if ctx.needs_input_grad[1]:
            d_weight = layer.correlation(x, d)
        return d_x, d_weight, None


def to_spectral_conv(conv: nn.Conv2d, image: tuple[int, int]) -> SpectralConv2d:
    """Return the layer that computes what `conv` computes on images of one size.

    Parameters
    ----------
    conv : nn.Conv2d
        Left as it is.
    image : tuple of int
        Height and width of its inputs.

    Raises
    ------
    SettingError
        `conv` has strides, dilation, groups or a padding by name or other than zeros; or as
        `SpectralConv2d`.
    """
    plain = (conv.stride, conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), (1, 1), 1, "zeros")
    if not plain or isinstance(conv.padding, str):
        raise SettingError(
            str(conv),
            "a convolution without strides, dilation and groups, with a number of zeros as padding",
            "Leave it as it is: a projection filters its kernel.",
        )
    layer = SpectralConv2d(
        conv.in_channels,
        conv.out_channels,
        cast(tuple[int, int], conv.kernel_size),
        image,
        cast(tuple[int, int], conv.padding),
        conv.bias is not None,
    ).to(conv.weight)
    with torch.no_grad():
        layer.kernel.copy_(conv.weight)
        if conv.bias is not None:
            cast(nn.Parameter, layer.bias).copy_(conv.bias)
    return layer.train(conv.training)


def convert_to_spectral_conv(model: nn.Module, images: Mapping[str, tuple[int, int]]) -> nn.Module:
    """Replace convolutions of `model` by spectral ones, in place.

    Parameters
    ----------
    model : nn.Module
    images : mapping of str to pair of int
        Height and width of the inputs by the name of the layer in ``model.named_modules()``.

    Returns
    -------
    nn.Module
        `model`. Make its optimizer afterwards: the parameters are new ones.

    Raises
    ------
    SettingError
        A name is not that of an ``nn.Conv2d`` inside the model, or as `to_spectral_conv`. No layer is
        replaced then.
    """
    return replace_layers(model, nn.Conv2d, images, to_spectral_conv)
