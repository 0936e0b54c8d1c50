"""The Open Graph Benchmark, read from the folders that its own package makes.

Hu et al., "Open Graph Benchmark: datasets for machine learning on graphs", NeurIPS 2020. Below the folder of
a data set lie

    raw/edge.csv.gz, num-node-list.csv.gz, node-feat.csv.gz        or    raw/data.npz
    raw/node-label.csv.gz                                          or    raw/node-label.npz
    split/<how>/{train,valid,test}.csv.gz      node indices, of ``ogbn-*``
    split/<how>/{train,valid,test}.pt          pairs of nodes, of ``ogbl-*``

Graphs of one type of nodes with one label each, and links that are ranked among pairs, are read; others are
refused. The ``.pt`` files hold arrays of numpy, and may make nothing else.
"""

from __future__ import annotations

import gzip
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from torch import Tensor

from tango_gnn._data import LinkData, NodeData, undirected
from tenfold import DataError

UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_ogb_nodes(folder: Path) -> NodeData:
    """Read a data set of node classification, such as ``ogbn-arxiv`` in ``dataset/ogbn_arxiv``.

    Parameters
    ----------
    folder : Path
        With ``raw`` and ``split`` in it.

    Returns
    -------
    NodeData
        Undirected, without self-loops and repeated edges.

    Raises
    ------
    DataError
        A file is missing or corrupt, nodes are of several types, have no features, or several labels.
    """
    edges, features = _graph(folder)
    if features is None:
        _refuse(folder, "has no features of nodes", "node-feat.csv.gz or node_feat in data.npz")
    labels = _labels(folder, len(features))
    split = {part: _rows(path, len(features)) for part, path in _splits(folder, "csv.gz").items()}
    if any(bool((labels[rows] < 0).any()) for rows in split.values()):
        _refuse(folder, "has nodes without a label in its split", "a label for each")
    return NodeData(
        name=_name(folder),
        edges=undirected(edges, len(features)),
        features=features,
        labels=labels,
        classes=int(labels.max()) + 1,
        train=split["train"],
        validation=split["valid"],
        test=split["test"],
    )


def read_ogb_links(folder: Path) -> LinkData:
    """Read a data set of link prediction, such as ``ogbl-collab`` in ``dataset/ogbl_collab``.

    Parameters
    ----------
    folder : Path
        With ``raw`` and ``split`` in it.

    Returns
    -------
    LinkData
        Models may see the edges of training, in both directions. Nodes without features get their degree
        in them, as the logarithm of one more.

    Raises
    ------
    DataError
        A file is missing or corrupt, or its links are ranked otherwise than among pairs.
    """
    edges, features = _graph(folder)
    nodes = len(features) if features is not None else _count(folder)
    split = {part: _pairs(path, nodes, part) for part, path in _splits(folder, "pt").items()}
    train = split["train"]["edge"]
    seen = undirected(train, nodes)
    if features is None:
        features = torch.log1p(torch.bincount(seen[1], minlength=nodes).float())[:, None]
    if not bool(torch.isin(_keys(train, nodes), _keys(undirected(edges, nodes), nodes)).all()):
        _refuse(folder, "has edges to train on that are not in its graph", "edges of raw/edge.csv.gz")
    return LinkData(
        name=_name(folder),
        edges=seen,
        features=features,
        train=train,
        validation=split["valid"]["edge"],
        validation_negatives=split["valid"]["edge_neg"],
        test=split["test"]["edge"],
        test_negatives=split["test"]["edge_neg"],
    )


def _graph(folder: Path) -> tuple[Tensor, Tensor | None]:
    raw = folder / "raw"
    if (raw / "relations").is_dir() or (raw / "triplet-type-list.csv.gz").exists():
        _refuse(folder, "is a graph of several types of nodes or edges", "one of a single type")
    if (raw / "data.npz").is_file():
        stored = _npz(raw / "data.npz")
        edges, features = stored.get("edge_index"), stored.get("node_feat")
        if edges is None:
            _refuse(raw / "data.npz", "lacks edge_index", "the edges")
    else:
        edges = _csv(raw / "edge.csv.gz", np.int64).T
        path = raw / "node-feat.csv.gz"
        features = _csv(path, np.float32) if path.is_file() else None
    nodes = _count(folder)
    if edges.ndim != 2 or len(edges) != 2 or edges.dtype.kind not in "iu":
        _refuse(raw, f"has {edges.dtype} edges of shape {edges.shape}", "pairs of whole numbers")
    if edges.size and not 0 <= edges.min() <= edges.max() < nodes:
        _refuse(raw, f"has edges of nodes {edges.min()} to {edges.max()}", f"nodes from 0 to {nodes - 1}")
    if features is not None and not (
        features.ndim == 2 and len(features) == nodes and np.isfinite(features).all()
    ):
        _refuse(raw, f"has features of shape {features.shape}", f"{nodes} rows of finite numbers")
    return (
        torch.from_numpy(np.ascontiguousarray(edges, np.int64)),
        None if features is None else torch.from_numpy(np.ascontiguousarray(features, np.float32)),
    )


