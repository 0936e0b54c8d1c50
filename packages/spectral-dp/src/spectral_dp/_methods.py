"""The methods that ``spectral-dp run`` compares, and the training that they share.

A method is a network, what it sees of an image, and a spectrum. For a layer that sees each sample once the
per-sample gradient is g = d x', so that P g = d (P x)': filtering the gradient of a first layer is training
on filtered inputs. A comparison with DP-SGD alone would take the effect of smaller inputs for a merit of
the filter. Hence the controls: DP-SGD on inputs that are low-passed to the same band, on pooled inputs, and,
when the start is a network trained on public data, of its last layer alone.

What no treatment of the inputs can do is to filter the gradient of a hidden layer while the forward pass
stays whole. That is "subspace": every layer's gradient but the first's is projected on the directions in
which its inputs vary most on public images. The first is low-passed, or sees pooled inputs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from spectral_dp._engine import SpectralPrivacyEngine
from spectral_dp._paper import paper_preset
from spectral_dp._projections import DCTLowPass, FFTLowPass, Projection, PublicSubspace
from spectral_dp._samplers import _patches
from tenfold import DivergedError, SettingError

METHODS = {
    "dp-sgd": "DP-SGD (Opacus)",
    "low-passed": "control: DP-SGD on low-passed inputs",
    "pooled": "control: DP-SGD on inputs pooled 2 x 2",
    "last-layer": "control: DP-SGD of the last layer alone",
    "filter": "filter: gradients low-passed",
    "subspace": "subspace: first layer low-passed, others on public directions",
    "pooled-subspace": "subspace: inputs pooled, layers after the first on public directions",
    "paper": "the paper's preset, correctly noised",
}
CONTROLS = ("dp-sgd", "low-passed", "pooled", "last-layer")
SUBSPACES = ("subspace", "pooled-subspace")


@dataclass(frozen=True)
class Examples:
    """Images of shape (n, channels, h, w), scaled by public constants, and labels."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Kept:
    """What filters keep.

    Attributes
    ----------
    ratio : float
        Of the band of an image, along both axes.
    kernel_ratio : float
        Of the cosines of a convolution's kernel, along both axes.
    rank : int
        Directions of the inputs of a hidden layer.
    """

    ratio: float
    kernel_ratio: float
    rank: int = 1


@dataclass(frozen=True)
class Training:
    """What every candidate of a comparison shares, and the rate in which candidates differ."""

    noise_multiplier: float
    delta: float
    epochs: int
    batch_size: int
    max_grad_norm: float
    lr: float


def inputs(method: str, examples: Examples, ratio: float) -> Examples:
    """Return the images as a method sees them."""
    x = examples.x
    if method == "low-passed":
        x = FFTLowPass(ratio, tuple(x.shape[2:]))(x)
    elif method in ("pooled", "pooled-subspace"):
        x = F.avg_pool2d(x, 2)
    return Examples(x, examples.y)


def spectrum(method: str, model: nn.Module, public: Examples | None, kept: Kept) -> dict[str, Projection]:
    """Return the projections of a method's layers.

    The first layer, when it is linear, is low-passed as an image, a convolution's kernel along its axes;
    the others, of `SUBSPACES` alone, keep directions of their inputs on `public` images.
    """
    layers = {name: layer for name, layer in model.named_modules() if type(layer) in (nn.Linear, nn.Conv2d)}
    first, first_layer = next(iter(layers.items()))
    chosen: dict[str, Projection] = {}
    if method in ("filter", "subspace"):
        chosen = {
            name: DCTLowPass(kept.kernel_ratio)
            for name, layer in layers.items()
            if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1
        }
        if isinstance(first_layer, nn.Linear):
            size = math.isqrt(first_layer.in_features)
            if size * size == first_layer.in_features:
                chosen[first] = FFTLowPass(kept.ratio, (size, size))
    if method in SUBSPACES and public is not None:
        hidden = {name: layers[name] for name in layers if name != first}
        chosen |= _subspaces(model, hidden, public, kept.rank)
    if method not in CONTROLS and method != "paper" and not chosen:
        raise SettingError(
            f"the method {method} with layers that are neither images nor kernels",
            "a convolution, or a first layer that sees a square image",
            "Choose the method subspace, or another model.",
        )
    return chosen


