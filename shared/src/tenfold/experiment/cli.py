"""The command line that the packages share.

``command_line(run, bench)`` makes one subcommand of every experiment, all with the same options.
A package adds commands of its own to the returned `CommandLine`, which is a typer application
that shows a `TenfoldError` as its message and leaves with its exit code.
"""

import dataclasses
import importlib
import os
import shlex
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tenfold.errors import SettingError, TenfoldError, UnknownNameError
from tenfold.experiment._experiment import Experiment
from tenfold.experiment._ray import RayCluster
from tenfold.experiment._record import Record, as_json, write_json
from tenfold.experiment._sweep import Engine, InProcess, Job, LocalProcesses, Notify, sweep
from tenfold.experiment._table import Table

INTERRUPTED = 130

EngineName = Literal["local", "ray"]


class CommandLine(typer.Typer):
    """A typer application whose `TenfoldError` end as a message and an exit code.

    Any command of it that has a ``--debug`` flag shows the traceback when the flag is given.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, **settings
        )

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """Run the application and leave the process."""
        try:
            return super().__call__(*arguments, **settings)
        except TenfoldError as error:
            if "--debug" in sys.argv:
                raise
            Console(stderr=True).print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True)
            sys.exit(error.exit_code)


def command_line(*experiments: Experiment[Any], help: str) -> CommandLine:  # noqa: A002
    """Make the command line of a package.

    Parameters
    ----------
    *experiments : Experiment
        Each becomes the subcommand `Experiment.command`.
    help : str
        One sentence on the package.
    """
    app = CommandLine(help=help)

    @app.callback()
    def main() -> None:
        pass

    for experiment in experiments:
        _add(app, experiment)
    return app


def show(tables: Sequence[Table], console: Console) -> None:
    """Print tables, at their full width where the output is not a terminal."""
    if not console.is_terminal:
        console.width = 200
    for table in tables:
        console.print(table.rich())


def write_document(document: Any, json: str | None) -> None:
    """Write what a command found where its ``--json`` says.

    Parameters
    ----------
    document : object
        Of what JSON has, without NaN and infinity.
    json : str or None
        A file, ``"-"`` for standard output, or None for nowhere.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    if json == "-":
        sys.stdout.write(as_json(document))
    elif json is not None:
        write_json(Path(json), document)


def user_function(name: str) -> Callable[..., Any]:
    """Import the function that ``module:function`` names, from this folder or the environment.

    Raises
    ------
    SettingError
        The name is of another form, or its module cannot be imported.
    UnknownNameError
        The module has no such function.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise SettingError(
            f"function {name!r}", "module:function", "Write mymodule:step for step in mymodule.py."
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module: Any = importlib.import_module(module_name)
    except Exception as error:  # importing a module runs whatever it holds
        raise SettingError(
            f"module {module_name!r} of {name!r} cannot be imported ({error})",
            "an installed module, or one in this folder",
            "Run the command where python -c 'import MODULE' works.",
        ) from error
    function: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownNameError(f"function in {module_name!r}", attribute, known)
    return function


@contextmanager
def progress() -> Iterator[Notify]:
    """Show a progress bar a stage on standard error; yields what `sweep` takes as `notify`.

    Where standard error is not a terminal, the end of every stage is one line.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # A thread that draws may collect what LLVM left, and wait for ever for the lock of a compilation.
    with Progress(*columns, console=console, disable=not console.is_terminal, auto_refresh=False) as bars:
        tasks: dict[str, Any] = {}

        def notify(stage: str, done: int, total: int) -> None:
            if stage not in tasks or done == 1:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, refresh=True)
            if done == total and not console.is_terminal:
                console.print(f"{stage}: {total} of {total}")

        yield notify


