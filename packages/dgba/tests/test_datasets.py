import builtins
import json
import pickle

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torch.utils.data import DataLoader

import dgba
from dgba.datasets import (
    MTAN,
    AdaShare,
    NYUDepth,
    ParquetNYU,
    Resized,
    Taskonomy,
    normals_of_depth,
    nyu_classes,
    nyu_split,
    scenes,
)
from tenfold import DataError, MissingExtraError, SettingError, UnknownNameError

H, W = 6, 8
GENERATOR = np.random.default_rng(0)


def directions(*shape):
    normals = GENERATOR.normal(size=(*shape, 3))
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def check_losses(sample, classes):
    """Perfect outputs of the ready-made tasks have no loss, so that all targets are as these read them."""
    images, targets = next(iter(DataLoader([sample])))
    assert images.dtype == torch.float32
    assert images.shape == (1, 3, *sample[0].shape[1:])
    assert 0 <= images.min() <= images.max() <= 1
    made = {
        "segmentation": dgba.segmentation("segmentation", classes),
        "depth": dgba.depth("depth"),
        "normals": dgba.normals("normals"),
        "edges": dgba.edges("edges"),
        "keypoints": dgba.keypoints("keypoints"),
    }
    outputs = dict(targets)
    if "segmentation" in targets:
        labels = targets["segmentation"].clone()
        labels[labels == 255] = 0
        outputs["segmentation"] = 50.0 * torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)
    losses = dgba.losses_of([made[name] for name in targets], outputs, targets)
    for loss in losses.values():
        torch.testing.assert_close(loss, torch.zeros(1), atol=1e-5, rtol=0)


@pytest.fixture
def mtan(tmp_path):
    for split, numbers in (("train", (0, 1, 2, 10)), ("val", (0,))):
        for kind in ("image", "label", "depth", "normal"):
            (tmp_path / split / kind).mkdir(parents=True)
        for number in numbers:
            label = GENERATOR.integers(-1, 13, (H, W)).astype(np.float64)
            label[0, 0] = -1
            normal = directions(H, W)
            normal[1, 1] = 0
            arrays = {
                "image": np.full((H, W, 3), number / 10),
                "label": label,
                "depth": GENERATOR.uniform(0, 5, (H, W, 1)),
                "normal": normal,
            }
            for kind, array in arrays.items():
                np.save(tmp_path / split / kind / f"{number}.npy", array)
    return tmp_path


def test_mtan_reads_what_was_written(mtan):
    data = MTAN(mtan)
    assert [data[i][0][0, 0, 0].item() for i in range(len(data))] == pytest.approx([0, 0.1, 0.2, 1.0])
    assert len(MTAN(mtan, "val")) == 1
    _, targets = data[3]
    label = np.load(mtan / "train" / "label" / "10.npy")
    assert targets["segmentation"][0, 0] == 255
    assert (targets["segmentation"].numpy()[label >= 0] == label[label >= 0]).all()
    depth = np.load(mtan / "train" / "depth" / "10.npy").transpose(2, 0, 1)
    torch.testing.assert_close(targets["depth"], torch.from_numpy(depth).float())
    assert not targets["normals"][:, 1, 1].any()
    check_losses(data[3], 13)


def test_mtan_names_what_is_wrong(mtan):
    with pytest.raises(UnknownNameError, match="val"):
        MTAN(mtan, "test")
    with pytest.raises(DataError, match=r"<number>\.npy"):
        MTAN(mtan / "nowhere")
    (mtan / "train" / "depth" / "1.npy").write_bytes(b"none")
    with pytest.raises(DataError, match=r"depth/1\.npy"):
        MTAN(mtan)[1]
    np.save(mtan / "train" / "label" / "0.npy", np.zeros((H, W - 1)))
    with pytest.raises(DataError, match="segmentation of"):
        MTAN(mtan)[0]
    np.save(mtan / "train" / "image" / "2.npy", np.full((H, W, 3), 200.0))
    with pytest.raises(DataError, match="from 200"):
        MTAN(mtan)[2]


