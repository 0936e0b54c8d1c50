"""Results of supervision and torchvision, in and out."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import supervision
import torch

from mot_cup import BoxCovariance, ByteTrack, Sort
from mot_cup.adapters import from_supervision, from_torchvision, to_supervision
from tenfold import DataError

EXAMPLE = Path(__file__).parents[1] / "examples" / "torchvision_script.py"
BOXES = np.array([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 70.0, 60.0], [90.0, 0.0, 99.0, 9.0]], np.float32)


def seen(frame: int) -> supervision.Detections:
    return supervision.Detections(
        xyxy=BOXES + frame,
        confidence=np.array([0.9, 0.2, 0.8]),
        class_id=np.array([1, 2, 3]),
        data={"name": np.array(["a", "b", "c"])},
    )


def test_supervision_gets_the_boxes_of_tracks_with_identities_and_its_own_data() -> None:
    tracker, ids = ByteTrack(track_thresh=0.5), []
    for frame in range(3):
        found = seen(frame)
        tracked = to_supervision(found, tracker.update(from_supervision(found)))
        assert sorted(tracked.data["name"]) == ["a", "c"]
        kinds = dict(zip(tracked.data["name"].tolist(), tracked.class_id.tolist(), strict=True))
        assert kinds == {"a": 1, "c": 3}
        ids.append(dict(zip(tracked.data["name"].tolist(), tracked.tracker_id.tolist(), strict=True)))
        assert np.abs(tracked.xyxy - found.xyxy[[0, 2]][np.argsort(tracked.data["name"])]).max() < 3
    assert ids[0] == ids[1] == ids[2]
    assert len(set(ids[0].values())) == 2


def test_supervision_without_confidence_and_without_anything() -> None:
    bare = supervision.Detections(xyxy=BOXES)
    assert from_supervision(bare).scores.tolist() == [1, 1, 1]
    empty = supervision.Detections.empty()
    tracked = to_supervision(empty, Sort().update(from_supervision(empty)))
    assert len(tracked) == 0
    with pytest.raises(DataError, match="and 0 detections"):
        to_supervision(empty, Sort().update(from_supervision(bare)))


def test_torchvision_gives_boxes_scores_labels_and_variances() -> None:
    output = {
        "boxes": torch.from_numpy(BOXES).requires_grad_(),
        "scores": torch.tensor([0.9, 0.2, 0.8]),
        "labels": torch.tensor([1, 2, 3]),
    }
    found = from_torchvision(output)
    assert found.boxes.tolist() == BOXES.tolist()
    assert found.scores == pytest.approx([0.9, 0.2, 0.8])
    assert found.classes.tolist() == [1, 2, 3]
    assert found.covariance is None
    sure = from_torchvision(output | {"log_variances": torch.log(torch.full((3, 4), 4.0))}, "xyxy")
    expected = BoxCovariance.diagonal(np.full((3, 4), 4.0), "xyxy", "px")
    assert sure.covariance is not None
    assert sure.covariance.space == "xyxy"
    assert sure.covariance.matrices == pytest.approx(expected.matrices)
    with pytest.raises(DataError, match="boxes, scores and labels"):
        from_torchvision({"boxes": output["boxes"]})


def test_the_example_tracks(capsys: pytest.CaptureFixture[str]) -> None:
    assert runpy.run_path(str(EXAMPLE))["main"]() > 10
    assert "identities" in capsys.readouterr().out