def _count(folder: Path) -> int:
    raw = folder / "raw"
    if (raw / "data.npz").is_file():
        counts = _npz(raw / "data.npz").get("num_nodes_list", np.zeros(0))
    else:
        counts = _csv(raw / "num-node-list.csv.gz", np.int64)
    if counts.size != 1:
        _refuse(raw, f"holds {counts.size} graphs", "one graph")
    return int(counts.item())


def _labels(folder: Path, nodes: int) -> Tensor:
    path = folder / "raw" / "node-label.npz"
    if path.is_file():
        labels = _npz(path).get("node_label", np.zeros(0))
    else:
        path = path.with_name("node-label.csv.gz")
        labels = _csv(path, np.float64)
    if labels.shape not in {(nodes, 1), (nodes,)}:
        _refuse(path, f"has labels of shape {labels.shape}", f"one label for each of {nodes} nodes")
    flat = labels.reshape(-1).astype(np.float64)
    known = np.where(np.isnan(flat), -1, flat)
    if np.any(known != np.floor(known)) or known.min(initial=0) < -1 or known.max(initial=-1) < 0:
        _refuse(path, f"has labels from {known.min()} to {known.max()}", "classes from 0, or no label")
    return torch.from_numpy(known.astype(np.int64))


def _splits(folder: Path, ending: str) -> dict[str, Path]:
    found = sorted(folder.glob(f"split/*/train.{ending}"))
    if len(found) != 1:
        _refuse(folder, f"has {len(found)} splits train.{ending}", f"one, split/<how>/train.{ending}")
    return {part: found[0].with_name(f"{part}.{ending}") for part in ("train", "valid", "test")}


def _rows(path: Path, nodes: int) -> Tensor:
    rows = _csv(path, np.int64).reshape(-1)
    if rows.size and not 0 <= rows.min() <= rows.max() < nodes:
        _refuse(path, f"names nodes {rows.min()} to {rows.max()}", f"nodes from 0 to {nodes - 1}")
    return torch.from_numpy(rows)


def _pairs(path: Path, nodes: int, part: str) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals(_SAFE):
            stored = torch.load(path, weights_only=True)
    except pickle.UnpicklingError as error:
        # Its text advises to load the file without this protection.
        _refuse(path, "cannot be read (it is damaged, or asks for more than arrays)", "a file of OGB", error)
    except UNREADABLE as error:
        _refuse(path, f"cannot be read ({error})", "a file of OGB", error)
    wanted = ["edge"] if part == "train" else ["edge", "edge_neg"]
    if not (isinstance(stored, dict) and set(wanted) <= set(stored)):
        keys = ", ".join(map(str, stored)) if isinstance(stored, dict) else type(stored).__name__
        _refuse(path, f"holds {keys}", f"{' and '.join(wanted)}: links that are ranked among pairs")
    pairs = {}
    for key in wanted:
        found = torch.as_tensor(stored[key])
        if found.dim() != 2 or found.shape[1] != 2 or found.is_floating_point():
            _refuse(path, f"has {key} of shape {tuple(found.shape)}", "a pair of whole numbers a row")
        if found.numel() and not 0 <= int(found.min()) <= int(found.max()) < nodes:
            _refuse(path, f"names nodes up to {found.max()}", f"nodes from 0 to {nodes - 1}")
        pairs[key] = found.long().T.contiguous()
    return pairs


_SAFE: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.int32, np.int64, np.float32, np.float64)),
    # numpy moved the function between its versions 1 and 2, and the files name it as it was called then.
    *(
        (np.zeros(0).__reduce__()[0], f"numpy.{module}.multiarray._reconstruct")
        for module in ("core", "_core")
    ),
]


def _csv(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            return np.loadtxt(file, dtype, delimiter=",", ndmin=2)
    except UNREADABLE as error:
        _refuse(path, f"cannot be read ({error})", "a gzipped table of numbers", error)


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, NpzFile):
            raise ValueError("it holds a single array")
        with stored:
            return {key: stored[key] for key in stored.files if key != "node_year"}
    except UNREADABLE as error:
        _refuse(path, f"cannot be read ({error})", "an npz file of arrays", error)


def _keys(edges: Tensor, nodes: int) -> Tensor:
    return edges.amin(0) * nodes + edges.amax(0)


def _name(folder: Path) -> str:
    return folder.name.replace("_", "-")


def _refuse(path: Path, what: str, expected: str, error: Exception | None = None) -> NoReturn:
    raise DataError(
        f"{path} {what}", expected, "Let the package ogb download it, or use another data set."
    ) from error
