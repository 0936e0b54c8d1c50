"""The commands ``mot-cup simulate`` and ``mot-cup render``, and the files between them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mot_cup import BoxCovariance, Detections
from mot_cup._boxes import from_space
from mot_cup.fusion import fuse_sequence
from mot_cup.io import (
    read_detections,
    read_mot_covariances,
    read_sequence_info,
    read_tracks,
    write_mot_covariances,
)
from mot_cup.render_command import render_command
from mot_cup.simulate_command import simulate_command
from mot_cup.simulation import Noise, SceneSettings, simulate
from tenfold import DataError, SettingError, UnknownNameError
from tenfold.experiment.cli import command_line

app = command_line(help="Tracking.")
app.command("simulate")(simulate_command)
app.command("render")(render_command)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated scene of five frames."""
    path = tmp_path_factory.mktemp("scene")
    arguments = ("--frames", "5", "--agents", "2", "--seed", "4", "--noise", "spread=0.3")
    result = run(
        "simulate", "-o", path, *arguments, "--set", "false_alarms=0.5", "--json", path / "figures.json"
    )
    assert result.exit_code == 0, result.output
    assert "agent-2" in result.output
    return path


def test_files_hold_the_scene(folder: Path) -> None:
    settings = SceneSettings(frames=5, agents=2, false_alarms=0.5, noise=Noise(spread=0.3))
    scene = simulate(settings, np.random.default_rng(4))
    late = fuse_sequence([agent.detections for agent in scene.agents])
    sequences = {
        "agent-1": (scene.agents[0].detections, scene.agents[0].truth),
        "agent-2": (scene.agents[1].detections, scene.agents[1].truth),
        "late": (late, scene.together.truth),
        "early": (scene.together.detections, scene.together.truth),
    }
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(sequences)
    for name, (detections, truth) in sequences.items():
        found = read_detections(folder / name / "det" / "det.txt")
        for frame, expected in enumerate(detections, start=1):
            np.testing.assert_allclose(found[frame].boxes, expected.boxes, rtol=1e-12)
            np.testing.assert_array_equal(found[frame].scores, expected.scores)
            assert found[frame].covariance is not None
            assert expected.covariance is not None
            np.testing.assert_allclose(
                found[frame].covariance.matrices, expected.covariance.matrices, atol=1e-12
            )
        tracks = read_tracks(folder / name / "gt" / "gt.txt")
        np.testing.assert_array_equal(tracks.ids, truth.ids)
        np.testing.assert_allclose(tracks.boxes, truth.boxes)
        info = read_sequence_info(folder / name / "seqinfo.ini")
        assert (info.length, info.frame_rate, info.width) == (5, 5, 600)
    document = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert document == json.loads((folder / "scene.json").read_text(encoding="utf-8"))
    assert document["settings"]["noise"]["spread"] == 0.3
    assert document["sequences"][2]["detections"] == sum(map(len, late))


def test_what_was_simulated_is_drawn_on_its_streets(folder: Path, tmp_path: Path) -> None:
    result = run(
        *("render", folder / "late" / "gt" / "gt.txt", "-o", tmp_path / "frames"),
        *("--detections", folder / "late" / "det" / "det.txt", "--background", folder / "streets.png"),
        *("--frames", "2:4", "--size", "120", "--view", "100,100,400,300"),
    )
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["000002.png", "000003.png", "000004.png"]
    with Image.open(tmp_path / "frames" / names[0]) as image:
        assert image.size == (120, 80)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("--set", "noise=3"), SettingError, "--noise and --streets"),
        (("--noise", "spred=3"), UnknownNameError, "Did you mean 'spread'"),
        (("--agents", "100"), SettingError, "at most 80"),
        (("--streets", "crossings=1"), SettingError, "crossings"),
    ],
)
def test_impossible_scenes_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], kind: type[Exception], message: str
) -> None:
    result = run("simulate", "-o", tmp_path / "scene", *arguments)
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)
    assert not (tmp_path / "scene").exists()


@pytest.mark.parametrize(("option", "value"), [("--view", "1,2,3"), ("--frames", "3"), ("--frames", "a:b")])
def test_impossible_pictures_are_refused(folder: Path, tmp_path: Path, option: str, value: str) -> None:
    result = run("render", folder / "late" / "gt" / "gt.txt", "-o", tmp_path / "a.gif", option, value)
    assert isinstance(result.exception, SettingError)
    assert option in str(result.exception)


def test_covariances_come_back_from_a_file_and_errors_name_the_line(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    root = generator.normal(size=(3, 4, 4))
    boxes = from_space(generator.uniform(10, 20, (3, 4)), "xywh")
    covariance = BoxCovariance(root @ root.transpose(0, 2, 1), "xywh", "px")
    whole = Detections(boxes, generator.random(3), np.array([0, 2, 1]), covariance)
    path = tmp_path / "det.txt"
    write_mot_covariances(path, {7: whole[[2]], 3: whole[:2], 4: whole[[]]})
    found = read_mot_covariances(path)
    assert list(found) == [3, 7]
    np.testing.assert_allclose(found[3].boxes, boxes[:2])
    assert found[3].classes.tolist() == [0, 2]
    assert found[3].covariance is not None
    np.testing.assert_allclose(found[3].covariance.matrices, covariance.matrices[:2])

    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line, message in (
        (2, lines[1].rsplit(",", 1)[0], "line 2.*19 values"),
        (2, lines[1].rsplit(",", 1)[0] + ",-5", "line 2.*negative eigenvalue"),
        (3, lines[2].replace("7,", "1,", 1), "line 3.*frames in order"),
        (1, lines[0].replace(lines[0].split(",")[4], "0", 1), "line 1.*positive width"),
        (1, lines[0] + "x", "line 1.*numbers"),
    ):
        path.write_text("\n".join([*lines[: number - 1], line, *lines[number:]]), encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_mot_covariances(path)
    with pytest.raises(DataError, match="frame 1 without covariances"):
        write_mot_covariances(path, {1: Detections(boxes)})
