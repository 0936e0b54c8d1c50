"""Opacus's privacy engine, with a filter for each layer."""

from __future__ import annotations

import fnmatch
import math
import os
import pickle
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch
import torch.distributed
from opacus import PrivacyEngine
from opacus.accountants.utils import get_noise_multiplier
from opacus.data_loader import DPDataLoader
from opacus.distributed import DifferentiallyPrivateDistributedDataParallel
from opacus.grad_sample import AbstractGradSampleModule, GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from spectral_dp._ghost import GhostLoss, SpectralGhostModule
from spectral_dp._mechanism import (
    GhostPasses,
    Order,
    SpectralDPOptimizer,
    SpectralDPOptimizerFastGradientClipping,
)
from spectral_dp._projections import Projection, PublicSubspace
from spectral_dp._samplers import fibres
from tenfold import CheckpointError, SettingError, UnknownNameError
from tenfold.experiment import write_whole

Spectrum = Mapping[str, Projection]
Bounds = list[tuple[list[nn.Parameter], float]]


class SpectralPrivacyEngine(PrivacyEngine):  # type: ignore[misc]
    """Make a training private, with filtered gradients.

    Used as Opacus's ``PrivacyEngine``. Its accountants, Poisson loaders, ``BatchMemoryManager``,
    ``ModuleValidator`` and checkpoints work as they do there.

    Parameters
    ----------
    accountant : {"prv", "rdp", "gdp"}
    not_private : bool
        For tests: allow a ``noise_generator``, whose noise can be replayed, and loaders without Poisson
        sampling. The epsilon that is then reported means nothing, and `get_epsilon` warns of it.
    """

    def __init__(self, *, accountant: str = "prv", not_private: bool = False) -> None:
        with warnings.catch_warnings():
            # It speaks of torchcsprng; the noise here comes from the operating system in any case.
            warnings.filterwarnings("ignore", message="Secure RNG turned off")
            super().__init__(accountant=accountant)
        self.not_private = not_private
        self._distributed = False

    def make_private(
        self,
        *,
        module: nn.Module,
        optimizer: Optimizer,
        data_loader: DataLoader[Any],
        noise_multiplier: float,
        max_grad_norm: float | Mapping[str, float],
        spectrum: Spectrum | None = None,
        order: Order = "filter-clip-noise",
        criterion: nn.Module | None = None,
        batch_first: bool = True,
        loss_reduction: str = "mean",
        poisson_sampling: bool = True,
        clipping: str = "flat",
        noise_generator: torch.Generator | None = None,
        grad_sample_mode: str = "hooks",
    ) -> tuple[Any, ...]:
        """Return private counterparts of the objects of a training.

        Parameters
        ----------
        module : nn.Module
            The model, without layers that mix samples; inside Opacus's
            ``DifferentiallyPrivateDistributedDataParallel`` to train it in several processes.
        optimizer : Optimizer
            Any of torch's, over parameters of `module`.
        data_loader : DataLoader
            Its batches set the sampling rate, ``1 / len(data_loader)``. In several processes every one
            passes the same loader of all samples, and samples from a part of them.
        noise_multiplier : float
            Standard deviation of the noise over the bound over all parameters.
        max_grad_norm : float or mapping of str to float
            The bound on a sample's gradient, over all parameters together. With
            ``clipping="per_layer"`` also bounds by the names of all layers that have parameters to
            train; the root of the sum of their squares is then the bound over all.
        spectrum : mapping of str to Projection, optional
            Projections of weights, by the layer's name in ``module.named_modules()`` or a pattern of
            names such as ``"layer*.conv?"``. Layers that none names are not filtered. In several
            processes the names are those within the distributed model.
        order : {"filter-clip-noise", "clip-noise-filter"}
            The second is the paper's.
        criterion : nn.Module, optional
            The loss, for ``grad_sample_mode="ghost"``; cross-entropy by default.
        batch_first, loss_reduction
            As in Opacus.
        poisson_sampling : bool
            False is accepted for a loader that samples by Poisson already, or has one batch of everything.
        clipping : {"flat", "per_layer"}
            One bound for all parameters together, or, with ``"hooks"``, a bound for each layer, weight
            and bias together. One number is divided evenly, as the paper does: ``max_grad_norm /
            sqrt(layers)`` for each.
        noise_generator : torch.Generator, optional
            For tests, in an engine with ``not_private=True``.
        grad_sample_mode : {"hooks", "ghost"}
            Form per-sample gradients, or only their norms.

        Returns
        -------
        tuple
            Module, optimizer and loader; with ``"ghost"`` module, optimizer, criterion and loader.

        Raises
        ------
        SettingError, UnknownNameError
            An argument is impossible or would void the guarantee. Nothing is charged or changed then.
        """
        if grad_sample_mode not in ("hooks", "ghost"):
            raise UnknownNameError("grad_sample_mode", grad_sample_mode, ("hooks", "ghost"))
        if clipping not in ("flat", "per_layer"):
            raise UnknownNameError("clipping", clipping, ("flat", "per_layer"))
        if clipping == "per_layer" and grad_sample_mode == "ghost":
            raise SettingError(
                "clipping='per_layer' with grad_sample_mode='ghost'",
                "one clipping factor a sample, which the loss is weighted by",
                'Use grad_sample_mode="hooks".',
            )
        if order not in get_args(Order):
            raise UnknownNameError("order", order, get_args(Order))
        _check_amounts(noise_multiplier, max_grad_norm, clipping)
        if noise_generator is not None and not self.not_private:
            raise SettingError(
                "a noise_generator",
                "noise from the operating system, which nobody can replay",
                "Leave it out, or make the engine with not_private=True in a test.",
            )
        # Opacus would look for it in the ghost module.
        distributed = self._distributed = isinstance(module, DifferentiallyPrivateDistributedDataParallel)
        model = cast(nn.Module, module.module) if distributed else module
        _check_module(module, optimizer, grad_sample_mode)
        _check_loader(data_loader)
        if distributed and _is_poisson(data_loader):
            raise SettingError(
                "a Poisson loader in several processes",
                "the plain loader of all samples, which each process takes its part of",
                "Pass the DataLoader that it was made from.",
            )
        if not (poisson_sampling or self.not_private or _is_poisson(data_loader) or len(data_loader) == 1):
            raise SettingError(
                "poisson_sampling=False",
                "Poisson sampling, which the accountant assumes",
                "Leave it out; the loader's batch size becomes the expected one.",
            )
        layers = _match(model, spectrum or {}, grad_sample_mode)
        bounds = _bounds(model, optimizer, max_grad_norm) if clipping == "per_layer" else None
        bound = math.hypot(*(own for _, own in bounds)) if bounds else max_grad_norm
        charged = any(
            isinstance(projection, PublicSubspace) and projection.provenance == "charged"
            for projection in layers.values()
        )
        if charged and not len(self.accountant):
            raise SettingError(
                "a basis of provenance 'charged' and an accountant that was charged for nothing",
                "the steps that computing the basis took",
                "Charge them first: engine.accountant.step(noise_multiplier=..., sample_rate=...).",
            )
        projections = {layer.weight: projection for layer, projection in layers.items()}
        if grad_sample_mode == "ghost":
            module = SpectralGhostModule(
                module,
                projections=layers if order == "filter-clip-noise" else {},
                max_grad_norm=bound,
                batch_first=batch_first,
                loss_reduction=loss_reduction,
            )
        private: tuple[Any, ...] = super().make_private(
            module=module,
            optimizer=optimizer,
            criterion=criterion or nn.CrossEntropyLoss(reduction=loss_reduction),
            data_loader=data_loader,
            noise_multiplier=noise_multiplier,
            max_grad_norm=bound,
            batch_first=batch_first,
            loss_reduction=loss_reduction,
            poisson_sampling=poisson_sampling,
            noise_generator=noise_generator,
            grad_sample_mode=grad_sample_mode,
            projections=projections,
            order=order,
            layers=bounds,
            expected=len(data_loader.dataset) // len(data_loader),  # type: ignore[arg-type]
        )
        if not self.not_private:
            # A sample that is drawn for two batches of one step would count twice against one bound.
            private[0].forbid_grad_accumulation()
        return private

    def make_private_with_epsilon(
        self,
        *,
        data_loader: DataLoader[Any],
        target_epsilon: float,
        target_delta: float,
        epochs: int,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Call `make_private` with the noise that spends a budget in a number of epochs.

        Parameters
        ----------
        data_loader : DataLoader
        target_epsilon, target_delta : float
            The budget.
        epochs : int
        **kwargs
            The other arguments of `make_private`, without ``noise_multiplier``.

        Raises
        ------
        SettingError, UnknownNameError
            As `make_private`; or the budget or the epochs are not positive.
        """
        if not (target_epsilon > 0 and 0 < target_delta < 1 and epochs >= 1):
            raise SettingError(
                f"epsilon {target_epsilon}, delta {target_delta} and {epochs} epochs",
                "epsilon above 0, delta between 0 and 1, and 1 epoch or more",
                "Take delta below 1 / (number of samples).",
            )
        if len(self.accountant):
            warnings.warn(
                "the accountant was charged already: the budget is what is spent from now on, on top of that",
                stacklevel=2,
            )
        _check_loader(data_loader)
        noise_multiplier = get_noise_multiplier(
            target_epsilon=target_epsilon,
            target_delta=target_delta,
            sample_rate=1 / len(data_loader),
            epochs=epochs,
            accountant=self.accountant.mechanism(),
        )
        return self.make_private(data_loader=data_loader, noise_multiplier=noise_multiplier, **kwargs)

    def get_epsilon(self, delta: float) -> float:
        """Return the epsilon spent so far, at `delta`; 0 before the first step."""
        if self.not_private:
            warnings.warn("this engine is for tests: its trainings are not private", stacklevel=2)
        return float(super().get_epsilon(delta)) if len(self.accountant) else 0.0

    def save_checkpoint(self, *, path: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save the accountant, the model and the optimizer; the file is whole or not there.

        Parameters
        ----------
        path : path
        **kwargs
            As in Opacus: ``module``, and ``optimizer`` and others if wanted.

        Raises
        ------
        OutputError
            The file cannot be written. An older one is left as it was.
        """

        def write(temporary: Path) -> None:
            super(SpectralPrivacyEngine, self).save_checkpoint(path=temporary, **kwargs)

        write_whole(Path(path), write)

    def load_checkpoint(self, *, path: str | os.PathLike[str], **kwargs: Any) -> dict[str, Any]:
        """Restore what `save_checkpoint` saved. Files from others can run code: load your own.

        Parameters
        ----------
        path : path
        **kwargs
            As in Opacus: ``module``, and ``optimizer`` and others if they were saved.

        Raises
        ------
        CheckpointError
            The file is missing, or not a whole checkpoint.
        """
        try:
            restored: dict[str, Any] = super().load_checkpoint(path=path, **kwargs)
        except (OSError, EOFError, pickle.UnpicklingError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{os.fspath(path)}: {error}",
                "a whole checkpoint of this model",
                "Take an older one; the steps since then are spent all the same.",
            ) from error
        return restored

    def _prepare_criterion(
        self, *, module: Any, optimizer: Any, criterion: Any, loss_reduction: str = "mean", **kwargs: Any
    ) -> GhostLoss:
        return GhostLoss(module, GhostPasses(optimizer), criterion, loss_reduction)

    def _prepare_model(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        if isinstance(module, SpectralGhostModule):
            return module
        prepared: nn.Module = super()._prepare_model(module, **kwargs)
        return prepared

    def _prepare_data_loader(
        self, data_loader: DataLoader[Any], *, poisson_sampling: bool, distributed: bool, **kwargs: Any
    ) -> DataLoader[Any]:
        if not self.not_private:
            # Who can replay torch.manual_seed must not know the batches: amplification needs them secret.
            self.secure_rng = torch.Generator()
            self.secure_rng.seed()
        if poisson_sampling and self._distributed:
            return self._part(data_loader, **kwargs)
        prepared: DataLoader[Any] = super()._prepare_data_loader(
            data_loader, poisson_sampling=poisson_sampling, distributed=False, **kwargs
        )
        return prepared

    def _part(self, data_loader: DataLoader[Any], **kwargs: Any) -> DataLoader[Any]:
        """Return a Poisson loader of this process's part of the samples, at the rate of the whole.

        Independent coins for disjoint parts are those of the whole. Opacus's distributed sampler drops
        empty batches, after which the processes no longer take the same steps.
        """
        rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
        part = Subset(data_loader.dataset, range(rank, len(data_loader.dataset), processes))  # type: ignore[arg-type]
        loader: DataLoader[Any] = DPDataLoader(
            part,
            sample_rate=1 / len(data_loader),
            generator=self.secure_rng or data_loader.generator,
            collate_fn=data_loader.collate_fn,
            num_workers=data_loader.num_workers,
            pin_memory=data_loader.pin_memory,
            **kwargs,
        )
        return loader

    def _prepare_optimizer(
        self,
        *,
        optimizer: Optimizer,
        grad_sample_mode: str = "hooks",
        clipping: str = "flat",
        noise_generator: torch.Generator | None = None,
        expected_batch_size: float,
        distributed: bool = False,
        layers: Bounds | None = None,
        order: Order,
        expected: int,
        **kwargs: Any,
    ) -> SpectralDPOptimizer | SpectralDPOptimizerFastGradientClipping:
        kwargs |= {
            "generator": noise_generator,
            "distributed": self._distributed,
            "expected_batch_size": expected if self._distributed else expected_batch_size,
        }
        if grad_sample_mode == "ghost":
            return SpectralDPOptimizerFastGradientClipping(optimizer, **kwargs)
        return SpectralDPOptimizer(optimizer, layers=layers, order=order, **kwargs)


def _check_amounts(noise_multiplier: float, max_grad_norm: object, clipping: str) -> None:
    if not 0 <= noise_multiplier < math.inf:
        raise SettingError(f"noise_multiplier is {noise_multiplier}", "a finite number from 0 up", "Try 1.0.")
    by_layer = isinstance(max_grad_norm, Mapping) and clipping == "per_layer"
    for bound in cast(Mapping[str, object], max_grad_norm).values() if by_layer else [max_grad_norm]:
        if not isinstance(bound, int | float) or not 0 < bound < math.inf:
            raise SettingError(
                f"max_grad_norm is {max_grad_norm}",
                "one positive number, the bound over all parameters together",
                'For a bound of every layer, pass {name: bound} with clipping="per_layer".',
            )


def _check_module(module: nn.Module, optimizer: Optimizer, grad_sample_mode: str) -> None:
    if isinstance(module, AbstractGradSampleModule):
        raise SettingError("a model that is private already", "the plain model", "Pass the model inside it.")
    if isinstance(module, DistributedDataParallel):
        raise SettingError(
            "a model in DistributedDataParallel, which adds up gradients before they have noise",
            "opacus.distributed.DifferentiallyPrivateDistributedDataParallel",
            "Wrap the model in that.",
        )
    errors = ModuleValidator.validate(module, strict=False)
    if errors:
        raise SettingError(
            "; ".join(str(error) for error in errors),
            "a model in training mode whose samples do not mix",
            "Call opacus.validators.ModuleValidator.fix(model), then make its optimizer anew.",
        )
    owners: dict[nn.Parameter, str] = {}
    for name, layer in module.named_modules():
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            raise SettingError(
                f"layer {name!r} pads with padding_mode={layer.padding_mode!r}",
                "zeros, which per-sample gradients are computed for",
                "Pad in a layer of its own, for instance nn.CircularPad2d.",
            )
        if isinstance(layer, nn.Embedding) and (layer.max_norm or layer.scale_grad_by_freq or layer.sparse):
            raise SettingError(
                f"the embedding {name!r} has max_norm, scale_grad_by_freq or sparse gradients",
                "rows that change by the noised update alone, and dense gradients sample by sample",
                "Leave the option out.",
            )
        for own, parameter in layer.named_parameters(recurse=False):
            if parameter.is_complex():
                raise SettingError(
                    f"the parameter {own!r} of {name!r} is complex",
                    "real parameters: noise is drawn in real coordinates",
                    "Store the real and the imaginary part, as torch.view_as_real does.",
                )
            if grad_sample_mode == "ghost" and parameter in owners and parameter.requires_grad:
                raise SettingError(
                    f"{name!r} shares {own!r} with {owners[parameter]!r}",
                    "parameters of one layer each: ghost clipping adds up squared norms",
                    'Use grad_sample_mode="hooks".',
                )
            owners[parameter] = name
    strangers = [p for group in optimizer.param_groups for p in group["params"] if p not in owners]
    if strangers:
        raise SettingError(
            f"an optimizer with {len(strangers)} parameters that the model does not have",
            "one made from the parameters of this model",
            "Make the optimizer after the last change to the model.",
        )


def _is_poisson(data_loader: DataLoader[Any]) -> bool:
    return isinstance(data_loader, DPDataLoader)


def _check_loader(data_loader: DataLoader[Any]) -> None:
    if _is_poisson(data_loader):
        return
    if isinstance(data_loader.dataset, IterableDataset):
        raise SettingError("an iterable data set", "one of known length", "Give samples by index.")
    sampler, batches = data_loader.sampler, data_loader.batch_sampler
    uniform = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler) and len(sampler) == len(data_loader.dataset)  # type: ignore[arg-type]
    )
    if not uniform or type(batches) not in (BatchSampler, type(None)):
        raise SettingError(
            f"a loader with {type(sampler if not uniform else batches).__name__}",
            "every sample equally likely, which the accountant assumes",
            "Use shuffle=True, in several processes too; for fewer samples, wrap the data set in "
            "torch.utils.data.Subset.",
        )


