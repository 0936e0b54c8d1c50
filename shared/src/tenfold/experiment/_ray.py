"""Sweeps on a Ray cluster.

Every run is a Ray task. When its worker process dies (killed, out of memory, lost with its machine),
the run is handed out again and goes on from its last checkpoint, so only the step it was in is
repeated. For that the machines of the cluster must share the folder of the runs; where they do not,
the run starts over, with the same record in the end.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from tenfold.errors import MissingExtraError, SettingError, TenfoldError
from tenfold.experiment._experiment import Experiment, start_over
from tenfold.experiment._record import Record
from tenfold.experiment._sweep import Job, Notify, outcome, worker_ended

# Read when ray is imported: no copy of the project for each worker under `uv run`, no telemetry,
# and a task that asks for no GPU sees the same devices as a run in this process.
_ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class RayCluster:
    """Run up to `workers` jobs at a time on a Ray cluster.

    The cluster is the one that the environment variable ``RAY_ADDRESS`` names. Without it, one is
    started on this machine and ends with the sweep. Needs the extra ``tenfold[ray]``.

    Parameters
    ----------
    workers : int
    attempts : int
        How often a run is begun, or gone on with, before the death of its workers is an error.
    """

    workers: int
    attempts: int = 3

    def map(
        self, experiment: Experiment[Any], jobs: Sequence[Job], notify: Notify | None
    ) -> Iterator[tuple[int, Record | TenfoldError]]:
        """See `Engine.map`; `notify` hears of whole jobs, not of their stages.

        Raises
        ------
        MissingExtraError
            Ray is not installed.
        SettingError
            No cluster answers, or none of its machines has as many cores as a job has threads.
        """
        jobs = [replace(job, out=job.out.resolve()) for job in jobs]
        done, deaths, waiting = 0, [0] * len(jobs), deque(range(len(jobs)))
        with _cluster(self.workers, max(job.threads for job in jobs)) as ray:
            for job in jobs:
                if not job.resume:
                    start_over(job.out)
            running: dict[Any, int] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < self.workers:
                        index = waiting.popleft()
                        # What an attempt that died left behind is this run's own, see `start_over` above.
                        job = replace(jobs[index], resume=jobs[index].resume or deaths[index] > 0)
                        running[_submit(ray, experiment, job)] = index
                    (ended,), _ = ray.wait(list(running), num_returns=1)
                    index = running.pop(ended)
                    found = _fetch(ray, ended)
                    if found is None:
                        deaths[index] += 1
                        if deaths[index] < self.attempts:
                            waiting.append(index)
                            continue
                        found = worker_ended()
                    if isinstance(found, Record) and not (jobs[index].out / "record.json").exists():
                        found.write(jobs[index].out / "record.json")
                    done += 1
                    if notify is not None:
                        notify("runs", done, len(jobs))
                    yield index, found
            finally:
                for task in running:
                    ray.cancel(task, force=True)


def _submit(ray: ModuleType, experiment: Experiment[Any], job: Job) -> Any:
    threads = str(job.threads)
    task = ray.remote(
        num_cpus=job.threads,
        max_retries=0,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}},
    )(outcome)
    return task.remote(experiment, job, None)


def _fetch(ray: ModuleType, task: Any) -> Record | TenfoldError | None:
    """Return what `task` ended in: None when its worker did not live to tell."""
    try:
        found: Record | TenfoldError = ray.get(task)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError:
        return None
    return found


@contextmanager
def _cluster(workers: int, threads: int) -> Iterator[ModuleType]:
    """Connect to the cluster, unless this process already is, and yield the module ``ray``."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "ray is not installed", "ray 2.49 or later", "Install it: pip install 'tenfold[ray]'."
        ) from error
    connected = ray.is_initialized()
    if not connected:
        _connect(ray, workers * threads)
    try:
        cores = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        if cores < threads:
            raise SettingError(
                f"{threads} threads a run",
                f"{cores:g} or fewer, the cores of the cluster's largest machine",
                "Lower --threads.",
            )
        yield ray
    finally:
        if not connected:
            ray.shutdown()


def _connect(ray: ModuleType, cores: int) -> None:
    address = os.environ.get("RAY_ADDRESS", "")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        ray.init("local", num_cpus=cores, include_dashboard=False, **options)
        return
    try:
        _knock(address)
        ray.init(address, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise SettingError(
            f"no Ray cluster answers at {address} ({error})",
            "the address of one in RAY_ADDRESS, as in 10.0.0.1:6379 or ray://10.0.0.1:10001",
            "Correct RAY_ADDRESS, or unset it to run on this machine.",
        ) from error


def _knock(address: str) -> None:
    """Raise unless something listens at ``host:port``: Ray itself would wait for it for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=10).close()