def _add(app: CommandLine, experiment: Experiment[Any]) -> None:
    program = f"{experiment.program or experiment.package} {experiment.command}"
    default_dataset = experiment.datasets[0] if experiment.datasets else ""
    cores = len(os.sched_getaffinity(0))
    summary = (experiment.body.__doc__ or experiment.command).split("\n")[0]
    names = f"One of {', '.join(experiment.datasets)}." if experiment.datasets else "Takes none."

    @app.command(experiment.command, help=summary, epilog=_settings_help(experiment))
    def command(
        quick: Annotated[
            bool, typer.Option("--quick/--full", help="Small settings, or the whole ones.")
        ] = True,
        dataset: Annotated[str, typer.Option(help=f"Data set. {names}")] = default_dataset,
        seed: Annotated[int, typer.Option(help="First seed.")] = 0,
        seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, one run each.")] = 1,
        settings: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="NAME=VALUE", help="Change one setting; repeatable."),
        ] = None,
        threads: Annotated[
            int | None, typer.Option(min=1, help=f"Threads a run. Default: {cores} cores over the workers.")
        ] = None,
        workers: Annotated[int, typer.Option(min=1, help="Runs at a time, each a process of its own.")] = 1,
        engine: Annotated[
            EngineName,
            typer.Option(help="Where they run: here, or on the Ray cluster that RAY_ADDRESS names."),
        ] = "local",
        json: Annotated[
            str | None,
            typer.Option("--json", help="Write the record (or list of records) here; - for stdout."),
        ] = None,
        out: Annotated[Path | None, typer.Option(help="Folder for records, checkpoints and plots.")] = None,
        resume: Annotated[
            bool, typer.Option("--resume", help="Go on from the checkpoints in the folder.")
        ] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    ) -> None:
        size = "quick" if quick else "full"
        if experiment.datasets and dataset not in experiment.datasets:
            raise UnknownNameError("data set", dataset, experiment.datasets)
        if dataset and not experiment.datasets:
            raise SettingError(f"--dataset {dataset}", "no data set: this command uses none", "Leave it out.")
        chosen = override(experiment.quick if quick else experiment.full, settings or [])
        folder = out or Path(
            "runs", experiment.package, "-".join(filter(None, (experiment.command, dataset, size)))
        )
        words = [*program.split(), *(["--dataset", dataset] if dataset else []), f"--{size}"]
        for assignment in settings or []:
            words += ["--set", assignment]
        if threads is not None:
            words += ["--threads", str(threads)]
        each = threads or max(1, cores // workers)
        jobs = [
            Job(
                settings=chosen,
                dataset=dataset,
                seed=number,
                threads=each,
                out=folder / f"seed-{number}",
                resume=resume,
                command=shlex.join([*words, "--seed", str(seed), "--seeds", str(seeds)]),
            )
            for number in range(seed, seed + seeds)
        ]
        try:
            with progress() as notify:
                records = sweep(experiment, jobs, _engine(engine, workers), notify)
        except KeyboardInterrupt:
            again = [*sys.argv[1:], *([] if resume else ["--resume"])]
            Console(stderr=True).print(
                f"interrupted; go on with: {shlex.join([Path(sys.argv[0]).name, *again])}", soft_wrap=True
            )
            raise typer.Exit(INTERRUPTED) from None
        pictures = experiment.plot(records, folder / "plots")
        _present(experiment, records, pictures, json)


def _engine(name: EngineName, workers: int) -> Engine:
    if name == "ray":
        return RayCluster(workers)
    return InProcess() if workers == 1 else LocalProcesses(workers)


def override(settings: Any, assignments: Sequence[str]) -> Any:
    """Return frozen settings with ``NAME=VALUE`` texts applied.

    Raises
    ------
    UnknownNameError
        No setting has that name.
    SettingError
        The text has no ``=``, or the value is not of the setting's type.
    """
    types = typing.get_type_hints(type(settings))
    changes = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingError(f"--set {assignment}", "NAME=VALUE", f"Settings are {', '.join(types)}.")
        if name not in types:
            raise UnknownNameError("setting", name, types)
        changes[name] = _parse(name, text, types[name])
    return dataclasses.replace(settings, **changes)


def _parse(name: str, text: str, kind: Any) -> Any:
    arguments = typing.get_args(kind)
    try:
        if typing.get_origin(kind) is tuple:
            return tuple(arguments[0](item) for item in text.split(",") if item)
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError) as error:
        wanted = "true or false" if kind is bool else getattr(kind, "__name__", str(kind))
        if arguments:
            wanted = f"{arguments[0].__name__}s separated by commas"
        raise SettingError(f"setting {name} is {text!r}", wanted, f"Write --set {name}=VALUE.") from error


def _present(
    experiment: Experiment[Any], records: Sequence[Record], pictures: Sequence[Path], json: str | None
) -> None:
    console = Console(stderr=json == "-")
    show([table(records) for table in experiment.tables.values()], console)
    for picture in pictures:
        console.print(f"plot: {picture}", soft_wrap=True, highlight=False)
    documents = [record.as_dict() for record in records]
    write_document(documents[0] if len(documents) == 1 else documents, json)


def _settings_help(experiment: Experiment[Any]) -> str:
    def line(settings: Any) -> str:
        return ", ".join(
            f"{item.name}={getattr(settings, item.name)}" for item in dataclasses.fields(settings)
        )

    return f"Settings of --quick: {line(experiment.quick)}. Of --full: {line(experiment.full)}."


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