def _match(module: nn.Module, spectrum: Spectrum, grad_sample_mode: str) -> dict[nn.Module, Projection]:
    """Return the projection of every filtered layer, bound to it."""
    layers = dict(module.named_modules())
    matched: dict[nn.Module, Projection] = {}
    users = Counter(p for layer in layers.values() for p in layer.parameters(recurse=False))
    for pattern, projection in spectrum.items():
        if not isinstance(projection, Projection):
            raise SettingError(
                f"{pattern!r} is given a {type(projection).__name__}",
                "a Projection",
                'Wrap a tensor in PublicSubspace(basis, provenance="public").',
            )
        names = [name for name in layers if fnmatch.fnmatchcase(name, pattern)]
        if pattern in layers:
            names = [pattern]
        names = [name for name in names if name == pattern or fibres(layers[name])]
        if not names:
            raise UnknownNameError("layer", pattern, [name for name in layers if fibres(layers[name])])
        for name in names:
            layer = layers[name]
            allowed = fibres(layer)
            if not allowed or not layer.weight.requires_grad:
                raise SettingError(
                    f"{name!r} is a {type(layer).__name__}" + (", frozen" if allowed else ""),
                    "a trainable Linear, Conv1d, Conv2d or BlockCirculantLinear",
                    "Leave it out of the spectrum.",
                )
            if layer in matched or users[layer.weight] > 1:
                raise SettingError(
                    f"the weight of {name!r} is named twice, or shared between layers",
                    "one projection a weight",
                    "Write patterns that do not overlap.",
                )
            whole = next((parent for parent in _parents(name) if _is_opaque(layers[parent])), None)
            if grad_sample_mode == "ghost" and whole is not None:
                raise SettingError(
                    f"{name!r} lies in {whole or 'the model'!r}, whose own parameters no sampler knows",
                    "layers that hold no parameters beside other layers",
                    'Use grad_sample_mode="hooks".',
                )
            matched[layer] = projection.bind(*allowed)
    return matched


