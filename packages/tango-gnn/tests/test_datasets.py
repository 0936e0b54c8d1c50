import os
import pickle
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from tango_gnn._data import undirected
from tango_gnn.datasets import (
    NAMES,
    NodeData,
    digits,
    hold_out_links,
    load,
    load_links,
    power_law,
    read_npz,
    read_planetoid,
)
from tenfold import DataError, SettingError, UnknownNameError

GRAPHS = Path(os.environ.get("TENFOLD_DATA", "")) / "graphs"
real = pytest.mark.skipif(not (GRAPHS / "planetoid").is_dir(), reason="TENFOLD_DATA has no graphs")

NODES, WIDTH, CLASSES = 520, 4, 3


class Python2(pickle._Pickler):
    """Pickles as Python 2, numpy and scipy of the time did."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<I", len(value)) + value)  # type: ignore[attr-defined]
        self.memoize(value)  # type: ignore[attr-defined]

    dispatch[bytes] = save_bytes

    def write_file(self, path: Path) -> None:
        old = path.read_bytes().replace(b"numpy._core", b"numpy.core").replace(b"sparse._csr", b"sparse.csr")
        path.write_bytes(old)


def save(path: Path, value: Any) -> None:
    with path.open("wb") as file:
        pickler = Python2(file, protocol=2)
        pickler.dump(value)
    pickler.write_file(path)


@pytest.fixture
def planetoid(tmp_path: Path) -> Path:
    """A citation graph in a ring: 510 known nodes, test nodes 510 to 519 without 517, in reverse order."""
    generator = np.random.default_rng(0)
    index = [node for node in range(519, 509, -1) if node != 517]
    features = generator.integers(0, 2, (NODES, WIDTH)).astype(np.float32)
    one_hot = np.eye(CLASSES, dtype=np.int32)[np.arange(NODES) % CLASSES]
    save(tmp_path / "ind.ring.allx", sparse.csr_matrix(features[:510]))
    save(tmp_path / "ind.ring.tx", sparse.csr_matrix(features[index]))
    save(tmp_path / "ind.ring.ally", one_hot[:510])
    save(tmp_path / "ind.ring.y", one_hot[:10])
    save(tmp_path / "ind.ring.ty", one_hot[index])
    ring = defaultdict(list, {node: [(node + 1) % NODES, node] for node in range(NODES)})
    save(tmp_path / "ind.ring.graph", ring)
    (tmp_path / "ind.ring.test.index").write_text("\n".join(map(str, index)), encoding="ascii")
    np.save(tmp_path / "features.npy", features)
    return tmp_path


def test_planetoid_puts_the_test_nodes_in_their_places(planetoid: Path) -> None:
    data = read_planetoid(planetoid, "ring")
    features = torch.from_numpy(np.load(planetoid / "features.npy"))
    features[517] = 0
    torch.testing.assert_close(data.features, features / features.sum(1, keepdim=True).clamp_min(1))
    assert data.labels[517] == -1
    known = torch.arange(NODES) != 517
    assert torch.equal(data.labels[known], (torch.arange(NODES) % CLASSES)[known])
    assert data.test.tolist() == [node for node in range(510, 520) if node != 517]
    assert (len(data.train), len(data.validation), data.edges.shape) == (10, 500, (2, 2 * NODES))


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("part", ["allx", "ty", "graph"])
def test_a_pickle_that_runs_something_is_refused_and_runs_nothing(
    part: str, planetoid: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (planetoid / f"ind.ring.{part}").write_bytes(pickle.dumps([Evil()], protocol=2))
    with pytest.raises(DataError, match=r"asks for .*mkdir"):
        read_planetoid(planetoid, "ring")
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("graph", [1, 2], "holds a list"),
        ("graph", {0: [NODES]}, "names nodes that are not there"),
        ("graph", {0: [-1]}, "names nodes that are not there"),
        ("graph", {0: [0.5]}, "names nodes that are not there"),
        ("graph", {0: 1}, "holds no neighbours"),
        ("ally", np.ones((510, CLASSES)), "not one-hot"),
        ("ally", np.eye(CLASSES)[np.zeros(509, int)], "rows"),
        ("ty", [0, 1], "holds a list"),
        ("allx", np.ones((510, WIDTH)), "holds no sparse matrix"),
        ("tx", sparse.csr_matrix(np.ones((9, WIDTH + 1))), "rows"),
        ("allx", sparse.csr_matrix(np.full((510, WIDTH), np.nan)), "not finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part: str, value: Any, message: str, planetoid: Path) -> None:
    save(planetoid / f"ind.ring.{part}", value)
    with pytest.raises(DataError, match=message):
        read_planetoid(planetoid, "ring")


def test_a_sparse_matrix_that_points_outside_is_refused(planetoid: Path) -> None:
    matrix = sparse.csr_matrix(np.ones((510, WIDTH), np.float32))
    matrix.indices[7] = 1000
    save(planetoid / "ind.ring.allx", matrix)
    with pytest.raises(DataError, match="holds no sparse matrix"):
        read_planetoid(planetoid, "ring")


@pytest.mark.parametrize("length", [0, 40, -1])
def test_a_file_cut_short_is_refused(length: int, planetoid: Path) -> None:
    path = planetoid / "ind.ring.allx"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"ind\.ring\.allx cannot be read"):
        read_planetoid(planetoid, "ring")


@pytest.mark.parametrize("text", ["", "510\n510", "-1\n3", "one"])
def test_a_test_index_that_is_none_is_refused(text: str, planetoid: Path) -> None:
    (planetoid / "ind.ring.test.index").write_text(text, encoding="ascii")
    with pytest.raises(DataError, match=r"test\.index"):
        read_planetoid(planetoid, "ring")


def test_missing_parts_are_named(planetoid: Path) -> None:
    (planetoid / "ind.ring.allx").unlink()
    with pytest.raises(DataError, match=r"lacks ind\.ring\.allx"):
        read_planetoid(planetoid, "ring")


def npz_parts(nodes: int = 120) -> dict[str, Any]:
    ring = np.arange(nodes)
    adjacency = sparse.csr_matrix((np.ones(nodes), (ring, (ring + 1) % nodes)))
    attributes = sparse.csr_matrix(np.random.default_rng(1).random((nodes, 5)))
    parts: dict[str, Any] = {"labels": (ring % 2).astype(np.int8)}
    for key, matrix in (("adj", adjacency), ("attr", attributes)):
        parts |= {f"{key}_{part}": getattr(matrix, part) for part in ("data", "indices", "indptr", "shape")}
    return parts


def test_an_npz_graph_gets_twenty_and_thirty_of_a_class(tmp_path: Path) -> None:
    np.savez(tmp_path / "ring.npz", **npz_parts())
    data = read_npz(tmp_path / "ring.npz", torch.Generator().manual_seed(0))
    assert (data.name, data.classes, data.edges.shape) == ("ring", 2, (2, 240))
    assert data.labels[data.train].bincount().tolist() == [20, 20]
    assert data.labels[data.validation].bincount().tolist() == [30, 30]
    assert torch.cat([data.train, data.validation, data.test]).sort().values.tolist() == list(range(120))
    torch.testing.assert_close(data.features.sum(1), torch.ones(120))
    other = read_npz(tmp_path / "ring.npz", torch.Generator().manual_seed(1))
    assert not torch.equal(data.train, other.train)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(119, np.int8)}, "labels of"),
        ({"labels": np.zeros(120)}, "labels of"),
        ({"labels": np.r_[np.zeros(110, int), np.ones(10, int)]}, "10 nodes of class 1"),
        ({"adj_indices": np.full(120, 500)}, "cannot be read"),
        ({"attr_data": np.full(600, np.inf)}, "finite"),
        ({"labels": np.array([{}] * 120)}, "cannot be read"),
    ],
)
def test_an_npz_file_that_is_wrong_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "ring.npz", **(npz_parts() | change))
    with pytest.raises(DataError, match=message):
        read_npz(tmp_path / "ring.npz", torch.Generator())


def test_an_npz_file_without_a_graph_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(tmp_path / "other.npz", torch.Generator())
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(tmp_path / "none.npz", torch.Generator())


def test_digits_are_joined_to_the_nearest() -> None:
    data = digits(neighbours=3)
    x = data.features
    distances = torch.cdist(x[:50].double(), x.double())
    edges = set(map(tuple, data.edges.T.tolist()))
    for node in range(50):
        order = distances[node].argsort(stable=True)
        nearest = order[order != node][:3]
        assert all((other, node) in edges and (node, other) in edges for other in nearest.tolist())
    assert data.labels[data.train].bincount().tolist() == [20] * 10
    rows = torch.cat([data.train, data.validation, data.test])
    assert torch.equal(rows.sort().values, torch.arange(1797))
    same = (data.labels[data.edges[0]] == data.labels[data.edges[1]]).float().mean()
    assert same > 0.95


@pytest.mark.parametrize("neighbours", [0, 1797])
def test_an_impossible_number_of_neighbours_is_refused(neighbours: int) -> None:
    with pytest.raises(SettingError, match="neighbours"):
        digits(neighbours)


def test_a_power_law_has_hubs_and_a_loop_at_every_node() -> None:
    edges = power_law(5_000, 100_000, seed=3)
    assert edges.shape == (2, 105_000)
    assert torch.equal(edges, power_law(5_000, 100_000, seed=3))
    assert not torch.equal(edges, power_law(5_000, 100_000, seed=4))
    degrees = edges[1].bincount(minlength=5_000).double()
    assert int(degrees.min()) >= 1
    # The node of rank 1 draws a share 1 / sum i^-0.5, about 1 / (2 sqrt n) of the edges.
    share = 1 / torch.arange(1, 5_001, dtype=torch.float64).rsqrt().sum()
    assert degrees.max() == pytest.approx(100_000 * float(share), rel=0.15)
    even = power_law(5_000, 100_000, exponent=0)[1].bincount()
    assert int(even.max()) < 60


@pytest.mark.parametrize("wrong", [{"nodes": 0}, {"edges": -1}, {"exponent": -1.0}])
def test_an_impossible_power_law_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="nodes"):
        power_law(**wrong)


pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40)


@given(pairs)
def test_undirected_edges_are_those_of_a_set(found: list[tuple[int, int]]) -> None:
    edges = torch.tensor(found, dtype=torch.int64).reshape(-1, 2).T
    expected = sorted({pair for u, v in found if u != v for pair in ((u, v), (v, u))})
    assert list(map(tuple, undirected(edges, 10).T.tolist())) == expected


def ring_data(nodes: int = 40) -> NodeData:
    ring = torch.arange(nodes)
    return NodeData(
        name="ring",
        edges=undirected(torch.stack([ring, (ring + 1) % nodes]), nodes),
        features=torch.randn(nodes, 3),
        labels=ring % 2,
        classes=2,
        train=ring[:10],
        validation=ring[10:20],
        test=ring[20:],
    )


@given(st.integers(0, 1000))
def test_links_that_are_held_out_are_unseen_edges_and_negatives_are_none(seed: int) -> None:
    data = ring_data()
    links = hold_out_links(data, torch.Generator().manual_seed(seed), validation=0.1, test=0.2)

    def undirected_set(edges: torch.Tensor) -> set[tuple[int, ...]]:
        return {tuple(sorted(pair)) for pair in edges.T.tolist()}

    whole, seen = undirected_set(data.edges), undirected_set(links.edges)
    held = [undirected_set(links.validation), undirected_set(links.test)]
    assert [len(part) for part in held] == [4, 8]
    assert seen == undirected_set(links.train)
    assert seen | held[0] | held[1] == whole
    assert len(seen) + 12 == len(whole)
    negatives = undirected_set(torch.cat([links.validation_negatives, links.test_negatives], 1))
    assert len(negatives) == 12
    assert not negatives & whole
    assert all(u != v for u, v in negatives)


def test_too_few_edges_or_too_many_of_them_are_refused() -> None:
    with pytest.raises(SettingError, match="held out"):
        hold_out_links(ring_data(6), torch.Generator())
    full = ring_data(4)
    with pytest.raises(SettingError, match="no edges among"):
        hold_out_links(full, torch.Generator(), validation=0.25, test=0.25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": torch.tensor([[0], [40]])}, "edges of nodes 0 to 40"),
        ({"edges": torch.tensor([[0], [-1]])}, "edges of nodes -1 to 0"),
        ({"edges": torch.zeros(2, 1)}, "edges are torch.float32"),
        ({"edges": torch.zeros(1, 2, dtype=torch.int64)}, "edges are"),
        ({"features": torch.zeros(40, 3, dtype=torch.float64)}, "features are torch.float64"),
        ({"features": torch.full((40, 3), torch.nan)}, "NaN"),
        ({"labels": torch.zeros(39, dtype=torch.int64)}, "labels are"),
        ({"labels": torch.full((40,), 2)}, "labels from 2"),
        ({"train": torch.ones(40, dtype=torch.bool)}, "split train"),
        ({"test": torch.tensor([40])}, "split test"),
        ({"labels": torch.full((40,), -1)}, "without a label"),
    ],
)
def test_a_data_set_that_is_wrong_is_refused(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        NodeData(**{**vars(ring_data()), **change})


def test_a_graph_without_edges_is_a_data_set() -> None:
    data = NodeData(**{**vars(ring_data()), "edges": torch.zeros(2, 0, dtype=torch.int64)})
    assert data.nodes == 40


def test_names_are_known_or_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load("digits").nodes == 1797
    with pytest.raises(UnknownNameError, match="Did you mean 'cora'"):
        load("coro")
    with pytest.raises(SettingError, match="load_links"):
        load("ogbl-collab")
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    with pytest.raises(DataError, match="no TENFOLD_DATA"):
        load("cora")
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    with pytest.raises(DataError, match="no folder"):
        load("cora")


@real
@pytest.mark.parametrize(
    ("name", "nodes", "edges", "width", "classes", "train", "unlabelled"),
    [
        ("cora", 2708, 2 * 5278, 1433, 7, 140, 0),
        ("citeseer", 3327, 2 * 4552, 3703, 6, 120, 15),
        ("cora-npz", 2708, 2 * 5278, 1433, 7, 140, 0),
        ("citeseer-npz", 3312, 2 * 4536, 3703, 6, 120, 0),
    ],
)
def test_citation_graphs_have_their_published_sizes(
    name: str, nodes: int, edges: int, width: int, classes: int, train: int, unlabelled: int
) -> None:
    assert name in NAMES
    data = load(name)
    assert (data.nodes, data.edges.shape[1], data.features.shape[1]) == (nodes, edges, width)
    assert (data.classes, len(data.train), int((data.labels < 0).sum())) == (classes, train, unlabelled)


@real
def test_links_of_cora_are_held_out_by_the_seed() -> None:
    first, again, other = load_links("cora"), load_links("cora"), load_links("cora", seed=1)
    assert torch.equal(first.test, again.test)
    assert not torch.equal(first.test, other.test)
    assert first.test.shape == (2, 527)
