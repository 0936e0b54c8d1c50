"""Differentially private training with spectrally filtered gradients, on Opacus.

>>> engine = SpectralPrivacyEngine()                                       # doctest: +SKIP
>>> model, optimizer, loader = engine.make_private(                        # doctest: +SKIP
...     module=model, optimizer=optimizer, data_loader=loader,
...     noise_multiplier=1.0, max_grad_norm=1.0,
...     spectrum={"fc1": FFTLowPass(0.25, (28, 28))},
... )
>>> engine.get_epsilon(delta=1e-5)                                         # doctest: +SKIP
"""

from spectral_dp._adam import AdamCorrected
from spectral_dp._circulant import BlockCirculantLinear, convert_to_block_circulant, to_block_circulant
from spectral_dp._convolution import SpectralConv2d, convert_to_spectral_conv, to_spectral_conv
from spectral_dp._engine import SpectralPrivacyEngine
from spectral_dp._ghost import SpectralGhostModule
from spectral_dp._mechanism import SpectralDPOptimizer, SpectralDPOptimizerFastGradientClipping
from spectral_dp._noise import entropy_normal
from spectral_dp._paper import paper_preset
from spectral_dp._planning import epsilon, noise_multiplier
from spectral_dp._projections import DCTLowPass, FFTLowPass, Projection, PublicSubspace

__version__ = "0.1.0"

__all__ = [
    "AdamCorrected",
    "BlockCirculantLinear",
    "DCTLowPass",
    "FFTLowPass",
    "Projection",
    "PublicSubspace",
    "SpectralConv2d",
    "SpectralDPOptimizer",
    "SpectralDPOptimizerFastGradientClipping",
    "SpectralGhostModule",
    "SpectralPrivacyEngine",
    "__version__",
    "convert_to_block_circulant",
    "convert_to_spectral_conv",
    "entropy_normal",
    "epsilon",
    "noise_multiplier",
    "paper_preset",
    "to_block_circulant",
    "to_spectral_conv",
]
