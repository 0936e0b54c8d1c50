"""Sweeps on Ray, all on one cluster of this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from random_walk import Settings, experiment

from tenfold import DivergedError, MissingExtraError, SettingError, TenfoldError
from tenfold.experiment import Job, RayCluster, Record, read_records, sweep
from tenfold.experiment._ray import _cluster

PROGRAM = Path(__file__).parent / "support" / "random_walk.py"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Keep one cluster of two cores for every test of this module that asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", str(PROGRAM.parent))
        with _cluster(workers=2, threads=1):
            yield


def jobs(folder: Path, seeds: int = 3, **settings: Any) -> list[Job]:
    return [Job(Settings(**settings), "digits", seed, 1, folder / str(seed)) for seed in range(seeds)]


def results(records: list[Record]) -> list[dict[str, Any]]:
    return [record.results() for record in records]


@pytest.mark.slow
def test_six_runs_give_the_same_records_as_in_process(cluster: None, tmp_path: Path) -> None:
    here = sweep(experiment, jobs(tmp_path / "a", 6))
    told: list[tuple[str, int, int]] = []
    there = sweep(experiment, jobs(tmp_path / "b", 6), RayCluster(2), lambda *step: told.append(step))
    assert results(here) == results(there)
    assert [record.seed for record in there] == list(range(6))
    assert told == [("runs", done, 6) for done in range(1, 7)]
    assert [read_records(tmp_path / "b" / str(seed) / "record.json")[0] for seed in range(6)] == there


@pytest.mark.slow
def test_a_killed_worker_is_retried_from_its_checkpoint(cluster: None, tmp_path: Path) -> None:
    (dying,) = jobs(tmp_path / "a", 1, die_at=2)
    records = sweep(experiment, [dying, *jobs(tmp_path / "a")[1:]], RayCluster(2))
    assert (dying.out / "died").exists()
    undisturbed = sweep(experiment, jobs(tmp_path / "b"))
    assert [record.metrics for record in records] == [record.metrics for record in undisturbed]
    assert [record.history for record in records] == [record.history for record in undisturbed]


@pytest.mark.slow
def test_a_worker_that_keeps_dying_is_an_error_and_the_others_finish(cluster: None, tmp_path: Path) -> None:
    mixed = [*jobs(tmp_path / "a", 1, die_at=2), *jobs(tmp_path / "b", 2)]
    with pytest.raises(TenfoldError, match=r"worker process ended.*--resume"):
        sweep(experiment, mixed, RayCluster(2, attempts=1))
    assert len(list(tmp_path.glob("b/*/record.json"))) == 2


@pytest.mark.slow
def test_an_old_record_is_never_taken_for_that_of_a_retried_run(cluster: None, tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, 1, die_at=2)
    (old,) = sweep(experiment, [job], RayCluster(1))
    (tmp_path / "0" / "died").unlink()
    (new,) = sweep(experiment, [job], RayCluster(1))
    assert (tmp_path / "0" / "died").exists()
    assert old.started < new.started or old.wall_seconds != new.wall_seconds
    assert old.metrics == new.metrics


@pytest.mark.slow
def test_a_failing_run_lets_the_others_finish(cluster: None, tmp_path: Path) -> None:
    mixed = [*jobs(tmp_path / "a", 1, diverge_at=1), *jobs(tmp_path / "b", 2)]
    with pytest.raises(DivergedError, match="became nan"):
        sweep(experiment, mixed, RayCluster(2))
    assert len(list(tmp_path.glob("b/*/record.json"))) == 2


@pytest.mark.slow
def test_a_run_wider_than_every_machine_is_refused(cluster: None, tmp_path: Path) -> None:
    wide = [Job(Settings(), "digits", 0, 3, tmp_path)]
    with pytest.raises(SettingError, match="3 threads a run; expected 2 or fewer"):
        sweep(experiment, wide, RayCluster(1))


@pytest.mark.slow
def test_the_command_line_runs_on_the_cluster_of_the_environment(cluster: None, tmp_path: Path) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    options = ["--seeds", "2", "--workers", "2", "--threads", "1", "--out", "a", "--json", "a.json"]
    done = subprocess.run(
        [sys.executable, PROGRAM, "run", "--engine", "ray", *options],
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert results(read_records(tmp_path / "a.json")) == results(sweep(experiment, jobs(tmp_path / "b", 2)))


@pytest.mark.slow
def test_an_address_without_a_cluster_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "run", "--engine", "ray", "--out", tmp_path],
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no Ray cluster answers at 127.0.0.1:1" in done.stderr


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    sweep(experiment, jobs(tmp_path, 1))
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[ray\]'"):
        sweep(experiment, jobs(tmp_path, 1), RayCluster(1))
    assert (tmp_path / "0" / "record.json").exists()