@pytest.fixture
def nyu(tmp_path):
    h5py = pytest.importorskip("h5py")
    images = GENERATOR.integers(0, 256, (3, 3, W, H), dtype=np.uint8)
    depths = GENERATOR.uniform(1, 5, (3, W, H)).astype(np.float32)
    labels = GENERATOR.integers(0, 895, (3, W, H)).astype(np.uint16)
    labels[:, 0, 0] = 0
    with h5py.File(tmp_path / "nyu.mat", "w") as file:
        file.update({"images": images, "depths": depths, "labels": labels})
    scipy.io.savemat(tmp_path / "classMapping40.mat", {"mapClass": np.arange(894)[None] % 40 + 1})
    scipy.io.savemat(tmp_path / "splits.mat", {"trainNdxs": [[1], [3]], "testNdxs": [[2]]})
    return tmp_path, images, depths, labels


def test_nyu_is_transposed_and_its_labels_mapped(nyu):
    folder, images, depths, labels = nyu
    classes = nyu_classes(folder / "classMapping40.mat")
    data = NYUDepth(folder / "nyu.mat", classes=classes, indices=nyu_split(folder / "splits.mat", "train"))
    assert len(data) == 2
    image, targets = data[1]
    for u, v in ((0, 0), (5, 2), (7, 5)):
        assert (image[:, v, u].numpy() * 255).round().tolist() == images[2, :, u, v].tolist()
        assert targets["depth"][0, v, u] == depths[2, u, v]
        raw = int(labels[2, u, v])
        assert targets["segmentation"][v, u] == (255 if raw == 0 else (raw - 1) % 40)
    check_losses(data[1], 40)
    assert nyu_split(folder / "splits.mat", "test") == [1]
    assert "segmentation" not in NYUDepth(folder / "nyu.mat")[0][1]


def test_nyu_can_be_sent_to_other_processes(nyu):
    folder, *_ = nyu
    data = NYUDepth(folder / "nyu.mat")
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[0][0], data[0][0])


def test_nyu_names_what_is_wrong(nyu, monkeypatch):
    folder, *_ = nyu
    with pytest.raises(DataError, match=r"none\.mat"):
        NYUDepth(folder / "none.mat")
    with pytest.raises(SettingError, match="index 3"):
        NYUDepth(folder / "nyu.mat", indices=[3])
    with pytest.raises(DataError, match="label"):
        NYUDepth(folder / "nyu.mat", classes=[255])[0]
    with pytest.raises(DataError, match="mapClass"):
        nyu_classes(folder / "splits.mat")
    with pytest.raises(UnknownNameError, match="train"):
        nyu_split(folder / "splits.mat", "val")
    without(monkeypatch, "h5py")
    with pytest.raises(MissingExtraError, match=r"dgba\[nyu\]"):
        NYUDepth(folder / "nyu.mat")


def without(monkeypatch, module):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] == module:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize("normal", [(0.0, 0.0, -1.0), (0.6, 0.0, -0.8), (-0.2, 0.9, -0.3)])
def test_normals_of_a_plane_s_depth_are_the_plane_s(normal):
    n = np.array(normal) / np.linalg.norm(normal)
    focal, centre = (40.0, 42.0), (15.5, 11.0)
    v, u = np.mgrid[:24, :32]
    rays = np.stack([(u - centre[0]) / focal[0], (centre[1] - v) / focal[1], np.ones_like(u)], -1)
    towards = rays @ n
    depth = torch.from_numpy(np.where(towards < -0.05, -2 / np.minimum(towards, -0.05), 0))
    normals = normals_of_depth(depth, focal, centre)
    known = normals.norm(dim=0) > 0
    assert known.float().mean() > 0.5
    expected = torch.from_numpy(n).float()[:, None].expand(-1, int(known.sum()))
    torch.testing.assert_close(normals[:, known], expected, atol=1e-4, rtol=0)


def test_normals_of_a_rendered_room_are_the_room_s():
    room = scenes(1, 64, seed=2)
    depth, truth = room.targets["depth"][0, 0], room.targets["normals"][0]
    errors = []
    for half_view in np.linspace(25, 35, 41):
        focal = 32 / np.tan(np.deg2rad(half_view))
        derived = normals_of_depth(depth, (focal, focal), (31.5, 31.5))
        cosine = (derived * truth).sum(0)
        errors.append(cosine.clamp(-1, 1).acos().median().item())
    assert min(errors) < 0.02


