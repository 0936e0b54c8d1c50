"""The command ``tango-gnn inspect``: the quantisation error of every layer, and the bits that it takes.

The relative error of a tensor x is ``|x - x^|_1 / |x|_1``, x^ being x quantised and dequantised, and 0 where
x = 0. It is measured on what a layer gets and gives in a step of training in float32, so that the errors of
one layer do not come from those before it.
"""

from __future__ import annotations

import json as encoder
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from tango_gnn import datasets
from tango_gnn._bits import NARROWEST, WIDEST, choose_bits
from tango_gnn._models import MODELS, TITLES, build
from tango_gnn._policy import Policy
from tango_gnn._quantized import relative_error
from tango_gnn._training import Schedule, Task, node_task, train
from tango_gnn.nn import quantized_layers
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Table, write_json
from tenfold.experiment.cli import show


def inspect_command(
    dataset: Annotated[str, typer.Option(help=f"Data set, say {', '.join(datasets.NAMES)}.")] = "digits",
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "gcn-2",
    epochs: Annotated[
        int, typer.Option(min=0, help="Epochs of training before measuring; 0 is the first step.")
    ] = 0,
    hidden: Annotated[int, typer.Option(min=1, help="Width between layers.")] = 64,
    heads: Annotated[int, typer.Option(min=1, help="Heads of attention, which divide the width.")] = 8,
    rounding: Annotated[Literal["stochastic", "nearest"], typer.Option(help="How to round.")] = "stochastic",
    max_error: Annotated[float, typer.Option(help="Bound of the error for the choice of bits.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Of the weights, the dropout and the rounding.")] = 0,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - for stdout.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Tabulate the quantisation error of every layer, and the smallest width that its input allows.

    The width is what bits="auto" takes: the smallest from 4 to 8 bits at which the relative error of the
    layer's input is below the bound.
    """
    if model not in MODELS:
        raise UnknownNameError("model", model, MODELS)
    if hidden % heads:
        raise SettingError(f"{heads} heads of a width of {hidden}", "a divisor", "Change one of them.")
    policy = Policy(rounding=rounding, max_error=max_error, generator=torch.Generator().manual_seed(seed))
    task = node_task(datasets.load(dataset, seed=seed))
    network = build(model, task.features.shape[1], task.outputs, hidden, heads, 0.5, Policy.off(), seed)
    train(network, task, Schedule(epochs, lr=0.01, weight_decay=5e-4), seed)
    document = {
        "dataset": dataset,
        "model": model,
        "epochs": epochs,
        "rounding": rounding,
        "max_error": max_error,
        "layers": errors(network, task, policy, seed),
    }
    show([inspect_table(document)], Console(stderr=json == "-"))
    if json == "-":
        sys.stdout.write(encoder.dumps(document, indent=1) + "\n")
    elif json is not None:
        write_json(Path(json), document)


def errors(network: nn.Module, task: Task, policy: Policy, seed: int) -> list[dict[str, Any]]:
    """Measure the relative errors of every layer in one step of training.

    Parameters
    ----------
    network : Module
        Whose layers compute in float32.
    task : Task
    policy : Policy
        Whose rounding and bound to use.
    seed : int
        Of the dropout.

    Returns
    -------
    list of dict
        Of every layer its ``name``; the ``input``'s errors from 4 to 8 bits; at 8 bits those of its
        ``weight`` (the worst of its matrices) and of the ``gradient`` of its result; and the ``bits`` chosen.
    """
    inputs: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, arguments: tuple[Any, ...], result: Tensor) -> None:
            inputs[name] = arguments[1].detach()
            result.register_hook(lambda gradient: gradients.update({name: gradient}))

        return hook

    layers = quantized_layers(network)
    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    network.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        result = network(task.graph, task.features)
        task.loss(result, torch.Generator().manual_seed(seed)).backward()
    for handle in handles:
        handle.remove()
    widest = replace(policy, bits=WIDEST)
    return [
        {
            "name": name,
            "input": {
                str(bits): relative_error(inputs[name], replace(policy, bits=bits))
                for bits in range(WIDEST, NARROWEST - 1, -1)
            },
            "weight": max(
                (
                    relative_error(weight.detach(), widest)
                    for weight in layer.parameters()
                    if weight.dim() > 1
                ),
                default=0.0,
            ),
            "gradient": relative_error(gradients[name], widest),
            "bits": choose_bits(inputs[name], policy),
        }
        for name, layer in layers.items()
    ]


def inspect_table(document: Mapping[str, Any]) -> Table:
    """Tabulate the document of the command, a row a layer."""
    widths = list(document["layers"][0]["input"])
    rows = [
        [
            layer["name"],
            *(f"{layer['input'][bits]:.4f}" for bits in widths),
            f"{layer['weight']:.4f}",
            f"{layer['gradient']:.4f}",
            str(layer["bits"]),
        ]
        for layer in document["layers"]
    ]
    title = (
        f"relative errors of {TITLES[document['model']]}, {document['dataset']}, after {document['epochs']} "
        f"epochs, {document['rounding']} rounding; bits for an error below {document['max_error']:g}"
    )
    columns = [
        "layer",
        *(f"input, {bits} bits" for bits in widths),
        "weight, 8 bits",
        "gradient, 8 bits",
        "bits",
    ]
    return Table(title, columns, rows)
