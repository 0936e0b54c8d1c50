"""What a private step costs, beside plain SGD and Opacus in the same run.

The time of a whole step, noise included, in rounds in each of which everything is timed in turn; and the
peak of what one step allocates, from PyTorch's memory profile. Opacus draws its noise from PyTorch's
generator, the filter from the operating system's entropy.

In ghost mode memory must not grow by the parameters for every sample: the growth from one batch size to
the next, a sample, is set against the bytes of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp._circulant import convert_to_block_circulant
from spectral_dp._engine import SpectralPrivacyEngine
from spectral_dp._methods import quietly
from spectral_dp._projections import DCTLowPass, FFTLowPass, Projection
from spectral_dp.models import build, mlp
from tenfold import SettingError
from tenfold.experiment import Experiment, Record, Run, Table, interleaved

WIDTHS = (512, 256)
BLOCK = 8
Step = Callable[[], None]

FORMS = {
    "sgd": "plain SGD",
    "opacus hooks": "Opacus, hooks",
    "opacus ghost": "Opacus, ghost",
    "spectral hooks": "spectral, hooks",
    "spectral ghost": "spectral, ghost",
    "circulant hooks": "block-circulant, hooks",
    "circulant ghost": "block-circulant, ghost",
}
CONVOLUTIONAL = ("sgd", "opacus hooks", "opacus ghost", "spectral ghost")


@dataclass(frozen=True)
class Settings:
    """Settings of ``spectral-dp bench``.

    Attributes
    ----------
    batch_size : int
        Of the perceptron 784-512-256-10.
    conv_models : tuple of str
        Networks of `spectral_dp.models` with convolutions.
    conv_batch_size : int
    repeats : int
        Rounds.
    """

    batch_size: int = 256
    conv_models: tuple[str, ...] = ("lenet-5", "resnet")
    conv_batch_size: int = 64
    repeats: int = 9

    def __post_init__(self) -> None:
        if min(self.batch_size, self.conv_batch_size, self.repeats) < 1:
            raise SettingError(
                f"batches of {self.batch_size} and {self.conv_batch_size}, {self.repeats} repeats",
                "1 or more of each",
                "Correct them with --set.",
            )


def measure(run: Run[Settings]) -> None:
    """Time steps and weigh their memory, of a perceptron and of convolutions."""
    settings = run.settings
    with quietly():
        _measure(run, "mlp", FORMS, settings.batch_size)
        for model in settings.conv_models:
            _measure(run, model, CONVOLUTIONAL, settings.conv_batch_size)


def _measure(run: Run[Settings], model: str, forms: Sequence[str] | dict[str, str], batch_size: int) -> None:
    steps = {form: make_step(model, form, batch_size) for form in forms}
    for form, taken in interleaved(steps, run.settings.repeats).items():
        run.metric(f"{model}/{form}/ms", 1e3 * taken.wall)
        run.metric(f"{model}/{form}/bytes", peak_bytes(steps[form]))
        half = peak_bytes(make_step(model, form, batch_size // 2))
        growth = (run.metrics[f"{model}/{form}/bytes"] - half) / (batch_size - batch_size // 2)
        run.metric(f"{model}/{form}/bytes a sample", growth)
    parameters = sum(p.numel() * p.element_size() for p in _network(model, "sgd").parameters())
    run.metric(f"{model}/parameters/bytes", parameters)


def make_step(model: str, form: str, batch_size: int) -> Step:
    """Return a function that takes one training step on a fixed batch.

    Parameters
    ----------
    model : str
        A key of `spectral_dp.models.MODELS`; ``"mlp"`` is 784-512-256-10 here.
    form : str
        A key of `FORMS`.
    batch_size : int
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch_size, 1, 28, 28, generator=generator)
    y = torch.randint(10, (batch_size,), generator=generator)
    network = _network(model, form)
    optimizer: Any = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    private: nn.Module = network
    criterion: Any = nn.CrossEntropyLoss()
    if form != "sgd":
        kind, mode = form.split()
        engine = PrivacyEngine() if kind == "opacus" else SpectralPrivacyEngine()
        options: dict[str, Any] = {} if kind == "opacus" else {"spectrum": _spectrum(network)}
        made = engine.make_private(
            module=network,
            optimizer=optimizer,
            criterion=criterion,
            data_loader=DataLoader(TensorDataset(x, y), batch_size=batch_size),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            grad_sample_mode=mode,
            **options,
        )
        private, optimizer = made[0], made[1]
        criterion = made[2] if mode == "ghost" else criterion

    def step() -> None:
        optimizer.zero_grad()
        criterion(private(x), y).backward()
        optimizer.step()

    return step


