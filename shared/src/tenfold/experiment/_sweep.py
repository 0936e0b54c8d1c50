"""Sweeps over seeds and settings: the same records wherever the runs take place.

An engine only decides where a job runs. In-process and local processes are here; a Ray cluster is
one more class with the same `map`, in `tenfold.experiment._ray`.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tenfold.errors import SettingError, TenfoldError
from tenfold.experiment._experiment import Experiment
from tenfold.experiment._record import Record

Notify = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """One run of a sweep; the fields are the arguments of `Experiment.execute`."""

    settings: Any
    dataset: str
    seed: int
    threads: int
    out: Path
    resume: bool = False
    command: str = ""


class Engine(Protocol):
    """Where the jobs of a sweep run."""

    def map(
        self, experiment: Experiment[Any], jobs: Sequence[Job], notify: Notify | None
    ) -> Iterator[tuple[int, Record | TenfoldError]]:
        """Yield the index of each job with its record or its error, as they end."""


@dataclass(frozen=True)
class InProcess:
    """Run the jobs one after another in this process."""

    def map(
        self, experiment: Experiment[Any], jobs: Sequence[Job], notify: Notify | None
    ) -> Iterator[tuple[int, Record | TenfoldError]]:
        """See `Engine.map`."""
        for index, job in enumerate(jobs):
            yield index, outcome(experiment, job, notify)


@dataclass(frozen=True)
class LocalProcesses:
    """Run up to `workers` jobs at a time, each in a fresh process of this machine."""

    workers: int

    def map(
        self, experiment: Experiment[Any], jobs: Sequence[Job], notify: Notify | None
    ) -> Iterator[tuple[int, Record | TenfoldError]]:
        """See `Engine.map`; `notify` hears of whole jobs, not of their stages."""
        pool = ProcessPoolExecutor(
            self.workers, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
        )
        with pool, _environment_threads(max(job.threads for job in jobs)):
            futures = {pool.submit(outcome, experiment, job, None): index for index, job in enumerate(jobs)}
            for done, future in enumerate(as_completed(futures), start=1):
                if notify is not None:
                    notify("runs", done, len(jobs))
                yield futures[future], _result(future)


def sweep(
    experiment: Experiment[Any],
    jobs: Sequence[Job],
    engine: Engine | None = None,
    notify: Notify | None = None,
) -> list[Record]:
    """Run every job and return the records in the order of the jobs.

    Parameters
    ----------
    experiment : Experiment
    jobs : sequence of Job
        Each with a folder `out` of its own.
    engine : Engine, optional
        `InProcess` when not given.
    notify : callable, optional
        Called as ``notify(stage, done, total)``.

    Raises
    ------
    SettingError
        There is no job, or two share a folder.
    TenfoldError
        A run failed. The others were finished first and their records written; running again
        with `resume` does only what is missing.
    """
    folders = {job.out for job in jobs}
    if not jobs or len(folders) < len(jobs):
        raise SettingError(
            f"{len(jobs)} jobs in {len(folders)} folders",
            "at least one job, each with a folder of its own",
            "Give every job another `out`.",
        )
    outcomes = dict((engine or InProcess()).map(experiment, jobs, notify))
    for index in range(len(jobs)):
        outcome = outcomes[index]
        if isinstance(outcome, TenfoldError):
            raise outcome
    return [record for index in range(len(jobs)) if isinstance(record := outcomes[index], Record)]


def outcome(experiment: Experiment[Any], job: Job, notify: Notify | None) -> Record | TenfoldError:
    """Run one job and return its record, or the error that it ended in."""
    try:
        return experiment.execute(
            job.settings,
            dataset=job.dataset,
            seed=job.seed,
            threads=job.threads,
            out=job.out,
            resume=job.resume,
            command=job.command,
            notify=notify,
        )
    except TenfoldError as error:
        return error


def worker_ended() -> TenfoldError:
    """Return the error of a job whose worker process was lost."""
    return TenfoldError(
        "a worker process ended before its run did",
        "every worker to live until its record is written",
        "Look for lack of memory, then run again with --resume: finished epochs are kept.",
    )


def _result(future: Future[Record | TenfoldError]) -> Record | TenfoldError:
    try:
        return future.result()
    except BrokenProcessPool:
        return worker_ended()


@contextmanager
def _environment_threads(threads: int) -> Iterator[None]:
    """Let processes started meanwhile begin with this many OpenMP threads."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
