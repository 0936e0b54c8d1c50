"""The check of a truth's identities, and their repair."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mot_cup import Tracks
from mot_cup.identities import IdentityCheck, check_identities, identity_table, relink
from mot_cup.io import read_kitti_tracks, read_mot_tracks
from tenfold import DataError, SettingError

DATA = Path(os.environ.get("TENFOLD_DATA", "")) / "tracking"
real = pytest.mark.skipif(not (DATA / "v2xsim").is_dir(), reason="TENFOLD_DATA has no tracking files")


def traffic(seed: int, frames: int = 100, cars: int = 40) -> Tracks:
    """Simulate cars on lanes of both directions at 5 Hz, in pixels of 0.25 m, coming and going."""
    generator = np.random.default_rng(seed)
    frame, car = (grid.ravel() for grid in np.mgrid[1 : frames + 1, 0:cars])
    lane, along = generator.integers(0, 8, cars), generator.random(cars) < 0.5
    speed = np.where(lane % 2, -1, 1) * generator.uniform(0, 12, cars)
    start = generator.uniform(0, 256, cars) - np.minimum(speed * frames / 2, 0)
    # A lane's cars are as fast as its first, and keep their distance.
    for number in range(8):
        for direction in (False, True):
            mates = np.flatnonzero((lane == number) & (along == direction))
            if len(mates):
                speed[mates] = speed[mates[0]]
                start[mates] = start[mates[0]] + 30 * np.arange(len(mates))
    here = start[car] + speed[car] * frame + 2 * np.sin(frame / 7 + car)
    centre = np.where(
        along[car, None], np.stack([here, 20.0 * lane[car]], 1), np.stack([20.0 * lane[car], here], 1)
    )
    size = np.where(along[car, None], [18.0, 8.0], [8.0, 18.0])
    there = (here > -20) & (here < 276)
    return Tracks(
        frame[there], car[there], np.concatenate([centre - size / 2, centre + size / 2], axis=1)[there]
    )


def scrambled(truth: Tracks, seed: int, share: float = 1.0) -> Tracks:
    """Permute the identities of a share of the frames."""
    generator = np.random.default_rng(seed)
    ids = truth.ids.copy()
    for _, rows in truth.by_frame():
        if generator.random() < share:
            ids[rows] = generator.permutation(ids[rows])
    return replace(truth, ids=ids)


def links(tracks: Tracks) -> set[tuple[int, int]]:
    """Return the rows of every two successive boxes of an identity in consecutive frames."""
    order = np.lexsort((tracks.frames, tracks.ids))
    same = (np.diff(tracks.ids[order]) == 0) & (np.diff(tracks.frames[order]) == 1)
    return set(zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True))


def test_disjoint_pairs_are_counted() -> None:
    boxes = np.array([[0.0, 0, 2, 2], [5, 5, 7, 7], [1, 1, 3, 3], [5, 7, 7, 9], [9, 9, 10, 10]])
    truth = Tracks(np.array([1, 1, 2, 2, 4]), np.array([0, 1, 0, 1, 0]), boxes)
    # The second object's boxes share an edge only; the first's last box is not in the next frame.
    check = check_identities(truth)
    assert (check.pairs, check.disjoint, check.share) == (2, 1, 0.5)
    assert check_identities(truth[:0]).share == 0
    table = identity_table({"a": truth, "b": truth[:2]})
    assert table.rows == [["a", "2", "1", "50.0 %"], ["b", "0", "0", "0.0 %"], ["all", "2", "1", "50.0 %"]]


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_scrambled_identities_are_recovered(share: float) -> None:
    for seed in range(5):
        truth = traffic(seed)
        wrong = scrambled(truth, seed, share)
        assert check_identities(wrong).share > 0.2
        mended = relink(wrong)
        right, found = links(truth), links(mended)
        assert len(right & found) >= 0.995 * len(right)
        assert len(right & found) >= 0.995 * len(found)
        assert check_identities(mended).share <= check_identities(truth).share + 0.005
        assert (mended.boxes == truth.boxes).all()
        assert np.unique(mended.ids).tolist() == list(range(len(np.unique(mended.ids))))


def test_published_identities_have_no_say() -> None:
    truth = traffic(1)
    assert (relink(truth).ids == relink(scrambled(truth, 2)).ids).all()


def test_an_object_is_expected_for_as_long_as_told() -> None:
    """A car at 12 pixels a frame, out of sight for two frames."""
    frames = np.array([1, 2, 3, 6, 7])
    corners = np.stack([12.0 * frames, np.zeros(5)], axis=1)
    truth = Tracks(frames, np.arange(5), np.concatenate([corners, corners + np.array([18, 8])], axis=1))
    assert relink(truth, memory=2).ids.tolist() == [0] * 5
    assert relink(truth, memory=1).ids.tolist() == [0, 0, 0, 1, 1]
    assert relink(truth, memory=2, reach=0.5).ids.tolist() == [0, 1, 2, 3, 4]


def test_what_cannot_be_mended_is_refused() -> None:
    truth = traffic(0, frames=3)
    with pytest.raises(SettingError, match="reach 0"):
        relink(truth, reach=0)
    with pytest.raises(SettingError, match="memory -1"):
        relink(truth, memory=-1)
    with pytest.raises(DataError, match="in frame 1; expected x1 < x2"):
        relink(replace(truth, boxes=np.where(np.arange(len(truth))[:, None] == 2, 0.0, truth.boxes)))
    assert len(relink(truth[:0])) == 0


@real
def test_kittis_identities_are_recovered() -> None:
    kept = right = found = 0
    for path in sorted((DATA / "kitti" / "label").glob("*.txt")):
        truth = read_kitti_tracks(path).tracks()
        mended = relink(scrambled(truth, 0))
        kept += len(links(truth) & links(mended))
        right += len(links(truth))
        found += len(links(mended))
    assert kept / right > 0.998
    assert kept / found > 0.998


@real
def test_v2xsims_identities_are_corrupt_and_mended() -> None:
    before = after = IdentityCheck(0, 0)
    kept = overlapping = 0
    for path in sorted((DATA / "v2xsim" / "gt").glob("V2X-val*/*/gt/gt.txt")):
        truth = read_mot_tracks(path)
        mended = relink(truth)
        before += check_identities(truth)
        after += check_identities(mended)
        plausible = {
            (a, b)
            for a, b in links(truth)
            if (np.minimum(*truth.boxes[[a, b], 2:]) > np.maximum(*truth.boxes[[a, b], :2])).all()
        }
        overlapping += len(plausible)
        kept += len(plausible & links(mended))
    assert before.share == pytest.approx(0.177, abs=0.0005)
    assert after.share < 0.025
    # As many pairs, and nearly all of those that were plausible.
    assert after.pairs > 0.99 * before.pairs
    assert kept / overlapping > 0.997
