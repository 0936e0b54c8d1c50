"""The paper's settings, correctly noised: what its method does, for comparison.

From the paper: convolutions filtered on the padded image, linear layers made block-circulant with blocks
of 8, the last one of 10, half of the spectrum kept, clipping before noise before the filter, and a bound
of C / sqrt(L) for each of the L layers. Corrected: the noise, which is real, on all coordinates and as
large as the bound asks for. The paper's code adds less (see the README).

It is not what we would use. Cropping throws most of the clipped gradient away, and a filter after
clipping leaves the bound to be spent on what it removes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spectral_dp._circulant import convert_to_block_circulant
from spectral_dp._convolution import convert_to_spectral_conv
from spectral_dp._projections import FFTLowPass
from tenfold import SettingError

RATIO = 0.5
BLOCK = 8
LAST_BLOCK = 10


def paper_preset(model: nn.Module, example_inputs: Tensor) -> tuple[nn.Module, dict[str, Any]]:
    """Convert a model to the paper's layers and return the settings to make it private with.

    Parameters
    ----------
    model : nn.Module
        Its ``nn.Linear`` and ``nn.Conv2d`` layers are replaced, in place, with their weights. Blocks are
        no larger than a layer.
    example_inputs : Tensor
        A batch that `model` takes: the layers are made for the size of its images.

    Returns
    -------
    model : nn.Module
        Make its optimizer afterwards: the parameters are new ones.
    options : dict
        Keyword arguments of `SpectralPrivacyEngine.make_private`: ``spectrum``, ``order`` and
        ``clipping``.

    Raises
    ------
    SettingError
        `model` has no such layer, or a convolution with strides, dilation or groups. Nothing is
        changed then.

    Examples
    --------
    >>> model, options = paper_preset(model, images[:1])                     # doctest: +SKIP
    >>> engine.make_private(module=model, ..., **options)                    # doctest: +SKIP
    """
    layers = {name: layer for name, layer in model.named_modules() if type(layer) in (nn.Linear, nn.Conv2d)}
    if not layers:
        raise SettingError(
            f"a {type(model).__name__} without layers to convert",
            "layers of the types nn.Linear and nn.Conv2d",
            "Use make_private with a spectrum of your own.",
        )
    images = _image_sizes(model, layers, example_inputs)
    linear = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    blocks = dict.fromkeys(linear, BLOCK)
    if linear:
        blocks[list(linear)[-1]] = LAST_BLOCK
    largest = {name: max(layer.in_features, layer.out_features) for name, layer in linear.items()}
    convert_to_spectral_conv(model, images)
    convert_to_block_circulant(model, {name: min(blocks[name], largest[name]) for name in linear})
    spectrum = dict.fromkeys(layers, FFTLowPass(RATIO))
    return model, {"spectrum": spectrum, "order": "clip-noise-filter", "clipping": "per_layer"}


def _image_sizes(
    model: nn.Module, layers: dict[str, nn.Module], example_inputs: Tensor
) -> dict[str, tuple[int, int]]:
    sizes: dict[str, tuple[int, int]] = {}

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sizes[name] = (inputs[0].shape[-2], inputs[0].shape[-1])

        return hook

    convolutions = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in convolutions.items()]
    try:
        with torch.no_grad():
            model(example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    missing = set(convolutions) - set(sizes)
    if missing:
        raise SettingError(
            f"example inputs that never reach {', '.join(sorted(missing))}",
            "a batch that goes through every convolution",
            "Freeze or remove layers that are not used.",
        )
    return sizes
