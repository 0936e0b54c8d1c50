import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenfold_tools.cli import app

PROGRAM = "from tenfold_tools.cli import app; app()"


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return tmp_path / "reports"


def reproduce(reports: Path, *arguments: str):
    return CliRunner().invoke(app, ["reproduce", "--reports", str(reports), "--workers", "2", *arguments])


def test_the_page_shows_claim_figure_spread_plot_command_and_origin(workspace, reports: Path) -> None:
    workspace.add("fake-one")
    result = reproduce(reports, "fake-one")
    assert result.exit_code == 0, result.output
    assert str(reports / "index.html") in result.stdout
    page = (reports / "index.html").read_text()
    picture = base64.b64encode(b"\x89PNG picture").decode()
    for part in (
        'data-package="fake-one"',
        "About fake-one &amp; more.",
        "accuracy after pruning",
        "96 %",
        "96.00 [95",
        "here, 3 seeds",
        "in 2 of 3 runs",
        f"data:image/png;base64,{picture}",
        "loss curve",
        "<td>97.0</td>",
        "fake-one run --quick --seeds 3",
        "python&nbsp;3.11.7",
        "cpu: made up; features: avx2 fma; memory bytes: 25,276,514,304; cuda: none",
        "4.5 s of runs",
        "0, 1, 2",
    ):
        assert part in page
    assert "The run failed" not in page


def test_the_run_is_quick_and_asked_for_seeds_and_workers(workspace, reports: Path) -> None:
    workspace.add("fake-one")
    reproduce(reports, "fake-one", "--seeds", "2")
    call = workspace.calls("fake-one").split()
    assert call[:6] == ["run", "--quick", "--seeds", "2", "--workers", "2"]


def test_one_failing_package_is_reported_and_the_others_run(workspace, reports: Path) -> None:
    workspace.add("fake-one", works=False)
    workspace.add("fake-two")
    result = reproduce(reports, "fake-one", "fake-two")
    assert result.exit_code == 1
    page = (reports / "index.html").read_text()
    assert "epoch 1\nthe &lt;loss&gt; became nan" in page
    assert page.count("The run failed") == 1
    assert "<td>97.0</td>" in page


def test_a_package_without_its_script_is_a_failure_of_that_package(workspace, reports: Path) -> None:
    workspace.add("fake-one")
    (workspace.scripts / "fake-one").unlink()
    assert reproduce(reports, "fake-one").exit_code == 1
    assert "cannot be started" in (reports / "index.html").read_text()


def test_records_that_cannot_be_read_are_a_failure_of_that_package(workspace, reports: Path) -> None:
    workspace.add("fake-one")
    script = workspace.scripts / "fake-one"
    script.write_text(script.read_text().replace("tenfold.record/1", "another"))
    assert reproduce(reports, "fake-one").exit_code == 1
    assert "its records cannot be shown" in (reports / "index.html").read_text()


def test_nothing_of_an_earlier_report_is_shown_again(workspace, reports: Path) -> None:
    workspace.add("fake-one")
    reproduce(reports, "fake-one")
    stale = reports / "fake-one" / "plots" / "stale.png"
    stale.write_bytes(b"old")
    reproduce(reports, "fake-one")
    assert "stale" not in (reports / "index.html").read_text()


def test_an_unknown_package_suggests_the_nearest_and_runs_nothing(workspace, reports: Path) -> None:
    workspace.add("fake-one")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "reproduce", "fake-on", "--reports", str(reports)],
        env={**os.environ, "PYTHONPATH": str(workspace.site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Did you mean 'fake-one'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not reports.exists()


def test_an_unwritable_report_folder_is_a_typed_error(workspace, tmp_path: Path) -> None:
    workspace.add("fake-one")
    (tmp_path / "file").touch()
    result = reproduce(tmp_path / "file" / "reports", "fake-one")
    assert "cannot write" in str(result.exception)


def test_with_nothing_installed_no_empty_report_is_written(
    workspace, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenfold_tools.reproduce.experiments", lambda command: {})
    assert "no installed package" in str(reproduce(reports).exception)
    assert not reports.exists()