def test_unknown_depth_has_no_normal():
    depth = torch.full((7, 7), 2.0)
    depth[3, 3] = 0
    length = normals_of_depth(depth).norm(dim=0)
    assert not length[2:5, 2:5].any()
    assert torch.allclose(length[0], torch.ones(7))


def write_png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def taskonomy(tmp_path):
    """Two views, whose targets are the same."""
    normal = np.full((H, W, 3), 127, np.uint8)
    normal[1:] = (127, 254, 127)
    depth = np.full((H, W), 512 * 3, np.uint16)
    depth[0] = 65535
    targets = {
        ("segment_semantic", "segmentsemantic"): np.arange(H * W, dtype=np.uint8).reshape(H, W) % 18,
        ("depth_zbuffer", "depth_zbuffer"): depth,
        ("normal", "normal"): normal,
        ("edge_texture", "edge_texture"): np.full((H, W), 2621, np.uint16),
        ("keypoints2d", "keypoints2d"): np.full((H, W), 60000, np.uint16),
    }
    for point, view in ((3, 0), (12, 1)):
        write_png(
            tmp_path / "rgb" / f"point_{point}_view_{view}_domain_rgb.png",
            np.full((H, W, 3), 10 * point, np.uint8),
        )
        for (folder, domain), array in targets.items():
            write_png(tmp_path / folder / f"point_{point}_view_{view}_domain_{domain}.png", array)
    return tmp_path


def test_taskonomy_is_decoded(taskonomy):
    data = Taskonomy(taskonomy)
    assert [round(255 * data[i][0][0, 0, 0].item()) for i in range(len(data))] == [30, 120]
    _, targets = data[0]
    assert targets["segmentation"].flatten()[:19].tolist() == [255, *range(17), 255]
    assert not targets["depth"][0, 0].any()
    assert (targets["depth"][0, 1:] == 3).all()
    assert not targets["normals"][:, 0].any()
    assert targets["normals"][:, 1, 0].tolist() == [0, 1, 0]
    assert targets["edges"][0, 0, 0].item() == pytest.approx(0.5, abs=1e-3)
    assert targets["keypoints"][0, 0, 0] == 1
    check_losses(data[0], 17)
    assert list(Taskonomy(taskonomy, ["depth"])[0][1]) == ["depth"]


def test_taskonomy_names_what_is_wrong(taskonomy):
    with pytest.raises(UnknownNameError, match="normals"):
        Taskonomy(taskonomy, ["normal"])
    with pytest.raises(DataError, match="rgb"):
        Taskonomy(taskonomy / "nowhere")
    (taskonomy / "normal" / "point_12_view_1_domain_normal.png").unlink()
    with pytest.raises(DataError, match="lacks point 12, view 1"):
        Taskonomy(taskonomy)
    (taskonomy / "rgb" / "point_3_view_0_domain_rgb.png").write_bytes(b"none")
    with pytest.raises(DataError, match="point_3_view_0_domain_rgb"):
        Taskonomy(taskonomy, ["depth"])[0]


def test_adashare_s_nyu(tmp_path):
    normals = directions(H, W)
    coded = np.round((normals + 1) * 127.5).astype(np.uint8)
    coded[0, 0] = 255
    segmentation = GENERATOR.integers(0, 40, (H, W)).astype(np.uint8)
    segmentation[2, 2] = 255
    depth = GENERATOR.uniform(1, 5, (H, W)).astype(np.float32)
    write_png(tmp_path / "img" / "1.png", GENERATOR.integers(0, 256, (H, W, 3), dtype=np.uint8))
    write_png(tmp_path / "seg" / "1.png", segmentation)
    write_png(tmp_path / "normal_mask" / "1.png", coded)
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "1.npy", depth)
    row = ["img/1.png", "seg/1.png", "normal_mask/1.png", "depth/1.npy"]
    (tmp_path / "nyu_v2_3task.json").write_text(json.dumps({"train": [row, row], "test": [row]}))
    data = AdaShare(tmp_path, "train")
    assert len(data) == 2
    _, targets = data[1]
    assert torch.equal(targets["segmentation"], torch.from_numpy(segmentation).long())
    assert torch.equal(targets["depth"][0], torch.from_numpy(depth))
    assert not targets["normals"][:, 0, 0].any()
    known = targets["normals"].flatten(1)[:, 1:]
    torch.testing.assert_close(
        known, torch.from_numpy(normals).float().movedim(-1, 0).flatten(1)[:, 1:], atol=0.02, rtol=0
    )
    check_losses(data[0], 40)
    with pytest.raises(UnknownNameError, match="train"):
        AdaShare(tmp_path, "val")


