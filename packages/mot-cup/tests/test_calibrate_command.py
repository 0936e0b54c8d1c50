"""``mot-cup calibrate`` on small files in V2X-Sim's format."""

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from mot_cup.calibrate_command import calibrate_command
from mot_cup.conformal import Calibration
from mot_cup.io import read_detections
from tenfold import DataError, SettingError

app = typer.Typer()
app.command()(calibrate_command)


def write_files(folder: Path, seed: int, frames: int = 100) -> tuple[Path, Path]:
    """Write four boxes a frame with errors of twice what the detector says, and their truth."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    detections, truth = folder / "det.txt", folder / "gt.txt"
    found, true = [], []
    for frame in range(1, frames + 1):
        for box in range(4):
            left, top, width, height = 50.0 * box, 40.0, 16.0, 8.0
            true.append(f"{frame},{box},{left},{top},{width},{height},-1,-1,-1,-1\n")
            # 0.025 m is a tenth of a pixel.
            moved = [left, top] + 0.2 * generator.normal(size=2)
            variances = [2 * np.log(0.025)] * 2 + [2 * np.log(0.1), 2 * np.log(0.02)]
            values = [frame, -1, *moved, width + 0.1 * generator.normal(), height, 0.9, -1, -1, -1]
            found.append(",".join(map(str, [*values, *variances])) + "\n")
    detections.write_text("".join(found))
    truth.write_text("".join(true))
    return detections, truth


def test_calibrating_files_writes_what_covers_others(tmp_path: Path) -> None:
    pairs = [write_files(tmp_path / str(seed), seed) for seed in range(2)]
    path = tmp_path / "calibration.json"
    arguments = [str(found) for found, _ in pairs]
    for _, true in pairs:
        arguments += ["--gt", str(true)]
    result = CliRunner().invoke(app, [*arguments, "-o", str(path), "--level", "0.9", "--space", "xysr"])
    assert result.exit_code == 0, result.output
    assert "90 % of matched detections" in " ".join(result.output.split())
    assert "800" in result.output
    calibration = Calibration.load(path)
    factors = calibration.quantiles[0] / calibration.deviations
    np.testing.assert_allclose(factors[:2], [2.0, 2.0], rtol=0.15)
    detections = calibration.apply(read_detections(pairs[0][0])[1])
    assert detections.covariance is not None
    assert detections.covariance.unit == "px"
    np.testing.assert_allclose(np.sqrt(detections.covariance.matrices[:, 0, 0]), 0.2, rtol=0.15)


def test_a_class_is_a_row_of_the_table(tmp_path: Path) -> None:
    found, true = write_files(tmp_path, 0)
    arguments = [str(found), "--gt", str(true), "-o", str(tmp_path / "calibration.json"), "--per-class"]
    result = CliRunner().invoke(app, [*arguments, "--region", "max-score", "--level", "0.9"])
    assert result.exit_code == 0, result.output
    assert "max-score" in result.output
    assert Calibration.load(tmp_path / "calibration.json").classes is not None


def test_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    found, true = write_files(tmp_path, 0, frames=50)
    out = ["-o", str(tmp_path / "calibration.json")]
    for arguments, error, message in (
        ([str(found)], SettingError, "1 files of detections and 0 of truth"),
        ([str(found), "--gt", str(true)], SettingError, "200 calibration scores; expected 370 scores"),
        ([str(true), "--gt", str(true), "--level", "0.9"], DataError, "without a covariance"),
        ([str(tmp_path)], DataError, "val_det"),
    ):
        result = CliRunner().invoke(app, [*arguments, *out])
        assert isinstance(result.exception, error)
        assert message in str(result.exception)
        assert not (tmp_path / "calibration.json").exists()


def test_the_folder_of_v2xsim_is_taken_whole(tmp_path: Path) -> None:
    found, true = write_files(tmp_path / "files", 3)
    info = (
        "[Sequence]\nname=3\nimDir=img1\nframeRate=5\nseqLength=100\nimWidth=255\nimHeight=255\nimExt=.jpg\n"
    )
    for agent in (1, 2):
        folder = tmp_path / "v2xsim" / "gt" / f"V2X-val{agent}" / "3"
        (folder / "gt").mkdir(parents=True)
        (folder / "seqinfo.ini").write_text(info)
        (folder / "gt" / "gt.txt").write_text(true.read_text())
        (tmp_path / "v2xsim" / "val_det" / f"tracking{agent}").mkdir(parents=True)
        (tmp_path / "v2xsim" / "val_det" / f"tracking{agent}" / "det_3.txt").write_text(found.read_text())
    path = tmp_path / "calibration.json"
    result = CliRunner().invoke(app, [str(tmp_path / "v2xsim"), "-o", str(path)])
    assert result.exit_code == 0, result.output
    assert Calibration.load(path).sizes.tolist() == [800]


@pytest.mark.parametrize("level", ["0", "1.5"])
def test_impossible_levels_are_refused(tmp_path: Path, level: str) -> None:
    found, true = write_files(tmp_path, 0, frames=5)
    arguments = [str(found), "--gt", str(true), "-o", str(tmp_path / "c.json"), "--level", level]
    assert isinstance(CliRunner().invoke(app, arguments).exception, SettingError)
