"""``python -m tenfold``: what this machine is, which kernels it picks, how fast they are."""

import json as json_library
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tenfold.experiment.cli import CommandLine, command_line

app = CommandLine(help="Kernels and hardware under the tenfold packages.")

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")]


@app.command()
def hardware(json: AsJson = False) -> None:
    """Show what this machine is, and which hardware models are registered."""
    from tenfold import hardware

    here = hardware.describe(import_torch=True).as_dict()
    here["models"] = list(hardware.models())
    if json:
        typer.echo(json_library.dumps(here, indent=2))
        return
    gib = here["memory_bytes"] / 2**30
    devices = (f"{device['name']} ({device['capability']})" for device in here["cuda"])
    table = Table(show_header=False)
    table.add_row("processor", f"{here['cpu']} ({here['architecture']})")
    table.add_row("features", " ".join(here["features"]))
    table.add_row("cores", f"{here['physical_cores']} physical, {here['logical_cores']} logical")
    table.add_row("memory", f"{gib:.1f} GiB")
    table.add_row("CUDA", ", ".join(devices) or "none")
    table.add_row("models", ", ".join(here["models"]) or "none")
    Console().print(table)


@app.command()
def kernels(json: AsJson = False) -> None:
    """List the operators, their implementations, and which one this machine picks."""
    from tenfold import kernels

    rows: list[dict[str, Any]] = [
        {
            "operator": operator.name,
            "summary": operator.summary,
            "implementations": [name for name in kernels.IMPLEMENTATIONS if name in operator.implementations],
            "picks": kernels.picks(operator.name),
        }
        for operator in kernels.operators()
    ]
    if json:
        document = {"instruction_sets": list(kernels.instruction_sets()), "operators": rows}
        typer.echo(json_library.dumps(document, indent=2))
        return
    table = Table("operator", "computes", "implementations", "picked here")
    for row in rows:
        picks = ", ".join(f"{name} ({device})" for device, name in row["picks"].items())
        table.add_row(row["operator"], row["summary"], ", ".join(row["implementations"]), picks)
    Console().print(table)


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench(context: typer.Context) -> None:
    """Time the kernels against torch.sparse."""
    from tenfold.kernels._bench import bench as experiment

    command_line(experiment, help="Kernels against torch.sparse.")(
        ["bench", *context.args], prog_name="python -m tenfold"
    )


if __name__ == "__main__":
    app()
