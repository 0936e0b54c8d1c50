import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tango_gnn.datasets import load, load_links, read_ogb_links, read_ogb_nodes
from tenfold import DataError

EDGES = [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 0]]


def write_csv(path: Path, rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="ascii") as file:
        for row in np.atleast_2d(rows):
            file.write(",".join(map(str, row)) + "\n")


def column(values: Any) -> Any:
    return np.array(values)[:, None]


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    folder = tmp_path / "ogbn_ring"
    write_csv(folder / "raw" / "edge.csv.gz", EDGES)
    write_csv(folder / "raw" / "num-node-list.csv.gz", [[6]])
    write_csv(folder / "raw" / "node-feat.csv.gz", np.arange(12).reshape(6, 2) / 4)
    write_csv(folder / "raw" / "node-label.csv.gz", column([0, 1, 2, 0, 1, 2]))
    for part, rows in (("train", [0, 1, 2]), ("valid", [3]), ("test", [4, 5])):
        write_csv(folder / "split" / "time" / f"{part}.csv.gz", column(rows))
    return folder


@pytest.fixture
def links(nodes: Path) -> Path:
    folder = nodes.rename(nodes.with_name("ogbl_ring"))
    for path in (folder / "split" / "time").iterdir():
        path.unlink()
    for part, edge, negative in (
        ("train", EDGES[:3], None),
        ("valid", EDGES[3:4], [[0, 3]]),
        ("test", EDGES[4:], [[1, 4], [2, 5]]),
    ):
        stored = {"edge": np.array(edge), "year": np.full(len(edge), 2017)}
        if negative is not None:
            stored["edge_neg"] = np.array(negative)
        torch.save(stored, folder / "split" / "time" / f"{part}.pt", pickle_protocol=2)
    return folder


def test_nodes_of_tables_are_read(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_ogb_nodes(nodes)
    assert (data.name, data.nodes, data.classes, data.edges.shape) == ("ogbn-ring", 6, 3, (2, 12))
    assert torch.equal(data.features, torch.arange(12.0).reshape(6, 2) / 4)
    assert (data.train.tolist(), data.validation.tolist(), data.test.tolist()) == ([0, 1, 2], [3], [4, 5])
    place = nodes.parent / "graphs" / "ogb"
    place.mkdir(parents=True)
    nodes.rename(place / nodes.name)
    monkeypatch.setenv("TENFOLD_DATA", str(nodes.parent))
    assert torch.equal(load("ogbn-ring").edges, data.edges)


def test_nodes_of_npz_files_are_read_and_some_have_no_label(nodes: Path) -> None:
    expected = read_ogb_nodes(nodes)
    raw = nodes / "raw"
    np.savez(
        raw / "data.npz",
        edge_index=np.array(EDGES).T,
        node_feat=expected.features.numpy(),
        num_nodes_list=np.array([6]),
        num_edges_list=np.array([6]),
        node_year=np.zeros(6),
    )
    np.savez(raw / "node-label.npz", node_label=np.array([[0], [1], [2], [0], [1], [2.0]]))
    for path in raw.glob("*.csv.gz"):
        path.unlink()
    found = read_ogb_nodes(nodes)
    assert torch.equal(found.edges, expected.edges)
    assert torch.equal(found.labels, expected.labels)
    write_csv(nodes / "split" / "time" / "train.csv.gz", column([0, 2]))
    np.savez(raw / "node-label.npz", node_label=np.array([[0], [np.nan], [2], [0], [1], [2.0]]))
    assert read_ogb_nodes(nodes).labels.tolist() == [0, -1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("file", "rows", "message"),
    [
        ("raw/edge.csv.gz", [[0, 6]], "edges of nodes 0 to 6"),
        ("raw/edge.csv.gz", [[0, -1]], "edges of nodes -1 to 0"),
        ("raw/edge.csv.gz", [[0, 0.5]], "cannot be read"),
        ("raw/edge.csv.gz", [[0, 1, 2]], "shape"),
        ("raw/num-node-list.csv.gz", [[6], [6]], "2 graphs"),
        ("raw/node-feat.csv.gz", [[1.0, 2.0]], "features of shape"),
        ("raw/node-feat.csv.gz", np.full((6, 2), np.nan), "finite"),
        ("raw/node-label.csv.gz", np.zeros((6, 112)), "labels of shape"),
        ("raw/node-label.csv.gz", column([0.5] * 6), "labels from 0.5"),
        ("raw/node-label.csv.gz", column([np.nan, 1, 2, 0, 1, 2]), "without a label"),
        ("split/time/test.csv.gz", [[6]], "names nodes 6"),
        ("split/size/train.csv.gz", [[0]], "2 splits"),
        ("raw/triplet-type-list.csv.gz", [[0]], "several types"),
    ],
)
def test_tables_that_do_not_fit_are_refused(file: str, rows: Any, message: str, nodes: Path) -> None:
    write_csv(nodes / file, rows)
    with pytest.raises(DataError, match=message):
        read_ogb_nodes(nodes)


@pytest.mark.parametrize("file", ["raw/edge.csv.gz", "raw/node-feat.csv.gz", "split/time/train.csv.gz"])
def test_missing_and_damaged_files_are_refused(file: str, nodes: Path) -> None:
    (nodes / file).write_bytes((nodes / file).read_bytes()[:12])
    with pytest.raises(DataError, match="cannot be read"):
        read_ogb_nodes(nodes)
    (nodes / file).unlink()
    with pytest.raises(DataError):
        read_ogb_nodes(nodes)


def test_links_are_read(links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_ogb_links(links)
    assert (data.name, data.nodes) == ("ogbl-ring", 6)
    assert data.train.T.tolist() == EDGES[:3]
    assert data.edges.T.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [3, 2]]
    assert data.validation.T.tolist() == EDGES[3:4]
    assert data.test_negatives.T.tolist() == [[1, 4], [2, 5]]
    place = links.parent / "graphs" / "ogb"
    place.mkdir(parents=True)
    links.rename(place / links.name)
    monkeypatch.setenv("TENFOLD_DATA", str(links.parent))
    assert torch.equal(load_links("ogbl-ring").train, data.train)


def test_links_without_features_get_degrees(links: Path) -> None:
    (links / "raw" / "node-feat.csv.gz").unlink()
    data = read_ogb_links(links)
    torch.testing.assert_close(data.features[:, 0], torch.tensor([1.0, 2, 2, 1, 0, 0]).log1p())


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"edge": np.array([[0, 1]]), "edge_neg": Evil()}, "cannot be read"),
        ({"edge": np.array([[0, 1]])}, "holds edge"),
        ({"source_node": np.array([0]), "target_node_neg": np.array([[1]])}, "holds source_node"),
        ({"edge": np.array([[0, 6]]), "edge_neg": np.array([[0, 1]])}, "up to 6"),
        ({"edge": np.array([[0.0, 1]]), "edge_neg": np.array([[0, 1]])}, "has edge of shape"),
        ({"edge": np.array([0, 1]), "edge_neg": np.array([[0, 1]])}, "has edge of shape"),
        ([1], "holds list"),
    ],
)
def test_splits_that_do_not_fit_are_refused(
    stored: Any, message: str, links: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(stored, links / "split" / "time" / "test.pt")
    with pytest.raises(DataError, match=message):
        read_ogb_links(links)
    assert not Path("harm").exists()


def test_training_edges_outside_the_graph_are_refused(links: Path) -> None:
    torch.save({"edge": np.array([[0, 3]])}, links / "split" / "time" / "train.pt")
    with pytest.raises(DataError, match="not in its graph"):
        read_ogb_links(links)
