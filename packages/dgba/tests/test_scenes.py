import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from dgba._tasks import losses_of
from dgba.datasets import CHANNELS, CLASSES, scene_tasks, scenes
from dgba.datasets import _scenes as module
from tenfold import SettingError, UnknownNameError


@pytest.fixture(scope="module")
def rooms():
    return scenes(24, 33, seed=3)


def test_images_and_targets_are_as_described(rooms):
    assert rooms.images.shape == (24, 3, 33, 33)
    assert rooms.images.dtype == torch.float32
    assert 0 <= rooms.images.min() < 0.2 < 0.8 < rooms.images.max() <= 1
    segmentation = rooms.targets["segmentation"]
    assert segmentation.dtype == torch.int64
    assert segmentation.shape == (24, 33, 33)
    assert set(segmentation.unique().tolist()) == set(range(len(CLASSES)))
    for name in ("depth", "normals", "edges", "keypoints"):
        assert rooms.targets[name].shape == (24, CHANNELS[name], 33, 33)
        assert rooms.targets[name].dtype == torch.float32
    for name in ("edges", "keypoints"):
        assert rooms.targets[name].min() >= 0
        assert 0.5 < rooms.targets[name].max() <= 1
    # No room is longer than 6 m, nor its diagonal than 9.1 m.
    assert rooms.targets["depth"].min() > module.NEAR
    assert rooms.targets["depth"].max() < 9.1


def test_the_tasks_read_their_targets(rooms):
    images, targets = next(iter(DataLoader(rooms, 4)))
    assert torch.equal(images, rooms.images[:4])
    outputs = {name: torch.rand(4, channels, 33, 33) for name, channels in CHANNELS.items()}
    losses = losses_of(scene_tasks(), outputs, targets)
    assert list(losses) == list(CHANNELS)
    classes = torch.nn.functional.one_hot(targets["segmentation"], CHANNELS["segmentation"])
    perfect = {**targets, "segmentation": 50.0 * classes.movedim(-1, 1)}
    for loss in losses_of(scene_tasks(), perfect, targets).values():
        torch.testing.assert_close(loss, torch.zeros(4), atol=1e-5, rtol=0)


def test_a_scene_depends_on_seed_split_and_position_alone():
    many, few = scenes(40, 32, seed=5), scenes(3, 32, seed=5)
    assert torch.equal(many.images[:3], few.images)
    for name, target in few.targets.items():
        assert torch.equal(many.targets[name][:3], target)
    others = [
        scenes(3, 32, seed=6),
        *(scenes(3, 32, seed=5, split=split) for split in ("validation", "test")),
    ]
    for i, one in enumerate((few, *others)):
        for other in (few, *others)[i + 1 :]:
            assert not torch.isclose(one.images, other.images).flatten(1).all(1).any()


def test_normals_have_length_one_and_face_the_camera(rooms):
    normals = rooms.targets["normals"]
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(24, 33, 33), atol=3e-4, rtol=0)
    # The middle ray of an odd number runs along the optical axis.
    assert (normals[:, 2, 16, 16] < 0).all()


