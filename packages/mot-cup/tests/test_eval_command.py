"""The command ``mot-cup eval`` from files to figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trackeval
from typer.testing import CliRunner, Result

from mot_cup import Tracks
from mot_cup.eval_command import eval_command
from mot_cup.io import SequenceInfo, write_mot_tracks, write_sequence_info
from mot_cup.metrics import combine, evaluate
from tenfold import DataError, SettingError
from tenfold.experiment.cli import command_line

app = command_line(help="Tracking.")
app.command("eval")(eval_command)


def mot_cup_eval(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["eval", *arguments])


def pairs(seed: int) -> tuple[Tracks, Tracks]:
    generator = np.random.default_rng(seed)
    frames, ids = (grid.ravel() for grid in np.mgrid[1:21, 0:5])
    corners = 30.0 * ids[:, None] + frames[:, None] * generator.uniform(-2, 2, (5, 2))[ids]
    boxes = np.concatenate([corners, corners + 12], axis=1)
    some = generator.random(100) < 0.8
    noise = np.tile(generator.normal(0, 1, (100, 2)), 2)
    return Tracks(frames, ids, boxes), Tracks(
        frames[some], ids[some] + (frames > 12)[some], (boxes + noise)[some]
    )


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two sequences, one with its length, the tracks of the other in a folder of their own."""
    gt, out = tmp_path / "gt", tmp_path / "out"
    for seed, name in enumerate(("a", "b")):
        truth, tracks = pairs(seed)
        write_mot_tracks(gt / name / "gt" / "gt.txt", truth)
        write_mot_tracks(out / ("." if seed else "data") / f"{name}.txt", tracks)
    write_sequence_info(gt / "a" / "seqinfo.ini", SequenceInfo("a", 10, 40, 100, 100))
    return gt, out


def test_folders_to_figures(folders: tuple[Path, Path], tmp_path: Path) -> None:
    gt, out = map(str, folders)
    written = tmp_path / "figures.json"
    result = mot_cup_eval("--gt", gt, "--tracks", out, "--json", str(written))
    assert result.exit_code == 0, result.output
    document = json.loads(written.read_text())
    scores = [evaluate(*pairs(0), frames=40), evaluate(*pairs(1))]
    for figures, expected in (
        (document["sequences"]["a"], scores[0].figures()),
        (document["sequences"]["b"], scores[1].figures()),
        (document["combined"], combine(scores).figures()),
        (document["mean"], {"HOTA": (scores[0]["HOTA"] + scores[1]["HOTA"]) / 2}),
    ):
        assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert document["sequences"]["a"]["CLR_Frames"] == 40
    assert document["curves"]["HOTA"] == pytest.approx(combine(scores).hota.curves()["HOTA"].tolist())
    for text in ("together", f"{100 * combine(scores)['HOTA']:.2f}", "IDSW"):
        assert text in result.output
    assert "--relink" not in result.output


def test_figures_on_stdout_are_json_alone(folders: tuple[Path, Path]) -> None:
    gt, out = folders
    result = mot_cup_eval(
        "--gt", str(gt / "b" / "gt" / "gt.txt"), "--tracks", str(out / "b.txt"), "--json", "-"
    )
    assert list(json.loads(result.stdout)["sequences"]) == ["b"]
    assert "together" in result.stderr


def test_doubtful_identities_are_told_and_mended(folders: tuple[Path, Path]) -> None:
    gt, out = folders
    truth, _ = pairs(1)
    swapped = np.where(truth.frames % 2, truth.ids, 4 - truth.ids)
    write_mot_tracks(gt / "b" / "gt" / "gt.txt", Tracks(truth.frames, swapped, truth.boxes))
    arguments = ["--gt", str(gt / "b"), "--tracks", str(out), "--json", "-"]
    raw, mended = mot_cup_eval(*arguments), mot_cup_eval(*arguments, "--relink")
    assert "80.0 % of the truth's boxes do not overlap" in raw.stderr
    assert "80.0 %" not in mended.stderr
    assert "truth relinked" in mended.stderr
    figures = json.loads(mended.stdout)["combined"]
    assert figures["AssA"] == pytest.approx(evaluate(*pairs(1))["AssA"])
    assert json.loads(raw.stdout)["combined"]["AssA"] < figures["AssA"] - 0.1
    assert json.loads(raw.stdout)["combined"]["DetA"] == pytest.approx(figures["DetA"])


def test_benchmarks_leave_boxes_out(tmp_path: Path) -> None:
    gt, out = tmp_path / "gt.txt", tmp_path / "out.txt"
    gt.write_text("1,1,0,0,9,9,1,1,1\n1,2,20,0,9,9,0,8,1\n1,3,40,0,9,9,0,1,1\n")
    out.write_text("1,1,0,0,9,9,1,-1,-1,-1\n1,2,20,0,9,9,1,-1,-1,-1\n")
    for benchmark, counts in (("none", (2, 1, 0)), ("MOT17", (1, 0, 0)), ("MOT15", (1, 0, 1))):
        result = mot_cup_eval("--gt", str(gt), "--tracks", str(out), "--preprocess", benchmark, "--json", "-")
        figures = json.loads(result.stdout)["combined"]
        assert (figures["CLR_TP"], figures["CLR_FN"], figures["CLR_FP"]) == counts, benchmark
    rest = "-1000 -1000 -1000 -10 -1 -1 -1"
    (tmp_path / "kitti").mkdir()
    (tmp_path / "kitti" / "0000.txt").write_text(
        f"0 -1 DontCare -1 -1 -10 100 0 150 50 {rest}\n0 1 Car 0 0 -10 0 0 50 50 {rest}\n"
    )
    out.write_text(f"0 1 Car 0 0 -10 0 0 50 50 {rest} 1\n0 2 Car 0 0 -10 100 0 140 50 {rest} 1\n")
    for benchmark, fp in (("none", 1), ("KITTI", 0)):
        result = mot_cup_eval(
            "--gt", str(tmp_path / "kitti"), "--tracks", str(out), "--preprocess", benchmark, "--json", "-"
        )
        figures = json.loads(result.stdout)["combined"]
        assert (figures["CLR_TP"], figures["CLR_FP"]) == (1, fp), benchmark


