"""The three trackers of ``mot-cup run`` and ``mot-cup gain``: how they are tuned, judged and compared."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from mot_cup import Detections, Tracks
from mot_cup._contest import METHODS, SPACE, Candidate, Clip, draw, judge, tracker
from mot_cup._contest_data import Contest, Fold, error_model, kitti_cars, simulated, v2x_sim
from mot_cup._contest_search import neighbours, tune
from mot_cup.conformal import Matches
from mot_cup.experiments import Settings, run
from mot_cup.gain import MISREPORTED, gain
from mot_cup.gain import Settings as GainSettings
from mot_cup.metrics import Scores, combine
from mot_cup.simulation import SceneSettings
from tenfold import SettingError

SMALL = SceneSettings(frames=25, cars=20, agents=2)


@pytest.fixture
def real() -> None:
    folder = os.environ.get("TENFOLD_DATA")
    if not folder or not (Path(folder) / "tracking" / "kitti").is_dir():
        pytest.skip("TENFOLD_DATA does not name a folder with tracking/v2xsim and tracking/kitti")


def one(contest: Contest, method: str) -> Candidate:
    return draw(contest.space(method), 1, np.random.default_rng(0))[0]


def test_draws_are_of_the_same_space_and_alike_by_seed() -> None:
    space = {"frames": ("a", "b"), **SPACE}
    drawn = draw(space, 50, np.random.default_rng(0))
    assert drawn == draw(space, 50, np.random.default_rng(0))
    for name, values in space.items():
        assert {getattr(item, name) for item in drawn} <= set(values)
        assert len({getattr(item, name) for item in drawn}) > 1


def test_all_that_needs_no_covariance_is_open_to_both() -> None:
    contest = simulated(SMALL, 1, 1, [0])
    control, ours = contest.space("constant"), contest.space("covariance")
    assert {name: control[name] for name in SPACE} == {name: ours[name] for name in SPACE}
    assert len(control["frames"]) == len(ours["frames"])
    assert any(name.startswith("corrected") for name in control["frames"])


def test_neighbours_differ_in_one_value_by_one_place() -> None:
    space = {"frames": ("a", "b", "c"), **SPACE}
    (candidate,) = draw(space, 1, np.random.default_rng(0))
    candidate = dataclasses.replace(candidate, frames="b", max_age=1, coast=4)
    assert [item.frames for item in neighbours(candidate, "frames", space)] == ["a", "c"]
    assert neighbours(candidate, "max_age", space) == [dataclasses.replace(candidate, max_age=3)]
    assert [item.coast for item in neighbours(candidate, "coast", space)] == [2, 8]


def test_tuning_sees_no_other_scenes_and_no_neighbour_is_better() -> None:
    contest = simulated(SMALL, 3, 1, [0])
    fold = contest.folds[0]()
    judged: list[str] = []

    def watched(clip: Clip) -> Clip:
        def score(tracks: Tracks) -> Scores:
            judged.append(clip.group)
            return clip.score(tracks)

        return dataclasses.replace(clip, score=score)

    def hota(candidate: Candidate) -> float:
        return combine(judge("covariance", candidate, clip) for clip in fold.tune)["HOTA"]

    seen = Fold([watched(clip) for clip in fold.tune], [watched(clip) for clip in fold.judge])
    chosen = tune(contest, "covariance", seen, 10, np.random.default_rng(1))
    assert set(judged) == {"0", "1", "2"}
    space = contest.space("covariance")
    first = draw(space, 10, np.random.default_rng(1))
    few = [judge("covariance", item, fold.tune[0])["HOTA"] for item in first]
    assert hota(chosen) >= hota(first[int(np.argmax(few))])
    again = tune(contest, "covariance", fold, 10, np.random.default_rng(1))
    assert again == chosen


def test_the_control_sees_no_covariance_and_the_default_no_setting() -> None:
    contest = simulated(SMALL, 1, 1, [0])
    clip = contest.folds[0]().tune[0]
    candidate = dataclasses.replace(one(contest, "constant"), frames="mean")
    control = tracker("constant", candidate)
    bare = {f: Detections(d.boxes, d.scores, d.classes) for f, d in clip.frames["mean"].items()}
    assert np.array_equal(control.track(clip.frames["mean"]).boxes, control.track(bare).boxes)
    other = dataclasses.replace(candidate, max_age=20, overlap=0.01)
    default = [tracker("default", item).track(clip.frames["best"]).boxes for item in (candidate, other)]
    assert np.array_equal(*default)


def test_an_error_model_finds_deviations_that_grow_with_the_height() -> None:
    generator = np.random.default_rng(0)
    heights = np.exp(generator.uniform(3, 5, 4000))
    corner = generator.uniform(0, 500, (4000, 2))
    truth = np.concatenate([corner, corner + heights[:, None] * [1.5, 1]], axis=1)
    errors = 0.05 * heights[:, None] * generator.normal(size=(4000, 2))
    found = Detections(truth + np.tile(errors, 2), generator.uniform(0, 1, 4000))
    model = error_model(Matches(np.arange(4000), found, truth))
    covariance = model(found).covariance
    assert covariance is not None
    deviations = np.sqrt(np.diagonal(covariance.matrices, axis1=1, axis2=2))
    assert np.median(deviations[:, 0] / (0.05 * heights)) == pytest.approx(1, abs=0.1)
    assert np.corrcoef(np.log(deviations[:, 1]), np.log(heights))[0, 1] > 0.95


def test_run_reports_the_three_and_resumes_to_the_same(tmp_path: Path) -> None:
    settings = Settings(draws=3, tune=1, judge=1)
    record = run.execute(settings, seed=1, out=tmp_path / "a")
    again = run.execute(settings, seed=1, out=tmp_path / "b")
    assert record.metrics == again.metrics
    for figure in ("HOTA", "MOTA", "MOTP", "IDF1"):
        ours, control = (record.metrics[f"{name}/{figure}"] for name in ("covariance", "constant"))
        assert record.metrics[f"gain over constant/{figure}"] == pytest.approx(ours - control)
    table = run.tables["methods"]([record, again])
    assert [row[0] for row in table.rows[:3]] == list(METHODS.values())
    assert "2 seeds" in table.title


def test_gain_has_a_row_for_every_spread_and_every_misreport(tmp_path: Path) -> None:
    settings = GainSettings(spreads=(0.0, 0.9), draws=2, tune=1, judge=1)
    record = gain.execute(settings, out=tmp_path)
    assert [row[0] for row in gain.tables["gain"]([record]).rows] == [
        "exact poses, 0",
        "exact poses, 0.9",
        "uncertain poses, 0",
        "uncertain poses, 0.9",
    ]
    honesty = gain.tables["honesty"]([record])
    assert [row[0] for row in honesty.rows] == list(MISREPORTED)
    assert len({row[1] for row in honesty.rows[:4]}) == 1  # the control does not look at what is reported
    assert gain.plot([record], tmp_path)[0].stat().st_size > 1000


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"judge": 0}, {"position_std": -1.0}])
def test_impossible_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        dataclasses.replace(Settings(), **wrong)
    with pytest.raises(SettingError):
        dataclasses.replace(GainSettings(), **wrong)


def test_default_sort_on_v2x_sim_is_the_paper_s(real: None) -> None:
    contest = v2x_sim(mended=False)
    fold = contest.folds[0]()
    clips = [*fold.tune, *fold.judge]
    assert len({clip.group for clip in clips}) == 10
    assert len(contest.folds) == 10
    candidate = one(contest, "default")
    views: dict[str, Scores] = {}
    for clip in clips:
        scores = judge("default", candidate, clip)
        views[clip.view] = views[clip.view] + scores if clip.view in views else scores
    means = [100 * np.mean([scores[name] for scores in views.values()]) for name in ("HOTA", "MOTA", "MOTP")]
    assert means == pytest.approx([41.41, 56.57, 86.58], abs=0.005)


def test_every_kitti_sequence_is_judged_once_by_what_the_others_fitted(real: None) -> None:
    contest = kitti_cars()
    judged = [fold().judge for fold in contest.folds]
    assert [len(clips) for clips in judged] == [1] * 7
    assert sorted(clips[0].group for clips in judged) == ["1", "10", "12", "13", "14", "6", "8"]
    clip = judged[0][0]
    frames = clip.frames["modelled, from 2"]
    assert all(found.covariance is not None for found in frames.values())
