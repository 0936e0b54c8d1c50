"""What is quantised, and how: the paper's rules for accuracy, each of which can be switched off.

Quantising everything to int8 costs accuracy. The paper keeps it by rules: weights are updated in float32;
the layer before the softmax of the loss, the softmax over edges, the norms by degree, the bias and the
activation stay in float32; rounding is stochastic; the width is the smallest at which an early layer's
relative error is below 0.3. Every rule is a field of `Policy`, so that its effect can be measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from tenfold import SettingError

FLOAT_BITS = 32
"""Width that stands for no quantisation."""

WIDTHS = (8, 7, 6, 5, 4, 3, 2)
"""Widths that a quantised value may have; each is stored as int8."""


@dataclass(frozen=True)
class Policy:
    """How a layer computes; the default is the paper's rules with stochastic rounding.

    Attributes
    ----------
    bits : int or "auto"
        Width of quantised values, 2 to 8; 32 computes in float32 with the same kernels. "auto" takes, for
        each layer in its first step of training, the smallest width from 4 to 8 whose relative error on the
        layer's input is below `max_error`.
    max_error : float
        Of "auto". Between 0 and 1.
    rounding : {"stochastic", "nearest"}
        Stochastic rounding is right on average, which gradients need; it applies to training alone.
    keep_last : bool
        Keep the last layer, whose result a softmax takes, in float32. A rule about models: `set_policy` and
        `convert` apply it.
    keep_weights : bool
        Keep weights and their update in float32. Off, a weight is rounded in place whenever it is used in
        training.
    keep_attention : bool
        Keep attention after the softmax over edges in float32, to multiply int8 rows. Off, both are int8, as
        in the paper.
    keep_scores : bool
        Keep the two halves of an attention score, which are added for each edge, in float32. Off, they are
        int8, as in the paper.
    keep_norms : bool
        Keep norms by degree in float32. Off, they are rounded like the rest.
    keep_bias : bool
        Keep the bias in float32. Off, it is rounded like the rest.
    reuse : bool
        Quantise a tensor once for all operators that take it, and take its scale from the operator that made
        it. Off, every operator quantises anew.
    generator : torch.Generator, optional
        Source of the seeds of stochastic rounding, on the CPU; by default torch's own, as for dropout.
    group : torch.distributed.ProcessGroup, optional
        Processes that share every scale, each holding a part of the graph: the largest magnitude of a tensor
        is that of all its parts.

    Raises
    ------
    SettingError
        A value is impossible.

    Examples
    --------
    >>> Policy(bits="auto", rounding="nearest").quantizes
    True
    >>> Policy.off().quantizes
    False
    """

    bits: int | Literal["auto"] = 8
    max_error: float = 0.3
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    keep_last: bool = True
    keep_weights: bool = True
    keep_attention: bool = True
    keep_scores: bool = True
    keep_norms: bool = True
    keep_bias: bool = True
    reuse: bool = True
    generator: torch.Generator | None = None
    group: Any = None

    def __post_init__(self) -> None:
        if self.bits != "auto" and self.bits not in (*WIDTHS, FLOAT_BITS):
            raise SettingError(
                f"bits is {self.bits!r}", 'a width from 2 to 8, 32 or "auto"', "Choose one of these."
            )
        if self.rounding not in ("stochastic", "nearest"):
            raise SettingError(
                f"rounding is {self.rounding!r}", '"stochastic" or "nearest"', "Choose one of these."
            )
        if not 0 < self.max_error < 1:
            raise SettingError(f"max_error is {self.max_error}", "a number between 0 and 1", "Correct it.")

    @staticmethod
    def off() -> Policy:
        """Return the policy that quantises nothing: the same kernels in float32."""
        return Policy(bits=FLOAT_BITS)

    @property
    def quantizes(self) -> bool:
        """Whether anything is quantised."""
        return self.bits != FLOAT_BITS

    def seed(self) -> int | None:
        """Draw the seed of one rounding; None where rounding is to the nearest."""
        if self.rounding == "nearest":
            return None
        return int(torch.randint(2**62, (), generator=self.generator))


def levels_of(bits: int) -> int:
    """Largest value of a width: 127 for 8 bits, 7 for 4."""
    return int(2 ** (bits - 1)) - 1
