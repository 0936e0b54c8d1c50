"""What pruning costs and what it gains, each against plain torch in the same run.

- The time of a training step with each pruner over a plain step.
- The time of a model whose coupled channels were removed, over the dense one, and of the same model
  with masks alone, as torch.nn.utils.prune leaves it.
- The time of the sparse layers over the dense one, and of torch.sparse in their place.
- The size of files over what is left of the weights.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from slr_prune._admm import ADMMPruner
from slr_prune._compact import remove_channels
from slr_prune._files import save
from slr_prune._gradual import GradualPruner
from slr_prune._oneshot import OneShotPruner
from slr_prune._pruner import Pruner
from slr_prune._slr import SLRPruner
from slr_prune._speed import DENSE, layer_speed
from slr_prune.models import INPUTS, TARGETS, build
from tenfold.experiment import Experiment, Record, Run, Table, estimate

PRUNERS = ("plain", "slr", "slr penalty", "admm", "gmp")


@dataclass(frozen=True)
class Settings:
    """Settings of ``slr-prune bench``.

    Attributes
    ----------
    models : tuple of str
        Names of `slr_prune.models.MODELS` for the training step.
    batch_size : int
    repeats : int
        Rounds, in each of which everything is timed in turn.
    seconds : float
        Training steps of a timing: as many as a plain model does in this time.
    compact_model : str
        Whose coupled channels are removed.
    channels : float
        Fraction of them.
    batches : tuple of int
        Batch sizes of the forward pass of that model.
    """

    models: tuple[str, ...] = ("lenet-300-100", "lenet-5", "resnet-20")
    batch_size: int = 128
    repeats: int = 7
    seconds: float = 0.5
    compact_model: str = "resnet-20"
    channels: float = 0.7
    batches: tuple[int, ...] = (1, 128)


def measure(run: Run[Settings]) -> None:
    """Time training steps, smaller models and sparse layers; weigh files."""
    overhead(run)
    model_speed(run)
    for row in layer_speed(repeats=4 * run.settings.repeats + 3, threads=run.threads, seed=run.seed):
        run.metric(f"{row.layer}/{row.batch}/{row.form}/ms", row.milliseconds)
    file_sizes(run)


def overhead(run: Run[Settings]) -> None:
    """Time a training step with each pruner against a plain step."""
    settings = run.settings
    generator = torch.Generator().manual_seed(run.seed)
    for name in settings.models:
        x = torch.randn(settings.batch_size, *INPUTS[name], generator=generator)
        y = torch.randint(10, (settings.batch_size,), generator=generator)
        steps = max(2, round(settings.seconds / _step_seconds(name, "plain", x, y, 2, run.seed)))
        seconds: dict[str, list[float]] = {method: [] for method in PRUNERS}
        for _ in range(settings.repeats):
            for method in PRUNERS:
                seconds[method].append(_step_seconds(name, method, x, y, steps, run.seed))
        plain = statistics.median(seconds["plain"])
        run.metric(f"{name}/plain step, ms", 1000 * plain)
        for method in PRUNERS[1:]:
            run.metric(f"{name}/{method} over plain", statistics.median(seconds[method]) / plain)


def model_speed(run: Run[Settings]) -> None:
    """Time the forward pass of a model with masked and with removed channels against the dense one."""
    settings, name = run.settings, run.settings.compact_model
    generator = torch.Generator().manual_seed(run.seed)
    example = torch.randn(2, *INPUTS[name], generator=generator)
    dense, masked = build(name, run.seed).eval(), build(name, run.seed).eval()
    OneShotPruner(masked, settings.channels, structure="filter", example_inputs=example).finalize()
    forms = {"dense": dense, "masked": masked, "compact": remove_channels(masked, example)}
    for form, model in forms.items():
        run.metric(f"{name}/parameters, {form}", sum(item.numel() for item in model.parameters()))
    for batch in settings.batches:
        x = torch.randn(batch, *INPUTS[name], generator=generator)
        seconds: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(settings.repeats):
            for form, model in forms.items():
                seconds[form].append(_forward_seconds(model, x))
        for form in forms:
            run.metric(f"{name}/{batch}/{form}, ms", 1000 * statistics.median(seconds[form]))
            if form != "dense":
                ratio = statistics.median(seconds["dense"]) / statistics.median(seconds[form])
                run.metric(f"{name}/{batch}/dense over {form}", ratio)


def file_sizes(run: Run[Settings]) -> None:
    """Weigh the files of a pruned linear layer against the bytes of the weights that are left."""
    for structure, sparsity in (("irregular", 0.9), ("irregular", 0.95), ("block", 0.95), ("filter", 0.9)):
        layer = nn.Linear(4096, 1024, bias=False)
        model = nn.Sequential(layer)
        OneShotPruner(model, sparsity, structure=structure).finalize()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "layer.pt")
            save(model, path)
            size = path.stat().st_size
        left = 4 * int(torch.count_nonzero(layer.weight))
        run.metric(f"file/{structure} {sparsity:.0%}/bytes", size)
        run.metric(f"file/{structure} {sparsity:.0%}/over what is left", size / left)


def _step_seconds(name: str, method: str, x: torch.Tensor, y: torch.Tensor, steps: int, seed: int) -> float:
    model = build(name, seed)
    targets = TARGETS[name, "irregular"]
    pruner: Pruner | None = None
    if method.startswith("slr"):
        pruner = SLRPruner(model, targets)
    elif method == "admm":
        pruner = ADMMPruner(model, targets)
    elif method == "gmp":
        pruner = GradualPruner(model, targets, steps=steps)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    started = 0.0
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        loss = F.cross_entropy(model(x), y)
        if pruner is not None and method.endswith("penalty"):
            loss = loss + pruner.penalty()
        optimizer.zero_grad()
        loss.backward()
        if pruner is not None and not method.endswith("penalty"):
            pruner.add_gradient()
        optimizer.step()
        if pruner is not None:
            pruner.constrain()
    return (time.perf_counter() - started) / steps


@torch.inference_mode()
def _forward_seconds(model: nn.Module, x: torch.Tensor) -> float:
    model(x)
    started = time.perf_counter()
    model(x)
    return time.perf_counter() - started


def overhead_table(records: Sequence[Record]) -> Table:
    """Tabulate the time of a training step relative to a plain one."""
    settings = records[0].settings
    rows = [
        [
            model,
            _mean(records, f"{model}/plain step, ms", 3),
            *(_mean(records, f"{model}/{method} over plain") for method in PRUNERS[1:]),
        ]
        for model in settings["models"]
    ]
    title = (
        f"Time of a training step over a plain torch step, batch {settings['batch_size']}, "
        f"median of {settings['repeats']}, {_threads(records)}"
    )
    return Table(title, ["model", "plain step, ms", "SLR", "SLR by penalty()", "ADMM", "GMP"], rows)


def models_table(records: Sequence[Record]) -> Table:
    """Tabulate the forward pass of a model without its pruned channels."""
    settings = records[0].settings
    name = settings["compact_model"]
    rows = [
        [
            form,
            _mean(records, f"{name}/parameters, {form}", 0),
            *(
                text
                for batch in settings["batches"]
                for text in (
                    _mean(records, f"{name}/{batch}/{form}, ms", 3),
                    "1" if form == "dense" else _mean(records, f"{name}/{batch}/dense over {form}"),
                )
            ),
        ]
        for form in ("dense", "masked", "compact")
    ]
    columns = ["model", "parameters"]
    for batch in settings["batches"]:
        columns += [f"batch {batch}, ms", f"dense over it, batch {batch}"]
    title = (
        f"Forward pass of {name}, {settings['channels']:.0%} of coupled channels pruned, "
        f"median of {settings['repeats']}, {_threads(records)}"
    )
    return Table(title, columns, rows)


def layers_table(records: Sequence[Record]) -> Table:
    """Tabulate how many times faster than the dense layer each form is."""
    keys = [name.split("/") for name in records[0].metrics if name.startswith(("linear/", "convolution/"))]
    batches = sorted({int(batch) for layer, batch, *_ in keys if layer == "linear"})
    rows = []
    for layer in ("linear", "convolution"):
        for form in dict.fromkeys(key[2] for key in keys if key[0] == layer):
            times = [_milliseconds(records, layer, batch, form) for batch in batches]
            dense = [_milliseconds(records, layer, batch, DENSE) for batch in batches]
            rows.append(
                [
                    "3 x 3 convolution" if layer == "convolution" else layer,
                    form,
                    *(
                        "–"
                        if time is None or base is None
                        else f"{time:.3f} ms"
                        if form == DENSE
                        else f"{base / time:.2f}"
                        for time, base in zip(times, dense, strict=True)
                    ),
                ]
            )
    columns = ["layer", "form", *(f"batch {batch}" for batch in batches)]
    return Table(
        "Dense layer's time over that of each form; linear 1024 x 4096, convolution of 128 channels at "
        f"32 x 32; {_threads(records)}",
        columns,
        rows,
    )


def files_table(records: Sequence[Record]) -> Table:
    """Tabulate the size of files."""
    forms = [
        name.split("/")[1]
        for name in records[0].metrics
        if name.startswith("file/") and name.endswith("/bytes")
    ]
    rows = [
        [form, _mean(records, f"file/{form}/bytes", 0), _mean(records, f"file/{form}/over what is left")]
        for form in forms
    ]
    return Table(
        "File of a 1024 x 4096 float32 layer (16,777,216 bytes dense)",
        ["pruned", "bytes", "over the bytes of the weights left"],
        rows,
    )


def _mean(records: Sequence[Record], metric: str, digits: int = 2) -> str:
    return estimate([record.metrics[metric] for record in records], digits)


def _milliseconds(records: Sequence[Record], layer: str, batch: int, form: str) -> float | None:
    name = f"{layer}/{batch}/{form}/ms"
    found = [record.metrics[name] for record in records if name in record.metrics]
    return statistics.fmean(found) if found else None


def _threads(records: Sequence[Record]) -> str:
    threads = records[0].hardware["threads"]
    return f"{threads} thread{'s' * (threads > 1)}"


bench = Experiment(
    package="slr-prune",
    command="bench",
    body=measure,
    quick=Settings(),
    full=Settings(repeats=25, seconds=2.0),
    tables={
        "overhead": overhead_table,
        "models": models_table,
        "layers": layers_table,
        "files": files_table,
    },
)