def test_what_is_missing_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    gt, out = folders

    def error(*arguments: Path | str) -> BaseException | None:
        return mot_cup_eval("--gt", str(arguments[0]), "--tracks", *map(str, arguments[1:])).exception

    (empty := tmp_path / "empty").mkdir()
    for arguments, kind, message in (
        ((tmp_path / "gone", out), DataError, "no file or folder"),
        ((empty, out), DataError, "no truth in"),
        ((gt, out / "b.txt"), SettingError, "one file of tracks for 2 sequences"),
        ((gt, empty), DataError, "no tracks of sequence a"),
        ((gt, out, "--threshold", "2"), SettingError, "threshold 2"),
    ):
        raised = error(*arguments)
        assert isinstance(raised, kind)
        assert message in str(raised)
    write_sequence_info(gt / "a" / "seqinfo.ini", SequenceInfo("a", 10, 15, 100, 100))
    assert "sequence a: 15 frames and boxes over 20" in str(error(gt, out))
    (out / "b.txt").write_text("1,1,0,0,9,9,1,-1,-1,-1\n2,1,0,0,nan,9,1,-1,-1,-1\n")
    assert "b.txt, line 2: '2,1,0,0,nan,9,1,-1,-1,-1'; expected finite" in str(error(gt / "b", out))
    (out / "b.txt").write_text("")
    result = mot_cup_eval("--gt", str(gt / "b"), "--tracks", str(out), "--json", "-")
    assert json.loads(result.stdout)["combined"]["CLR_FN"] == 100


@pytest.mark.parametrize("benchmark", ["MOT15", "MOT17"])
def test_from_file_to_figure_as_trackeval(tmp_path: Path, benchmark: str) -> None:
    """The whole way: truth with distractors and marks, folders, reading, leaving out, matching, adding up."""
    lengths = {}
    for seed, name in enumerate(("a", "b", "c")):
        truth, tracks = pairs(seed)
        generator = np.random.default_rng(seed)
        classes, marks = generator.choice([1, 1, 1, 7, 8], 100), generator.choice([0, 1, 1, 1], 100)
        truth = Tracks(truth.frames, truth.ids, truth.boxes, marks, classes)
        lengths[name] = 20 + seed
        write_mot_tracks(tmp_path / "gt" / name / "gt" / "gt.txt", truth)
        write_sequence_info(
            tmp_path / "gt" / name / "seqinfo.ini", SequenceInfo(name, 10, lengths[name], 100, 100)
        )
        write_mot_tracks(tmp_path / "out" / "ours" / "data" / f"{name}.txt", tracks)
    quiet = {"PRINT_CONFIG": False}
    dataset = trackeval.datasets.MotChallenge2DBox(
        {
            "GT_FOLDER": str(tmp_path / "gt"),
            "TRACKERS_FOLDER": str(tmp_path / "out"),
            "BENCHMARK": benchmark,
            "SKIP_SPLIT_FOL": True,
            "SEQ_INFO": lengths,
            **quiet,
        }
    )
    metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet), trackeval.metrics.Identity(quiet)]
    names = (
        "PRINT_RESULTS",
        "PRINT_CONFIG",
        "TIME_PROGRESS",
        "OUTPUT_SUMMARY",
        "OUTPUT_DETAILED",
        "PLOT_CURVES",
    )
    evaluator = trackeval.Evaluator(dict.fromkeys(names, False))
    results, _ = evaluator.evaluate([dataset], metrics, show_progressbar=False)
    expected = results["MotChallenge2DBox"]["ours"]
    run = mot_cup_eval(
        *("--gt", str(tmp_path / "gt"), "--tracks", str(tmp_path / "out" / "ours")),
        *("--preprocess", benchmark, "--json", "-"),
    )
    document = json.loads(run.stdout)
    for name, figures in {**document["sequences"], "COMBINED_SEQ": document["combined"]}.items():
        fields = expected[name]["pedestrian"]
        for metric in ("CLEAR", "Identity"):
            for field, value in fields[metric].items():
                assert figures[field] == pytest.approx(value, rel=0, abs=1e-9), (name, field)
        for field in ("HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr", "OWTA"):
            assert figures[field] == pytest.approx(np.mean(fields["HOTA"][field]), rel=0, abs=1e-9), (
                name,
                field,
            )


def test_frames_with_numbers_as_large_as_times_are_counted_as_others(tmp_path: Path) -> None:
    found = []
    for step in (1, 10**13):
        truth, tracks = pairs(0)
        write_mot_tracks(tmp_path / "gt.txt", replace(truth, frames=truth.frames * step))
        write_mot_tracks(tmp_path / "out.txt", replace(tracks, frames=tracks.frames * step))
        files = "--gt", str(tmp_path / "gt.txt"), "--tracks", str(tmp_path / "out.txt")
        result = mot_cup_eval(*files, "--json", "-")
        assert result.exit_code == 0, result.output
        found.append(json.loads(result.stdout)["combined"])
    assert [figures.pop("CLR_Frames") for figures in found] == [20, 19 * 10**13 + 1]
    assert found[0] == found[1]