def _bounds(model: nn.Module, optimizer: Optimizer, max_grad_norm: float | Mapping[str, float]) -> Bounds:
    """Return the parameters of every layer, one that layers share with the first, and their bound."""
    left = {p for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    layers: dict[str, list[nn.Parameter]] = {}
    for name, layer in model.named_modules():
        own = [p for p in layer.parameters(recurse=False) if p in left]
        left.difference_update(own)
        if own:
            layers[name] = own
    if not isinstance(max_grad_norm, Mapping):
        return [(own, max_grad_norm / math.sqrt(len(layers))) for own in layers.values()]
    for name in max_grad_norm:
        if name not in layers:
            raise UnknownNameError("layer", name, list(layers))
    missing = [name for name in layers if name not in max_grad_norm]
    if missing:
        raise SettingError(
            f"no bound for {', '.join(map(repr, missing))}",
            "a bound for every layer that has parameters to train",
            "Add it, or pass one number, which is divided evenly.",
        )
    return [(own, float(max_grad_norm[name])) for name, own in layers.items()]


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts))]


def _is_opaque(module: nn.Module) -> bool:
    """Whether Opacus differentiates `module` as a whole, children included."""
    trainable = any(p.requires_grad for p in module.parameters(recurse=False))
    return trainable and type(module) not in GradSampleModule.GRAD_SAMPLERS
