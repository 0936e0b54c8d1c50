import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from random_walk import Settings, Walker, experiment

from tenfold import (
    CheckpointError,
    DivergedError,
    OutputError,
    SettingError,
    TenfoldError,
    UnknownNameError,
)
from tenfold.experiment import InProcess, Job, LocalProcesses, Record, Run, read_records, sweep


class InterruptionError(Exception):
    pass


def interrupted(out: Path, after: int) -> None:
    """Execute, but break off at the given step, counted over both stages."""
    done = 0

    def notify(stage: str, step: int, total: int) -> None:
        nonlocal done
        done += 1
        if done == after:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        experiment.execute(Settings(), out=out, notify=notify)


def test_the_record_says_what_ran(tmp_path: Path) -> None:
    record = experiment.execute(Settings(), seed=3, threads=1, out=tmp_path)
    assert read_records(tmp_path / "record.json") == [record]
    assert (record.package, record.seed, record.dataset) == ("tenfold", 3, "digits")
    assert record.settings["sizes"] == [4, 3]
    assert record.hardware["threads"] == 1
    assert record.versions["numpy"]
    assert len(record.history["second/norm"]) == 6
    assert record.history["stages"] == [1, 1]
    assert record.wall_seconds > 0
    assert record.cpu_seconds > 0
    assert record.peak_bytes > 10_000_000


def test_the_same_seed_gives_the_same_results_and_another_seed_others(tmp_path: Path) -> None:
    first = experiment.execute(Settings(), seed=1, out=tmp_path / "a")
    again = experiment.execute(Settings(), seed=1, out=tmp_path / "b")
    other = experiment.execute(Settings(), seed=2, out=tmp_path / "c")
    assert first.results() == again.results()
    assert first.metrics != other.metrics


@pytest.mark.parametrize("after", [1, 4, 6, 7, 11, 12])
def test_a_resumed_run_ends_like_an_undisturbed_one(tmp_path: Path, after: int) -> None:
    undisturbed = experiment.execute(Settings(), out=tmp_path / "a")
    interrupted(tmp_path / "b", after)
    resumed = experiment.execute(Settings(), out=tmp_path / "b", resume=True)
    assert resumed.results() == undisturbed.results()


def test_a_resumed_run_repeats_no_step(tmp_path: Path) -> None:
    interrupted(tmp_path, 8)
    steps: list[tuple[str, int]] = []
    experiment.execute(
        Settings(), out=tmp_path, resume=True, notify=lambda stage, done, _: steps.append((stage, done))
    )
    assert steps == [("second", done) for done in range(3, 7)]


def test_a_finished_run_is_returned_and_a_fresh_one_starts_over(tmp_path: Path) -> None:
    first = experiment.execute(Settings(), out=tmp_path)
    steps: list[int] = []
    again = experiment.execute(
        Settings(), out=tmp_path, resume=True, notify=lambda _, done, __: steps.append(done)
    )
    assert (again, steps) == (first, [])
    experiment.execute(Settings(), out=tmp_path, notify=lambda _, done, __: steps.append(done))
    assert len(steps) == 12


@pytest.mark.parametrize("change", [{"seed": 1}, {"dataset": "mnist-5k"}, {"settings": Settings(lr=0.2)}])
@pytest.mark.parametrize("finished", [True, False])
def test_another_runs_folder_is_refused(tmp_path: Path, change: dict[str, Any], finished: bool) -> None:
    if finished:
        experiment.execute(Settings(), out=tmp_path)
    else:
        interrupted(tmp_path, 2)
    arguments = {"settings": Settings(), **change}
    with pytest.raises(CheckpointError, match=rf"its {next(iter(change))} is"):
        experiment.execute(arguments.pop("settings"), out=tmp_path, resume=True, **arguments)


def test_a_corrupt_checkpoint_is_refused(tmp_path: Path) -> None:
    interrupted(tmp_path, 2)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="without --resume"):
        experiment.execute(Settings(), out=tmp_path, resume=True)


def test_a_checkpoint_of_other_state_is_refused(tmp_path: Path) -> None:
    run: Run[Any] = Run(Settings(), "digits", 0, 1, tmp_path)
    for _ in run.stage("a", 1, walker=Walker()):
        pass
    with pytest.raises(CheckpointError, match="does not fit"):
        next(run.stage("a", 2, other=Walker()))


def test_nan_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="first/norm became nan"):
        experiment.execute(Settings(diverge_at=2), out=tmp_path)
    assert not (tmp_path / "record.json").exists()


def test_an_unwritable_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--out"):
        experiment.execute(Settings(), out=tmp_path / "file")


def test_an_unknown_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'digits'"):
        experiment.execute(Settings(), dataset="digit", out=tmp_path)


def jobs(folder: Path, **settings: Any) -> list[Job]:
    return [Job(Settings(**settings), "digits", seed, 1, folder / str(seed)) for seed in range(3)]


def results(records: list[Record]) -> list[dict[str, Any]]:
    return [record.results() for record in records]


def test_local_processes_give_the_same_records_as_in_process(tmp_path: Path) -> None:
    here = sweep(experiment, jobs(tmp_path / "a"), InProcess())
    told: list[tuple[str, int, int]] = []
    there = sweep(experiment, jobs(tmp_path / "b"), LocalProcesses(2), lambda *step: told.append(step))
    assert results(here) == results(there)
    assert [record.seed for record in there] == [0, 1, 2]
    assert told == [("runs", done, 3) for done in (1, 2, 3)]


@pytest.mark.parametrize("engine", [InProcess(), LocalProcesses(2)])
def test_one_failing_run_lets_the_others_finish(tmp_path: Path, engine: InProcess | LocalProcesses) -> None:
    mixed = jobs(tmp_path)
    mixed[0] = dataclasses.replace(mixed[0], settings=Settings(diverge_at=1))
    with pytest.raises(DivergedError):
        sweep(experiment, mixed, engine)
    assert sorted(path.parent.name for path in tmp_path.glob("*/record.json")) == ["1", "2"]


def test_a_killed_worker_is_reported_and_resumed(tmp_path: Path) -> None:
    dying = jobs(tmp_path / "a", die_at=2)
    with pytest.raises(TenfoldError, match=r"worker process ended.*--resume"):
        sweep(experiment, dying, LocalProcesses(1))
    for job in dying:
        job.out.mkdir(parents=True, exist_ok=True)
        (job.out / "died").touch()
    resumed = sweep(experiment, [dataclasses.replace(job, resume=True) for job in dying], LocalProcesses(2))
    undisturbed = sweep(experiment, jobs(tmp_path / "b"))
    assert [record.metrics for record in resumed] == [record.metrics for record in undisturbed]


@pytest.mark.parametrize("wrong", [[], [Job(Settings(), "digits", seed, 1, Path("same")) for seed in (0, 1)]])
def test_jobs_need_folders_of_their_own(wrong: list[Job]) -> None:
    with pytest.raises(SettingError, match="folder"):
        sweep(experiment, wrong)


def test_importing_needs_neither_torch_nor_plots_nor_the_command_line() -> None:
    code = (
        "import sys, tenfold.experiment, tenfold.data, tenfold.hardware\n"
        "print([name for name in ('torch', 'matplotlib', 'typer', 'rich', 'sklearn', 'scipy')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