def test_inverse_depth_is_affine_in_pixels_on_each_plane(rooms):
    inverse, normals = 1 / rooms.targets["depth"][:, 0].double(), rooms.targets["normals"]
    room = rooms.targets["segmentation"] < 3
    for dim in (1, 2):
        before, here, after = (
            [t.narrow(d, start, t.shape[d] - 2) for t, d in ((inverse, dim), (normals, dim + 1), (room, dim))]
            for start in (0, 1, 2)
        )
        one_plane = (before[1] == here[1]).all(1) & (here[1] == after[1]).all(1)
        one_plane &= before[2] & here[2] & after[2]
        second_difference = (before[0] - 2 * here[0] + after[0])[one_plane]
        assert len(second_difference) > 10_000
        assert second_difference.abs().max() < 1e-6


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["box", "ball"]))
def test_rays_meet_boxes_and_balls_where_marching_does(seed, kind):
    generator = np.random.default_rng(seed)
    draws = generator.random((1, module.DRAWS), dtype=np.float32)
    width, height, depth = generator.uniform([3, 2.4, 3], [6, 3.2, 6])
    room = tuple(np.array([[size]], np.float32) for size in (width, height, depth))
    eye = np.array([width / 2, 1.5, 0.3])
    zero = np.zeros((1, 1), np.float32)
    view = module._View(
        tuple(eye.astype(np.float32)[:, None, None]), module._rays(8, zero, zero, zero + np.float32(0.7))
    )
    view.add_room(room)
    wall = view.t[0].copy()
    add = module._add_box if kind == "box" else module._add_ball
    add(view, module._Uniforms(draws), room, 7, present=np.array([[True]]))

    outside = {"box": box, "ball": ball}[kind](draws[0].astype(float), width, depth)
    rays = np.stack([ray[0] for ray in view.rays], -1).astype(float)
    ts, step = np.linspace(module.NEAR, 8, 1500, retstep=True)
    inside = outside(eye + ts[:, None, None] * rays) <= 0
    assume(not inside[0].any())
    marched = np.where(inside.any(0), ts[inside.argmax(0)], np.inf)

    seen = view.surface[0] == 7
    assert seen[marched + step < wall].all()
    np.testing.assert_allclose(outside(eye + view.t[0][seen][:, None] * rays[seen]), 0, atol=1e-3)
    assert (view.t[0] <= np.minimum(marched, wall) + 1e-4).all()
    assert (view.t[0][~seen] == wall[~seen]).all()


def box(draw, width, depth):
    """How far points (..., 3) lie outside the box of these draws, in the maximum norm of its axes."""
    sides = np.array([0.4, 0.3, 0.4]) + np.array([0.8, 1.1, 0.8]) * draw[:3]
    left, right = sides[0], width - sides[0]
    front, back = 0.45 * depth, depth - sides[2] / 2
    centre = np.array([left + (right - left) * draw[3], sides[1] / 2, front + (back - front) * draw[4]])
    c, s = np.cos(draw[5] * np.pi / 2), np.sin(draw[5] * np.pi / 2)
    turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    return lambda points: (np.abs((points - centre) @ turn.T) - sides / 2).max(-1)


def ball(draw, width, depth):
    """How far points (..., 3) lie outside the ball of these draws."""
    radius = 0.15 + 0.3 * draw[0]
    height = radius + (2 - radius) * draw[2] if draw[1] < 0.5 else radius
    front, back = 0.35 * depth, depth - radius
    x = radius + (width - 2 * radius) * draw[3]
    centre = np.array([x, height, front + (back - front) * draw[4]])
    return lambda points: np.linalg.norm(points - centre, axis=-1) - radius


def test_edges_are_slopes_and_corners_need_two_directions():
    ramp = np.broadcast_to(np.linspace(0, 0.5, 11, dtype=np.float32), (1, 11, 11))
    edges, corners = module._edges_and_keypoints(ramp)
    np.testing.assert_allclose(edges[0, 1:-1, 1:-1], 4 * 0.05, atol=1e-6)
    np.testing.assert_allclose(corners, 0, atol=1e-3)
    flat_edges, flat_corners = module._edges_and_keypoints(np.full((1, 9, 9), 0.3, np.float32))
    assert flat_edges.max() < 1e-6
    assert flat_corners.max() < 1e-6
    quadrant = np.zeros((1, 12, 12), np.float32)
    quadrant[:, 6:, 6:] = 0.2
    _, corners = module._edges_and_keypoints(quadrant)
    row, column = np.unravel_index(corners[0].argmax(), (12, 12))
    assert {row, column} <= {5, 6}
    assert corners[0, 9, 6] < 1e-3 < corners[0, row, column]


@pytest.mark.parametrize("bad", [{"count": -1}, {"count": 1, "seed": -1}, {"count": 1, "size": 2}])
def test_impossible_scenes_are_refused(bad):
    with pytest.raises(SettingError):
        scenes(**bad)


def test_an_unknown_split_is_refused():
    with pytest.raises(UnknownNameError, match="validation"):
        scenes(1, split="valid")