def test_adashare_s_taskonomy_is_taskonomy(taskonomy):
    folders = {
        "rgb": "rgb",
        "segment_semantic": "segmentsemantic",
        "normal": "normal",
        "depth_zbuffer": "depth_zbuffer",
        "keypoints2d": "keypoints2d",
        "edge_texture": "edge_texture",
    }
    row = [f"{folder}/point_3_view_0_domain_{domain}.png" for folder, domain in folders.items()]
    (taskonomy / "taskonomy.json").write_text(json.dumps({"test": [row]}))
    image, targets = AdaShare(taskonomy, "test", "taskonomy.json")[0]
    reference, expected = Taskonomy(taskonomy)[0]
    assert torch.equal(image, reference)
    assert targets.keys() == expected.keys()
    assert all(torch.equal(targets[name], expected[name]) for name in targets)


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"train": [["a.png"]]}', '{"train": []}'])
def test_adashare_names_a_list_of_another_form(tmp_path, content):
    (tmp_path / "nyu_v2_3task.json").write_text(content)
    with pytest.raises(DataError, match="rows of four"):
        AdaShare(tmp_path)


@pytest.fixture
def parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = []
    for file, count in enumerate((5, 2)):
        part = [
            {
                "image": GENERATOR.random((3, H, W), dtype=np.float32),
                "segmentation": GENERATOR.integers(-1, 13, (H, W)),
                "depth": GENERATOR.random((1, H, W), dtype=np.float32),
                "normal": directions(H, W).transpose(2, 0, 1).astype(np.float32),
            }
            for _ in range(count)
        ]
        table = pa.table({name: [row[name].tolist() for row in part] for name in part[0]})
        pq.write_table(table, tmp_path / f"val-{file}.parquet", row_group_size=2)
        rows += part
    return sorted(tmp_path.glob("val-*.parquet")), rows


def test_parquet_reads_the_rows_in_any_order(parquet):
    files, rows = parquet
    data = ParquetNYU(files)
    assert len(data) == 7
    for index in (6, 0, 4, 5, 1):
        image, targets = data[index]
        row = rows[index]
        torch.testing.assert_close(image, torch.from_numpy(row["image"]))
        torch.testing.assert_close(targets["depth"], torch.from_numpy(row["depth"]).float())
        torch.testing.assert_close(targets["normals"], torch.from_numpy(row["normal"]).float())
        expected = np.where(row["segmentation"] < 0, 255, row["segmentation"])
        assert torch.equal(targets["segmentation"], torch.from_numpy(expected))
    check_losses(data[2], 13)
    assert torch.equal(pickle.loads(pickle.dumps(data))[3][0], data[3][0])


def test_parquet_names_what_is_wrong(parquet, tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(DataError, match="no parquet files"):
        ParquetNYU([])
    (tmp_path / "broken.parquet").write_bytes(b"none")
    with pytest.raises(DataError, match=r"broken\.parquet"):
        ParquetNYU([tmp_path / "broken.parquet"])
    pq.write_table(pa.table({"image": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="segmentation, depth, normal"):
        ParquetNYU([tmp_path / "other.parquet"])
    without(monkeypatch, "pyarrow")
    with pytest.raises(MissingExtraError, match=r"dgba\[parquet\]"):
        ParquetNYU(parquet[0])


def test_resizing_keeps_the_values_of_targets(taskonomy):
    data = Resized(Taskonomy(taskonomy), H // 2, W // 2)
    image, targets = data[0]
    _, whole = Taskonomy(taskonomy)[0]
    assert len(data) == 2
    assert image.shape == (3, H // 2, W // 2)
    torch.testing.assert_close(image, torch.full_like(image, 30 / 255))
    for name, target in targets.items():
        assert torch.equal(target, whole[name][..., 1::2, 1::2])
    same = Resized(Taskonomy(taskonomy), H, W)[1][1]
    assert torch.equal(same["segmentation"], whole["segmentation"])
    with pytest.raises(SettingError, match="0 x 3"):
        Resized(data, 0, 3)
