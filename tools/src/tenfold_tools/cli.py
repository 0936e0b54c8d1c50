"""The command line `tenfold-tools`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tenfold.errors import TenfoldError
from tenfold.experiment.cli import CommandLine
from tenfold_tools import bench as benchmarks
from tenfold_tools import docs as documentation
from tenfold_tools import layers as contracts
from tenfold_tools import new as scaffolding
from tenfold_tools import release as releases
from tenfold_tools import reproduce as reproduction
from tenfold_tools import tables as readme_tables
from tenfold_tools import tag as tags
from tenfold_tools._workspace import find_root

app = CommandLine(help="Programs of the tenfold workspace.")

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Root = Annotated[Path | None, typer.Option(help="Workspace. Default: the one that the current folder is in.")]
Reports = Annotated[Path, typer.Option(help="Folder of the reports.")]


@app.command()
def reproduce(
    names: Annotated[list[str] | None, typer.Argument(help="Packages. Default: all installed.")] = None,
    reports: Reports = Path("reports"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each experiment.")] = 3,
    workers: Annotated[int | None, typer.Option(min=1, help="Runs at a time. Default: one a core.")] = None,
    debug: Debug = False,
) -> None:
    """Run every package's quick experiment and write reports/index.html."""
    console = Console(stderr=True)
    outcomes = reproduction.reproduce(
        names or [], reports, seeds, workers or min(seeds, len(os.sched_getaffinity(0))), console
    )
    typer.echo(f"report: {reports / 'index.html'}")
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def tables(
    check: Annotated[bool, typer.Option("--check", help="Only say what differs.")] = False,
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Write every README's result tables from the run records."""
    workspace = root or find_root(Path.cwd())
    if not check:
        for path in readme_tables.write(workspace):
            typer.echo(f"wrote {path.relative_to(workspace)}")
        return
    errors = readme_tables.stale(workspace)
    for error in errors:
        typer.echo(f"error: {error}", err=True)
    if errors:
        raise typer.Exit(TenfoldError.exit_code)


@app.command()
def layers(root: Root = None, debug: Debug = False) -> None:
    """Check who imports whom."""
    raise typer.Exit(contracts.check(root or find_root(Path.cwd())))


@app.command()
def docs(root: Root = None, debug: Debug = False) -> None:
    """Build the documentation site into build/docs/html and check its links."""
    workspace = root or find_root(Path.cwd())
    typer.echo(f"site: {documentation.build(workspace).relative_to(workspace)}")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Distribution name, as in slr-prune.")],
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Write a new package that passes every check as it is."""
    workspace = root or find_root(Path.cwd())
    folder = scaffolding.new(workspace, name).relative_to(workspace)
    typer.echo(f"wrote {folder}; `make lint types test reproduce` checks it")
    typer.echo("to keep it: put the paper's method in, its paper into CITATION.cff, and run tools/uv lock")
    typer.echo(f"to undo: rm -r {folder}")


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Packages. Default: all installed.")] = None,
    reports: Reports = Path("reports"),
    debug: Debug = False,
) -> None:
    """Run every benchmark and keep its records in reports/bench/."""
    failed = benchmarks.bench(names or [], reports)
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


@app.command()
def release(
    name: Annotated[str, typer.Argument(help="Distribution, as in slr-prune.")],
    version: Annotated[
        str | None, typer.Argument(help="x.y.z. Default: the one in its pyproject.toml.")
    ] = None,
    for_real: Annotated[
        bool, typer.Option("--for-real", help="Push commit and tag, upon which the workflow publishes.")
    ] = False,
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Build a distribution, try it out as a user would, and tag it; a dry run unless for real."""
    releases.release(
        root or find_root(Path.cwd()), name, version, for_real=for_real, tell=lambda text: typer.echo(text)
    )


@app.command()
def tag(
    tag: Annotated[str, typer.Argument(help="<distribution>-v<version>")],
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Print what a tag releases, as name=value lines; fail when its version is another one."""
    workspace = root or find_root(Path.cwd())
    found = tags.plan(workspace, tag)
    typer.echo(f"name={found.name}")
    typer.echo(f"folder={found.folder.relative_to(workspace).as_posix()}")
    typer.echo(f"native={str(found.native).lower()}")
