"""Every package's `run`, from the outside: killed and resumed, in-process and in processes."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tenfold.experiment import read_records
from tenfold_tools._workspace import experiments, scripts_folder

pytestmark = pytest.mark.slow

PACKAGES = sorted(experiments("run"))


def command(package: str, folder: Path, *options: str) -> list[str]:
    program = str(scripts_folder() / package)
    output = ["--out", str(folder), "--json", str(folder / "records.json")]
    return [program, "run", "--quick", "--threads", "1", *output, *options]


def results(folder: Path) -> list[dict]:
    return [record.results() for record in read_records(folder / "records.json")]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_killed_run_resumes_to_the_same_results(package: str, tmp_path: Path) -> None:
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    process = subprocess.Popen(command(package, killed), start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(killed.glob("**/checkpoints/*")) and process.poll() is None:
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (killed / "records.json").exists()

    subprocess.run(command(package, killed, "--resume"), check=True)
    subprocess.run(command(package, undisturbed), check=True)
    assert results(killed) == results(undisturbed)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_sweep_on_two_processes_equals_one_in_process(package: str, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        options = ("--seeds", "2", "--workers", workers)
        subprocess.run(command(package, tmp_path / workers, *options), check=True)
    assert results(tmp_path / "1") == results(tmp_path / "2")
    assert [record["seed"] for record in results(tmp_path / "1")] == [0, 1]
