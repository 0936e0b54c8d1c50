"""Run every installed package's experiment and write one page about what came out.

Each runs as a process of its own, through its console script, so that one that fails or crashes
leaves the others and the page alone.
"""

import base64
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import metadata
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tenfold.errors import OutputError, SettingError, TenfoldError, UnknownNameError
from tenfold.experiment import Claim, Record, Table, estimate, read_records
from tenfold_tools._workspace import experiments, load_experiments, scripts_folder

_POLL_SECONDS = 0.2
_TAIL_LINES = 25


@dataclass(frozen=True)
class Finding:
    """A claim of the paper and what the runs of a sweep found."""

    name: str
    paper: str
    ours: str
    holds: int
    runs: int
    note: str

    @property
    def everywhere(self) -> bool:
        """Whether every run of the sweep bears the claim out."""
        return self.holds == self.runs

    @property
    def verdict(self) -> str:
        """Whether it holds, in words."""
        if self.holds in (0, self.runs):
            return "yes" if self.holds else "no"
        return f"in {self.holds} of {self.runs} runs"


@dataclass(frozen=True)
class Outcome:
    """What became of one package.

    Attributes
    ----------
    name : str
        Distribution name.
    summary : str
        Its description.
    command : str
        The command that was run, or that the records name.
    seconds : float
        Wall time of the process.
    error : str
        End of the standard error of a failed run; empty when it went well.
    records, tables, findings, plots
        Empty for a failed run. Plots are PNG pictures as data URIs, by name.
    """

    name: str
    summary: str
    command: str
    seconds: float
    error: str = ""
    records: Sequence[Record] = ()
    tables: Sequence[Table] = ()
    findings: Sequence[Finding] = ()
    plots: dict[str, str] = field(default_factory=dict)

    @property
    def seeds(self) -> str:
        """How many seeds ran, in words."""
        count = len(self.records)
        return "1 seed" if count == 1 else f"{count} seeds"


def reproduce(
    names: Sequence[str], reports: Path, seeds: int, workers: int, console: Console
) -> list[Outcome]:
    """Run the experiments of the distributions `names`, all when empty, and write the report.

    Parameters
    ----------
    names : sequence of str
    reports : Path
        Folder of ``index.html``; each package has a folder of its own name in it.
    seeds : int
        Runs of each experiment, for the spread.
    workers : int
        Runs at a time.
    console : Console
        Where progress is shown.

    Raises
    ------
    SettingError
        No package is installed.
    UnknownNameError
        A name is of no installed distribution with an experiment.
    OutputError
        The report cannot be written.
    """
    found = experiments("run")
    if not found:
        raise SettingError(
            "no installed package has an experiment",
            "at least one",
            "Run `make sync` to install the packages of this workspace.",
        )
    for name in names:
        if name not in found:
            raise UnknownNameError("package", name, found)
    outcomes = []
    for name in dict.fromkeys(names or found):
        outcome = _run(name, reports / name, seeds, workers, console)
        outcomes.append(outcome)
        verdict = "[red]failed[/]" if outcome.error else "[green]done[/]"
        console.print(f"{name}: {verdict} in {outcome.seconds:.0f} s", highlight=False)
    _write(outcomes, reports / "index.html")
    return outcomes


def _run(name: str, folder: Path, seeds: int, workers: int, console: Console) -> Outcome:
    arguments = ["run", "--quick", "--seeds", str(seeds)]
    command = " ".join([name, *arguments])
    results = folder / "records.json"
    console.print(f"{name}: {command}", highlight=False)
    _empty(folder)
    program = [str(scripts_folder() / name), *arguments, "--workers", str(workers)]
    begun = time.perf_counter()
    try:
        code = _watch([*program, "--json", str(results), "--out", str(folder)], name, folder, console)
        error = f"exit code {code}\n{_tail(folder / 'stderr.txt')}" if code else ""
    except OSError as failure:
        error = f"{program[0]} cannot be started: {failure.strerror}"
    seconds = time.perf_counter() - begun
    summary = metadata(name)["Summary"] or ""
    if error:
        return Outcome(name, summary, command, seconds, error)
    return _read(name, summary, command, seconds, folder)


def _read(name: str, summary: str, command: str, seconds: float, folder: Path) -> Outcome:
    try:
        records = read_records(folder / "records.json")
        tables = [
            table(records)
            for experiment in load_experiments(name)
            if experiment.command == "run"
            for table in experiment.tables.values()
        ]
    except Exception as failure:
        return Outcome(name, summary, command, seconds, f"its records cannot be shown: {failure}")
    return Outcome(
        name=name,
        summary=summary,
        command=", ".join(dict.fromkeys(record.command for record in records)),
        seconds=seconds,
        records=records,
        tables=tables,
        findings=_findings(records),
        plots={
            path.stem: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
            for path in sorted((folder / "plots").glob("*.png"))
        },
    )


def _watch(command: list[str], name: str, folder: Path, console: Console) -> int:
    """Run `command`, show the last line that it wrote to standard error, return its exit code."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    errors = folder / "stderr.txt"
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        (folder / "stdout.txt").open("wb") as stdout,
        errors.open("wb") as stderr,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr) as process,
    ):
        task = bar.add_task(name, total=None)
        try:
            while process.poll() is None:
                bar.update(task, description=escape(f"{name}  {_tail(errors, 1)[:80]}"))
                time.sleep(_POLL_SECONDS)
        except BaseException:
            process.terminate()
            raise
    return process.returncode


def _tail(path: Path, lines: int = _TAIL_LINES) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _empty(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _findings(records: Sequence[Record]) -> list[Finding]:
    claims: dict[str, list[Claim]] = {}
    for record in records:
        for claim in record.claims:
            claims.setdefault(claim.name, []).append(claim)
    return [
        Finding(
            name=name,
            paper=f"{same[0].paper:g} {same[0].unit}".strip(),
            ours=f"{estimate([claim.ours for claim in same])} {same[0].unit}".strip(),
            holds=sum(claim.holds for claim in same),
            runs=len(same),
            note=same[0].note,
        )
        for name, same in claims.items()
    ]


def _write(outcomes: Sequence[Outcome], path: Path) -> None:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tenfold_tools"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["shown"] = _shown
    page = environment.get_template("report.html.jinja").render(
        outcomes=outcomes, written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_shown, value)) or "none"
    if isinstance(value, dict):
        return " ".join(map(_shown, value.values()))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _unwritable(path: Path, error: OSError) -> TenfoldError:
    return OutputError(
        f"cannot write {path} ({error.strerror})",
        "a place that this user can write to and that has room",
        "Choose another place with --reports.",
    )
