"""Linear layers of circulant blocks, the paper's fully connected layer.

The weight is p x q blocks of size k, each circulant and given by its first column w:

    y_p = sum_q IFFT(FFT(w_pq) FFT(x_q)).

The per-sample gradient of a first column is the circular correlation of the block's input with the
gradient g of its output, dw_pq = IFFT(conj(X_q) G_p). The parameters are real: the spectrum is a way to
compute, and noise is added to the first columns themselves. By Parseval's theorem a frequency f adds

    |dw_pq|^2 at f  =  |X_q(f)|^2 |G_p(f)|^2 / k

(twice in a one-sided spectrum, except at the constant and the Nyquist frequency), so that the norm over
all blocks needs sums over q and p alone.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_dp._conversion import replace_layers
from tenfold import SettingError


class BlockCirculantLinear(nn.Module):
    """A drop-in for ``nn.Linear`` with ``block`` times fewer weights.

    Parameters
    ----------
    in_features, out_features : int
    block : int
        Size k of the circulant blocks. Features that it does not divide are padded with zeros on
        the way in, and cut off on the way out.
    bias : bool

    Attributes
    ----------
    weight : Parameter
        Shape (ceil(out / k), ceil(in / k), k): the first columns of the blocks.
    bias : Parameter or None
        Shape (out_features,).

    Raises
    ------
    SettingError
        A size is below 1, or `block` is larger than both sizes of the layer.
    """

    def __init__(self, in_features: int, out_features: int, block: int, bias: bool = True) -> None:
        super().__init__()
        if min(in_features, out_features, block) < 1 or block > max(in_features, out_features):
            raise SettingError(
                f"blocks of {block} in a layer from {in_features} to {out_features} features",
                "sizes from 1 up, and blocks no larger than the layer",
                "Choose a smaller block.",
            )
        self.in_features = in_features
        self.out_features = out_features
        self.block = block
        shape = (math.ceil(out_features / block), math.ceil(in_features / block), block)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights and the bias as ``nn.Linear`` does."""
        bound = self.in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x`` of shape (..., in_features)."""
        if not x.numel():
            # An empty batch, as Poisson sampling gives at times: MKL's FFT fails on it.
            return F.linear(x, self.dense_weight(), self.bias)
        spectrum = torch.einsum("...qf,pqf->...pf", self.spectrum(x), torch.fft.rfft(self.weight))
        y: Tensor = torch.fft.irfft(spectrum, n=self.block).flatten(-2)[..., : self.out_features]
        return y if self.bias is None else y + self.bias

    def spectrum(self, x: Tensor) -> Tensor:
        """Return the one-sided spectra of the blocks of features `x`.

        Parameters
        ----------
        x : Tensor
            Shape (..., features), inputs of the layer or gradients of its outputs; not empty.

        Returns
        -------
        Tensor
            Complex, of shape (..., blocks, k // 2 + 1).
        """
        padded = F.pad(x, (0, -x.shape[-1] % self.block))
        blocks: Tensor = torch.fft.rfft(padded.unflatten(-1, (padded.shape[-1] // self.block, self.block)))
        return blocks

    def dense_weight(self) -> Tensor:
        """Return the weight matrix of the equal ``nn.Linear``, of shape (out_features, in_features)."""
        k = self.block
        shifts = (torch.arange(k)[:, None] - torch.arange(k)) % k
        blocks = self.weight[..., shifts.to(self.weight.device)]
        return blocks.transpose(1, 2).flatten(2).flatten(0, 1)[: self.out_features, : self.in_features]

    def extra_repr(self) -> str:
        """Describe the layer in the representation of a model."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, block={self.block}, "
            f"bias={self.bias is not None}"
        )


def to_block_circulant(linear: nn.Linear, block: int) -> BlockCirculantLinear:
    """Return the block-circulant layer nearest to `linear` in the Frobenius norm.

    Every entry of a first column is the mean over its diagonal of the block, of the entries that the
    layer has.

    Parameters
    ----------
    linear : nn.Linear
        Left as it is.
    block : int
        Size of the blocks, as for `BlockCirculantLinear`.

    Raises
    ------
    SettingError
        As for `BlockCirculantLinear`.
    """
    layer = BlockCirculantLinear(linear.in_features, linear.out_features, block, linear.bias is not None)
    layer = layer.to(linear.weight)
    with torch.no_grad():
        p, q, k = layer.weight.shape
        padding = (0, q * k - linear.in_features, 0, p * k - linear.out_features)

        def diagonal_sums(matrix: Tensor) -> Tensor:
            blocks = F.pad(matrix, padding).view(p, k, q, k).transpose(1, 2)
            positions = torch.arange(k, device=matrix.device)
            return blocks[..., (positions[:, None] + positions) % k, positions].sum(-1)

        counts = diagonal_sums(torch.ones_like(linear.weight))
        layer.weight.copy_(diagonal_sums(linear.weight) / counts.clamp(min=1))
        if linear.bias is not None:
            cast(nn.Parameter, layer.bias).copy_(linear.bias)
    return layer.train(linear.training)


def convert_to_block_circulant(model: nn.Module, blocks: dict[str, int]) -> nn.Module:
    """Replace linear layers of `model` by block-circulant ones, in place.

    Parameters
    ----------
    model : nn.Module
    blocks : dict of str to int
        Block size by the name of the layer in ``model.named_modules()``.

    Returns
    -------
    nn.Module
        `model`. Make its optimizer afterwards: the parameters are new ones.

    Raises
    ------
    SettingError
        A name is not that of an ``nn.Linear`` inside the model, or its block is too large. No layer is
        replaced then.
    """
    return replace_layers(model, nn.Linear, blocks, to_block_circulant)
