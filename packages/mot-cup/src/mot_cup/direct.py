"""Direct modelling: a detector that predicts the log-variances of its boxes beside the boxes.

The paper trains both heads by, for each dimension, with v the log-variance,

    loss = smoothL1(prediction, truth) exp(-v) + v / 2

That is the negative log-likelihood of a normal error only where the error is below the bend of the smooth
L1, where it is e^2 / 2. Beyond, it grows as abs(e), so the best v is not the log-variance but
log(2 E smoothL1(e)), which is less; and as the bend is at an error of 1, what is learnt depends on the unit
of the box. The density that would go with it is of no fixed family, and its normalising constant is not
exp(v / 2): the loss is no proper score. Errors of a metre and more, or of pixels and areas, are where this
shows. `gaussian_nll_loss` has e^2 / 2 throughout: its best v is log E e^2 in any unit, at the price of
gradients that grow with the error.

>>> head = LogVarianceHead(features=64)
>>> boxes, features, truth = torch.zeros(8, 4), torch.zeros(8, 64), torch.ones(8, 4)
>>> log_variance = head(features)
>>> round(direct_modelling_loss(boxes, log_variance, truth).item(), 3)
0.5

Needs torch: ``pip install 'mot-cup[torch]'``.
"""

from __future__ import annotations

import math

from mot_cup._boxes import Space
from mot_cup._detections import BoxCovariance
from tenfold import DataError, MissingExtraError, SettingError

try:
    import torch
except ImportError as error:
    raise MissingExtraError(
        "mot_cup.direct was imported without torch",
        "torch to be installed",
        "Run: pip install 'mot-cup[torch]'",
    ) from error
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LogVarianceHead", "direct_modelling_loss", "gaussian_nll_loss", "predicted_covariance"]


def direct_modelling_loss(
    prediction: Tensor, log_variance: Tensor, truth: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return the paper's loss, the mean over boxes and dimensions.

    Parameters
    ----------
    prediction, log_variance, truth : Tensor
        Of one shape, (..., d).
    weights : Tensor, optional
        Of a shape that broadcasts to it: how much each counts, such as 0 for anchors without an object.

    Returns
    -------
    Tensor
        A scalar; 0 where no weight is above 0.

    Raises
    ------
    DataError
        Shapes differ.
    """
    _check(prediction, log_variance, truth)
    errors = F.smooth_l1_loss(prediction, truth, reduction="none")
    return _mean(errors * torch.exp(-log_variance) + log_variance / 2, weights)


def gaussian_nll_loss(
    prediction: Tensor, log_variance: Tensor, truth: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return the negative log-likelihood of normal errors, less its constant: the proper alternative.

    Parameters, result and errors are those of `direct_modelling_loss`.
    """
    _check(prediction, log_variance, truth)
    errors = (prediction - truth) ** 2 / 2
    return _mean(errors * torch.exp(-log_variance) + log_variance / 2, weights)


class LogVarianceHead(nn.Module):
    """A linear layer from a detector's features to log-variances, beside the layer that gives the boxes.

    It starts at a variance of about 1 for all, where either loss is the box's own, so that training begins as
    without it.

    Parameters
    ----------
    features : int
        Length of the last axis of the input. For a map of channels, permute them to the end.
    dimensions : int
        Coordinates of a box.
    bounds : tuple of float
        Between what the log-variances are kept, around 0. The limits are approached smoothly: a head beyond
        one of them still gets a gradient and can come back, as it could not from a cut.

    Raises
    ------
    SettingError
        A size is below 1, or the bounds are not around 0.
    """

    def __init__(
        self, features: int, dimensions: int = 4, bounds: tuple[float, float] = (-14.0, 10.0)
    ) -> None:
        super().__init__()
        if features < 1 or dimensions < 1:
            raise SettingError(
                f"a head from {features} features to {dimensions} dimensions", "1 or more", "Correct it."
            )
        if not -math.inf < bounds[0] < 0 < bounds[1] < math.inf:
            raise SettingError(
                f"log-variances between {bounds[0]} and {bounds[1]}",
                "a finite number below 0 and one above",
                "Correct the bounds.",
            )
        self.bounds = bounds
        self.linear = nn.Linear(features, dimensions)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return log-variances, of shape (..., dimensions), for features of shape (..., features)."""
        low, high = self.bounds
        below = high - F.softplus(high - self.linear(features))
        return low + F.softplus(below - low)


def predicted_covariance(log_variance: Tensor, space: Space, unit: str) -> BoxCovariance:
    """Return the covariances of a detector's output, in the parametrisation and unit it was trained in.

    Parameters
    ----------
    log_variance : Tensor
        Shape (n, 4).
    space : {"xyxy", "xywh", "xyah", "xysr"}
    unit : str
        Of length, of the targets of the training; convert to that of the boxes by `BoxCovariance.to_unit`.

    Raises
    ------
    DataError
        The shape is another, or a variance is not finite.
    UnknownNameError
        There is no such parametrisation.
    """
    variances = log_variance.detach().double().exp().cpu().numpy()
    return BoxCovariance.diagonal(variances, space, unit)


def _check(prediction: Tensor, log_variance: Tensor, truth: Tensor) -> None:
    shapes = [tuple(item.shape) for item in (prediction, log_variance, truth)]
    if len(set(shapes)) > 1:
        raise DataError(
            f"boxes, log-variances and truth of the shapes {shapes[0]}, {shapes[1]} and {shapes[2]}",
            "one shape",
            "Give a log-variance and a true value for every coordinate.",
        )


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return losses.mean()
    broadcast = weights.expand_as(losses)
    return (losses * broadcast).sum() / broadcast.sum().clamp(min=torch.finfo(losses.dtype).tiny)
