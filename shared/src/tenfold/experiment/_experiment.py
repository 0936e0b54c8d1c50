"""An experiment of a package, and one run of it.

The body of an experiment is a plain function that reads top to bottom. What makes it resumable is
`Run.stage`: a loop over epochs that restores the state of the objects it is given, skips what was
done before an interruption, and writes a checkpoint after every step. History is part of the
checkpoint, so a resumed run ends with the same record as an undisturbed one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import psutil

from tenfold.errors import CheckpointError, DivergedError, UnknownNameError
from tenfold.experiment._checkpoint import load_state, save_state
from tenfold.experiment._record import Claim, Record, read_records
from tenfold.experiment._table import Table

Settings = TypeVar("Settings")


def _nothing_to_plot(records: Sequence[Record], folder: Path) -> Sequence[Path]:
    return []


@dataclass(frozen=True)
class Experiment(Generic[Settings]):
    """What a package runs under one of its commands.

    Parameters
    ----------
    package : str
        Distribution name.
    command : str
        Subcommand: ``"run"`` for the paper's experiment, ``"bench"`` for speed.
    body : callable
        Takes a `Run`; logs history, metrics and claims on it. Must be a module-level function.
    quick, full : dataclass
        Frozen settings of ``--quick`` (a minute or two) and ``--full``.
    datasets : tuple of str
        Names for ``--dataset``, the default first; empty when the experiment uses none.
    tables : mapping of str to callable
        Functions from records to a `Table`, by the name that README markers use.
    plot : callable
        Takes records and a folder, writes pictures there and returns their paths.
    program : str
        How the command line is called, when that is not the distribution's name.
    """

    package: str
    command: str
    body: Callable[[Run[Settings]], None]
    quick: Settings
    full: Settings
    datasets: tuple[str, ...] = ()
    tables: Mapping[str, Callable[[Sequence[Record]], Table]] = field(default_factory=dict)
    plot: Callable[[Sequence[Record], Path], Sequence[Path]] = _nothing_to_plot
    program: str = ""

    def execute(
        self,
        settings: Settings,
        *,
        dataset: str = "",
        seed: int = 0,
        threads: int = 1,
        out: Path,
        resume: bool = False,
        command: str = "",
        notify: Callable[[str, int, int], None] | None = None,
    ) -> Record:
        """Run once and return the record, which is also written to ``out/record.json``.

        Parameters
        ----------
        settings : dataclass
            Of the type of `quick`.
        dataset : str
            One of `datasets`; the default when empty.
        seed : int
            Seeds every generator of the run.
        threads : int
            Threads for torch and the numerical libraries.
        out : Path
            Folder of the record and the checkpoints; what an earlier run left there is removed
            unless `resume` is set.
        resume : bool
            Go on from the checkpoints in `out`; a finished run is returned as it is.
        command : str
            The command line that repeats the run, for the record.
        notify : callable, optional
            Called as ``notify(stage, done, total)`` after every step.

        Raises
        ------
        UnknownNameError
            `dataset` is not among `datasets`.
        CheckpointError
            A checkpoint is corrupt or belongs to another run.
        DivergedError
            A logged figure was NaN or infinite.
        OutputError
            `out` cannot be written.
        """
        dataset = dataset or (self.datasets[0] if self.datasets else "")
        if self.datasets and dataset not in self.datasets:
            raise UnknownNameError("data set", dataset, self.datasets)
        finished = out / "record.json"
        if not resume:
            start_over(out)
        run = Run(settings, dataset, seed, threads, out, notify)
        if finished.exists():
            (record,) = read_records(finished)
            run.check_same(
                {"dataset": record.dataset.split(" ")[0], "seed": record.seed, "settings": record.settings},
                finished,
            )
            return record
        _set_threads(threads)
        _reset_peak()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.body(run)
        wall, cpu = run.elapsed()
        from tenfold import hardware

        record = Record(
            package=self.package,
            version=importlib.metadata.version(self.package),
            versions=_versions(self.package),
            command=command or f"{self.program or self.package} {self.command}",
            dataset=f"{dataset} {run.variant}".strip(),
            seed=seed,
            settings=_plain(settings),
            hardware={**hardware.describe().as_dict(), "threads": threads},
            started=started,
            wall_seconds=wall,
            cpu_seconds=cpu,
            peak_bytes=_peak_bytes(),
            history=run.history,
            metrics=run.metrics,
            claims=run.claims,
        )
        record.write(finished)
        return record


def start_over(out: Path) -> None:
    """Remove the record and the checkpoints that an earlier run left in `out`."""
    with contextlib.suppress(NotADirectoryError):
        (out / "record.json").unlink(missing_ok=True)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)


class Run(Generic[Settings]):
    """One run of an experiment, as its body sees it.

    Attributes
    ----------
    settings : dataclass
    dataset : str
    seed, threads : int
    out : Path
        Folder of this run.
    variant : str
        Set by the body when the data set has variants; named in the record.
    history : dict of str to list of float
    metrics : dict of str to float
    claims : list of Claim
    """

    def __init__(
        self,
        settings: Settings,
        dataset: str,
        seed: int,
        threads: int,
        out: Path,
        notify: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.settings = settings
        self.dataset = dataset
        self.seed = seed
        self.threads = threads
        self.out = out
        self.variant = ""
        self.history: dict[str, list[float]] = {}
        self.metrics: dict[str, float] = {}
        self.claims: list[Claim] = []
        self._notify = notify
        self._spent = (0.0, 0.0)
        self._clock = (time.perf_counter(), time.process_time())

    def stage(self, name: str, steps: int, **state: Any) -> Iterator[int]:
        """Loop over the steps of a stage, from wherever an earlier attempt stopped.

        Parameters
        ----------
        name : str
            Unique within the run; names the checkpoint.
        steps : int
            Number of steps, say epochs.
        **state
            Everything that the steps change: objects with ``state_dict`` and
            ``load_state_dict`` (models, optimizers, schedulers, pruners), torch and NumPy
            generators.

        Yields
        ------
        int
            The steps still to do, counted from 0.

        Raises
        ------
        CheckpointError
            The checkpoint is corrupt or belongs to another run.
        """
        path = self.out / "checkpoints" / f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}.npz"
        done = self._restore(path, state) if path.exists() else 0
        for step in range(done, steps):
            yield step
            save_state(
                path,
                {
                    "run": self._identity(),
                    "done": step + 1,
                    "history": self.history,
                    "spent": list(self.elapsed()),
                    "state": {key: _capture(item) for key, item in state.items()},
                },
            )
            if self._notify is not None:
                self._notify(name, step + 1, steps)

    def log(self, name: str, value: float) -> None:
        """Append `value` to the history of `name`.

        Raises
        ------
        DivergedError
            `value` is NaN or infinite.
        """
        self.history.setdefault(name, []).append(_finite(name, value))

    def metric(self, name: str, value: float) -> None:
        """Set the final metric `name`; raises `DivergedError` as `log` does."""
        self.metrics[name] = _finite(name, value)

    def claim(self, claim: Claim) -> None:
        """Add a claim to the record."""
        _finite(claim.name, claim.ours)
        self.claims.append(claim)

    def elapsed(self) -> tuple[float, float]:
        """Wall and CPU seconds so far, interruptions included."""
        wall, cpu = self._clock
        return (
            self._spent[0] + time.perf_counter() - wall,
            self._spent[1] + time.process_time() - cpu,
        )

    def check_same(self, other: Mapping[str, Any], path: Path) -> None:
        """Raise `CheckpointError` unless `path` was written by a run of these settings."""
        mine = self._identity()
        for key in ("dataset", "seed", "settings"):
            if mine[key] != other.get(key):
                raise CheckpointError(
                    f"{path} is of another run: its {key} is {other.get(key)!r}",
                    f"{mine[key]!r}",
                    "Run without --resume, or choose another folder with --out.",
                )

    def _identity(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "seed": self.seed, "settings": _plain(self.settings)}

    def _restore(self, path: Path, state: Mapping[str, Any]) -> int:
        saved = load_state(path)
        try:
            self.check_same(saved["run"], path)
            for key, item in state.items():
                _put_back(item, saved["state"][key])
            self.history = saved["history"]
            wall, cpu = saved["spent"]
            done = int(saved["done"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"checkpoint {path} does not fit this run ({error})",
                "a checkpoint of the same experiment and version",
                "Run without --resume.",
            ) from error
        self._spent = (wall, cpu)
        self._clock = (time.perf_counter(), time.process_time())
        return done


def _capture(item: Any) -> Any:
    if isinstance(item, np.random.Generator):
        return item.bit_generator.state
    return item.get_state() if hasattr(item, "get_state") else item.state_dict()


def _put_back(item: Any, saved: Any) -> None:
    if isinstance(item, np.random.Generator):
        item.bit_generator.state = saved
    elif hasattr(item, "set_state"):
        item.set_state(saved)
    else:
        item.load_state_dict(saved)


def _finite(name: str, value: float) -> float:
    value = float(value)
    if not math.isfinite(value):
        raise DivergedError(
            f"{name} became {value}",
            "a finite number",
            "Lower the learning rate or the penalty, or look at the data of that step.",
        )
    return value


def _plain(settings: Any) -> dict[str, Any]:
    """Return settings as JSON gives them back: tuples as lists."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(settings).items()
    }


def _set_threads(threads: int) -> None:
    from threadpoolctl import threadpool_limits

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    threadpool_limits(threads)


def _versions(package: str) -> dict[str, str]:
    names = {re.split(r"[^A-Za-z0-9._-]", text)[0] for text in importlib.metadata.requires(package) or []}
    versions = {"python": platform.python_version(), package: importlib.metadata.version(package)}
    for name in sorted(names):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _git_commit()
    return {**versions, "git": commit} if commit else versions


def _git_commit() -> str:
    """Return the commit of the checkout that this source lies in; empty for an installed wheel."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not git("ls-files", "--", Path(__file__).name):
            return ""
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ":/") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _reset_peak() -> None:
    """Let Linux forget the process's earlier peak, so that a sweep's runs do not inherit it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return int(psutil.Process(os.getpid()).memory_info().rss)
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else int(psutil.Process(os.getpid()).memory_info().rss)