def peak_bytes(step: Step) -> int:
    """Return the most that a step has allocated at one time, beyond what there was before it."""
    step()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    total = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            total += event.nbytes()
            peak = max(peak, total)
    return peak


def _network(model: str, form: str) -> nn.Module:
    if model != "mlp":
        return build(model, (1, 28, 28), 0)
    network: nn.Module = mlp((1, 28, 28), widths=WIDTHS)
    if form.startswith("circulant"):
        convert_to_block_circulant(network, {"1": BLOCK, "3": BLOCK, "5": BLOCK})
    return network


def _spectrum(network: nn.Module) -> dict[str, Projection]:
    chosen: dict[str, Projection] = {}
    for name, layer in network.named_modules():
        if type(layer) is nn.Linear:
            image = layer.in_features == 784
            chosen[name] = FFTLowPass(0.25, (28, 28)) if image else DCTLowPass(0.5)
        elif type(layer) is nn.Conv2d and max(layer.kernel_size) > 1:
            chosen[name] = DCTLowPass(0.6)
        elif "block" in vars(layer):
            chosen[name] = FFTLowPass(0.5)
    return chosen


def cost_table(records: Sequence[Record]) -> Table:
    """Tabulate time and memory of a step of the perceptron."""
    return _table(records, "mlp", "784-512-256-10", records[0].settings["batch_size"])


def conv_table(records: Sequence[Record]) -> Table:
    """Tabulate time and memory of a step of the networks with convolutions."""
    settings = records[0].settings
    parts = [_table(records, model, model, settings["conv_batch_size"]) for model in settings["conv_models"]]
    rows = [
        [model, *row] for model, part in zip(settings["conv_models"], parts, strict=True) for row in part.rows
    ]
    return Table(parts[0].title, ["network", *parts[0].columns], rows)


def _table(records: Sequence[Record], model: str, name: str, batch_size: int) -> Table:
    metrics, settings = records[0].metrics, records[0].settings

    def over(form: str, other: str) -> str:
        return f"{metrics[f'{model}/{form}/ms'] / metrics[f'{model}/{other}/ms']:.2f}"

    rows = [
        [
            title,
            f"{metrics[f'{model}/{form}/ms']:.1f}",
            over(form, "sgd"),
            over(form, "opacus ghost"),
            f"{metrics[f'{model}/{form}/bytes'] / 1e6:.1f}",
            f"{metrics[f'{model}/{form}/bytes a sample'] / metrics[f'{model}/parameters/bytes']:.3f}",
        ]
        for form, title in FORMS.items()
        if f"{model}/{form}/ms" in metrics
    ]
    columns = [
        "step",
        "ms",
        "over SGD",
        "over Opacus ghost",
        "peak, MB",
        "growth a sample, over the parameters",
    ]
    threads = records[0].hardware["threads"]
    subject = f"{name}, " if model == "mlp" else ""
    title = (
        f"{subject}batch {batch_size}, median of {settings['repeats']}, {threads} thread{'s' * (threads > 1)}"
    )
    return Table(title, columns, rows)


bench = Experiment(
    package="spectral-dp",
    command="bench",
    body=measure,
    quick=Settings(),
    full=Settings(repeats=31),
    tables={"cost": cost_table, "conv": conv_table},
)
