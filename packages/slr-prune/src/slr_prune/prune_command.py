"""The command ``slr-prune prune``: a user's own model, made small, measured and written."""

from __future__ import annotations

import contextlib
import hashlib
import json as encoder
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import nn

from slr_prune._cost import cost
from slr_prune._example import ExampleInputs, run_model
from slr_prune._exported import read_program
from slr_prune._files import save
from slr_prune._latency import latency
from slr_prune._onnx import export_onnx
from slr_prune._program import export_program
from slr_prune._schemes import METHODS
from slr_prune._user_data import Images, read_images
from slr_prune._user_model import build_model, load_weights
from slr_prune._user_run import TARGETS, PruneSettings, accuracy, check_outputs, prune_model
from tenfold import DataError, OutputError, SettingError
from tenfold.experiment import Run, Table, write_json
from tenfold.experiment.cli import INTERRUPTED, progress, show

_PROGRAM = ".pt2"


def prune(
    file: Annotated[
        Path, typer.Argument(metavar="MODEL", help="State dict (.pt), or program of torch.export (.pt2).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the weights that are left.")],
    model: Annotated[
        str, typer.Option(help="Who the state dict is of: resnet50, resnet-20, or mypkg.nets:make.")
    ] = "",
    classes: Annotated[int | None, typer.Option(min=1, help="Outputs of a torchvision model.")] = None,
    example: Annotated[str, typer.Option(help="Shape of an input, batch first: 1,3,224,224.")] = "",
    sparsity: Annotated[float | None, typer.Option(help="Fraction to remove.")] = None,
    layer: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN=FRACTION", help="For some layers; repeatable.")
    ] = None,
    targets: Annotated[str, typer.Option(help=f"Sharing it out: {', '.join(TARGETS)}.")] = "uniform",
    structure: Annotated[str, typer.Option(help="filter, irregular, block, 2:4, ...")] = "filter",
    ignore: Annotated[list[str] | None, typer.Option(help="Layers to leave dense; repeatable.")] = None,
    round_to: Annotated[int, typer.Option(help="Keep a multiple of this many channels.")] = 1,
    milliseconds: Annotated[
        float | None, typer.Option("--latency", help="Milliseconds of a call, instead of a sparsity.")
    ] = None,
    speedup: Annotated[float | None, typer.Option(help="Over the dense model, likewise.")] = None,
    method: Annotated[str, typer.Option(help=f"{', '.join(METHODS)}; all but oneshot need --data.")] = "",
    data: Annotated[str, typer.Option(help="Folder of images by class, or a name of tenfold.data.")] = "",
    mean: Annotated[str, typer.Option(help="To normalise a folder's images: by channel, from 0 to 1.")] = "",
    std: Annotated[str, typer.Option(help="Standard deviations, likewise.")] = "",
    epochs: Annotated[int, typer.Option(help="Epochs with the pruner.")] = 10,
    retrain_epochs: Annotated[int, typer.Option(help="Epochs after, under the masks.")] = 0,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.01,
    rho: Annotated[float, typer.Option(help="Penalty of slr and admm.")] = 0.03,
    batch_size: Annotated[int, typer.Option(help="Images a batch.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the order of images, and of dropout.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="Write an ONNX file as well.")] = None,
    program: Annotated[Path | None, typer.Option(help="Write a program of torch.export as well.")] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - for stdout.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Prune a model of your own, and write it smaller.

    Without --data there is nothing to train on, and only --method oneshot is possible. With it,
    checkpoints lie in the folder OUTPUT.run until the end.
    """
    record = None if json in (None, "-") else Path(json)
    _check_outputs([path for path in (output, onnx, program, record) if path is not None], force)
    is_program = file.suffix == _PROGRAM
    torch.set_num_threads(threads or torch.get_num_threads())
    settings = PruneSettings(
        model=model,
        weights=_digest(file),
        example=_numbers("--example", example, int),
        structure=structure,
        method=method or ("slr" if data and not is_program else "oneshot"),
        targets=targets,
        sparsity=sparsity,
        layers=_fractions(layer or []),
        ignored_layers=tuple(ignore or []),
        round_to=round_to,
        milliseconds=milliseconds,
        speedup=speedup,
        epochs=epochs,
        retrain_epochs=retrain_epochs,
        batch_size=batch_size,
        lr=lr,
        rho=rho,
    )
    dense, example_inputs = _read_model(file, settings, classes)
    run_model(dense, example_inputs)
    train, test = (None, None)
    if data:
        train, test = _read_data(data, dense, example_inputs, mean, std)
    if is_program and (settings.method != "oneshot" or retrain_epochs):
        raise SettingError(
            f"method {settings.method!r} with {retrain_epochs} epochs of retraining for a program",
            "--method oneshot --retrain-epochs 0, since a program knows no training mode",
            "Prune the state dict of the model it was made of.",
        )

    def measure(candidate: nn.Module, bytes_on_disk: int) -> dict[str, Any]:
        figures = {}
        if test is not None:
            size = _batch(example_inputs) if is_program else batch_size
            figures["accuracy"] = accuracy(candidate, test, size, whole=is_program)
        counted = cost(candidate, example_inputs)
        return {
            **figures,
            "parameters": counted.parameters,
            "nonzero": counted.nonzero,
            "macs": counted.macs,
            "milliseconds": latency(candidate, example_inputs),
            "file_bytes": bytes_on_disk,
        }

    before = measure(dense, file.stat().st_size)
    folder = output.with_name(f"{output.name}.run")
    if not resume:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    try:
        with progress() as notify:
            run = Run(settings, data, seed, torch.get_num_threads(), folder, notify)
            outcome = prune_model(run, dense, example_inputs, train)
    except KeyboardInterrupt:
        again = [*sys.argv[1:], *([] if resume else ["--resume"])]
        Console(stderr=True).print(
            f"interrupted; go on with: {shlex.join([Path(sys.argv[0]).name, *again])}", soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED) from None
    exported = example_inputs if is_program else _with_open_batch(example_inputs)
    writers: dict[Path, Callable[[Path], None]] = {output: lambda path: save(outcome.model, path)}
    if onnx is not None:
        writers[onnx] = lambda path: export_onnx(outcome.model, path, exported)
    if program is not None:
        writers[program] = lambda path: export_program(outcome.model, path, exported)
    _write_all(writers)
    after = measure(outcome.model, output.stat().st_size)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    document: dict[str, Any] = {
        "settings": {**asdict(settings), "data": data, "seed": seed, "threads": torch.get_num_threads()},
        "sparsity": outcome.sparsity,
        "found_sparsity": outcome.found,
        "history": run.history,
        "dense": before,
        "pruned": after,
    }
    _present(document, json, record)


def _read_model(file: Path, settings: PruneSettings, classes: int | None) -> tuple[nn.Module, ExampleInputs]:
    model: nn.Module
    example: ExampleInputs | None
    shape: tuple[int, ...] | None = None
    if file.suffix == _PROGRAM:
        if settings.model or classes is not None:
            raise SettingError(
                "--model or --classes with a program", "neither: it builds itself", "Leave them out."
            )
        model, example = read_program(file)
    else:
        if not settings.model:
            raise SettingError(
                f"{file} without --model", "who its weights are of", "Write --model resnet50, for example."
            )
        model, shape = build_model(settings.model, classes)
        model = load_weights(model, file)
        example = None
    if settings.example or shape:
        generator = torch.Generator().manual_seed(0)
        example = torch.randn(settings.example or (1, *(shape or ())), generator=generator)
    if example is None:
        raise SettingError(
            f"model {settings.model!r} without --example",
            "the shape of an input, which the name does not tell",
            "Write --example 1,3,224,224, the batch first.",
        )
    return model, example


def _read_data(
    name: str, model: nn.Module, example_inputs: ExampleInputs, mean: str, std: str
) -> tuple[Images, Images]:
    if not isinstance(example_inputs, torch.Tensor):
        raise SettingError(
            "--data for a model of several inputs", "one that takes a batch of images", "Leave --data out."
        )
    train, test = read_images(
        name,
        example_inputs.shape[1:],
        mean=_numbers("--mean", mean, float),
        deviation=_numbers("--std", std, float),
    )
    for images in (train, test):
        check_outputs(model, example_inputs, images)
    return train, test


def _with_open_batch(example_inputs: ExampleInputs) -> ExampleInputs:
    """Return a batch of two where it was one, which exports take for a constant."""
    if isinstance(example_inputs, torch.Tensor) and len(example_inputs) == 1:
        return torch.cat([example_inputs, example_inputs])
    return example_inputs


def _batch(example_inputs: ExampleInputs) -> int:
    assert isinstance(example_inputs, torch.Tensor)
    return len(example_inputs)


def _check_outputs(paths: Sequence[Path], force: bool) -> None:
    for path in paths:
        if path.is_dir() or (path.exists() and not force):
            raise OutputError(
                f"{path} exists", "a file that does not", "Choose another name, or replace it with --force."
            )
    if len({path.resolve() for path in paths}) < len(paths):
        raise SettingError("one file for several outputs", "a file for each", "Choose different names.")


def _write_all(writers: Mapping[Path, Callable[[Path], None]]) -> None:
    """Write all files, or none of them."""
    staged = {path: path.with_name(f".{path.stem}.staged{path.suffix}") for path in writers}
    try:
        for path, write in writers.items():
            write(staged[path])
        for path, temporary in staged.items():
            temporary.replace(path)
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror or error})",
            "a state dict (.pt) or a program (.pt2)",
            "Check the path.",
        ) from error


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        values = tuple(kind(part) for part in text.split(",")) if text else ()
        if kind is int and any(value < 1 for value in values):
            raise ValueError
    except ValueError as error:
        raise SettingError(
            f"{option} {text}",
            "whole numbers from 1 on, separated by commas" if kind is int else "numbers separated by commas",
            f"Write {option} {'1,3,224,224' if kind is int else '0.5,0.5,0.5'}.",
        ) from error
    return values


def _fractions(assignments: Sequence[str]) -> dict[str, float]:
    found = {}
    for assignment in assignments:
        pattern, _, text = assignment.rpartition("=")
        try:
            found[pattern] = float(text)
        except ValueError:
            pattern = ""
        if not pattern:
            raise SettingError(f"--layer {assignment}", "PATTERN=FRACTION", "Write --layer 'layer3.*=0.9'.")
    return found


_ROWS = {
    "accuracy": ("accuracy, %", "{:.2f}"),
    "parameters": ("parameters", "{:,}"),
    "nonzero": ("nonzero parameters", "{:,}"),
    "macs": ("MACs", "{:,}"),
    "milliseconds": ("milliseconds", "{:.3f}"),
    "file_bytes": ("bytes of the file", "{:,}"),
}


def prune_table(document: Mapping[str, Any]) -> Table:
    """Tabulate what the command measured of the dense and the pruned model."""
    dense, pruned = document["dense"], document["pruned"]
    rows = []
    for name, (label, form) in _ROWS.items():
        if name in dense:
            ratio = "" if name == "accuracy" or not pruned[name] else f"{dense[name] / pruned[name]:.2f}x"
            rows.append([label, form.format(dense[name]), form.format(pruned[name]), ratio])
    settings = document["settings"]
    threads = f"{settings['threads']} thread{'s' * (settings['threads'] > 1)}"
    title = f"{settings['method']}, {settings['structure']}; times of {threads}"
    return Table(title, ["", "dense", "pruned", "dense / pruned"], rows)


def _present(document: Mapping[str, Any], json: str | None, record: Path | None) -> None:
    console = Console(stderr=json == "-")
    if document["found_sparsity"] is not None:
        console.print(f"sparsity found: {document['found_sparsity']:g}")
    show([prune_table(document)], console)
    if json == "-":
        sys.stdout.write(encoder.dumps(document, indent=1) + "\n")
    if record is not None:
        write_json(record, document)