def _subspaces(
    model: nn.Module, layers: Mapping[str, nn.Module], public: Examples, rank: int
) -> dict[str, Projection]:
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0]
            patches = _patches(layer, x).transpose(1, 2) if isinstance(layer, nn.Conv2d) else x
            rows = patches.flatten(0, -2).double()
            found[name] = rows.T @ rows / len(rows)

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    with torch.no_grad():
        model(public.x)
    for handle in handles:
        handle.remove()
    return {
        name: PublicSubspace(torch.linalg.eigh(second)[1][:, -rank:].T, "public")
        for name, second in found.items()
        if rank < len(second)
    }


def train(
    method: str, model: nn.Module, projections: dict[str, Projection], examples: Examples, how: Training
) -> tuple[nn.Module, float]:
    """Train privately; return the model and the epsilon that was spent.

    Raises
    ------
    DivergedError
        The loss is not finite.
    """
    options: dict[str, Any] = {"grad_sample_mode": "ghost", "criterion": nn.CrossEntropyLoss()}
    engine = PrivacyEngine() if method in CONTROLS else SpectralPrivacyEngine()
    if method == "paper":
        model, options = paper_preset(model, examples.x[:1])
    elif method not in CONTROLS:
        options["spectrum"] = projections
    if method == "last-layer":
        *body, head = _with_parameters(model)
        for layer in body:
            layer.requires_grad_(False)
        head.requires_grad_(True)
    made = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad], lr=how.lr, momentum=0.9
        ),
        data_loader=_loader(examples, how.batch_size),
        noise_multiplier=how.noise_multiplier,
        max_grad_norm=how.max_grad_norm,
        **options,
    )
    private, optimizer, loader = made[0], made[1], made[-1]
    criterion = made[2] if len(made) == 4 else nn.CrossEntropyLoss()
    for _ in range(how.epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(private(x), y)
            if len(x) and not math.isfinite(loss.item()):
                raise DivergedError(
                    f"the loss at lr {how.lr}", "a finite number", "Lower the learning rates."
                )
            loss.backward()
            optimizer.step()
    return model, float(engine.get_epsilon(how.delta))


def pretrain(model: nn.Module, public: Examples, epochs: int, seed: int) -> None:
    """Train on public data, without privacy, and set the last layer to zero."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(public), generator=generator).split(256):
            optimizer.zero_grad()
            F.cross_entropy(model(public.x[batch]), public.y[batch]).backward()
            optimizer.step()
        schedule.step()
    for p in _with_parameters(model)[-1].parameters():
        nn.init.zeros_(p)


@torch.no_grad()
def accuracy(model: nn.Module, examples: Examples) -> float:
    """Return the accuracy in percent."""
    model.eval()
    correct = sum(
        float((model(x).argmax(1) == y).sum())
        for x, y in zip(examples.x.split(2000), examples.y.split(2000), strict=True)
    )
    model.train()
    return 100 * correct / len(examples)


def _with_parameters(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if list(layer.parameters(recurse=False))]


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Examples that a loader takes by the batch: collating them one by one takes longer than a step."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.examples.x[index], self.examples.y[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return [(self.examples.x[indices], self.examples.y[indices])] if len(indices) else []


def _loader(examples: Examples, batch_size: int) -> DataLoader[Any]:
    return DataLoader(_Batches(examples), batch_size=batch_size, collate_fn=lambda batch: batch[0])


def quietly() -> warnings.catch_warnings:
    """Return a context without the warnings of Opacus.

    They speak of torchcsprng, of the accountant's rounding, and of hooks on layers that see the data.
    """
    return warnings.catch_warnings(action="ignore")
