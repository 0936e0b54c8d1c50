"""Planetoid's citation graphs, read from their pickles without trusting them.

Yang, Cohen and Salakhutdinov, "Revisiting semi-supervised learning with graph embeddings", ICML 2016. The
files ``ind.<name>.*`` are pickles of Python 2. Unpickling may call any function that a file names; here it
may only make arrays, lists and dictionaries, and a sparse matrix becomes a plain object whose fields are
checked before scipy sees them.

Rows are ordered as the authors have it: those of ``allx`` first, then the test nodes, which
``test.index`` puts in their places. Citeseer lacks 15 test nodes: they get features of zero and no label.
"""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from tango_gnn._data import NodeData, scale_rows, undirected
from tenfold import DataError

PARTS = ("y", "tx", "ty", "allx", "ally", "graph", "test.index")
VALIDATION = 500


def read_planetoid(folder: Path, name: str) -> NodeData:
    """Read a citation graph with its public split: the nodes of y, the 500 after them, the test nodes.

    Features are divided by their rows' sums, as is usual with these graphs.

    Parameters
    ----------
    folder : Path
        Of the files ``ind.<name>.{y,tx,ty,allx,ally,graph,test.index}``.
    name : str
        ``"cora"``, ``"citeseer"`` or ``"pubmed"``.

    Returns
    -------
    NodeData
        Undirected, without self-loops and repeated edges.

    Raises
    ------
    DataError
        A file is missing, is no Planetoid file, or does not fit the others.
    """
    paths = {part: folder / f"ind.{name}.{part}" for part in PARTS}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"{folder} lacks {', '.join(missing)}",
            "all seven files of the graph",
            "Bring them from github.com/kimiyoung/planetoid, or use --dataset digits.",
        )
    index = _test_index(paths["test.index"])
    allx, tx = (_matrix(paths[part]) for part in ("allx", "tx"))
    y, ally, ty = (_one_hot(paths[part]) for part in ("y", "ally", "ty"))
    known, first = len(ally), int(index.min())
    nodes = int(index.max()) + 1
    if not (
        allx.shape[0] == known == first
        and tx.shape == (len(ty), allx.shape[1])
        and len(ty) == len(index)
        and y.shape[1] == ally.shape[1] == ty.shape[1]
        and len(y) + VALIDATION <= known
    ):
        raise DataError(
            f"ind.{name}.* hold {allx.shape[0]}, {known} and {len(index)} rows, test nodes from {first}",
            "as many rows as labels, and test nodes after them",
            "Replace them by the published files.",
        )
    features = np.zeros((nodes, allx.shape[1]), np.float32)
    features[:known] = allx.toarray()
    features[index] = tx.toarray()
    labels = np.full(nodes, -1, np.int64)
    labels[:known] = ally.argmax(1)
    labels[index] = ty.argmax(1)
    labels[:known][ally.sum(1) == 0] = -1
    return NodeData(
        name=name,
        edges=undirected(_edges(paths["graph"], nodes), nodes),
        features=scale_rows(torch.from_numpy(features)),
        labels=torch.from_numpy(labels),
        classes=ally.shape[1],
        train=torch.arange(len(y)),
        validation=torch.arange(len(y), len(y) + VALIDATION),
        test=torch.from_numpy(np.sort(index)),
    )


class _Matrix:
    """Stands for scipy's csr_matrix while unpickling: takes its fields and runs nothing."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


_reconstruct = np.zeros(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "defaultdict"): collections.defaultdict,
    ("__builtin__", "list"): list,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("scipy.sparse.csr", "csr_matrix"): _Matrix,
}


def _unpickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    # A file cut short or tampered with fails anywhere in the unpickler or in numpy.
    except Exception as error:
        _refuse(path, f"cannot be read ({error})", "a pickle of arrays")


def _matrix(path: Path) -> sparse.csr_matrix:
    stored = _unpickle(path)
    fields = vars(stored) if isinstance(stored, _Matrix) else {}
    try:
        parts = tuple(np.asarray(fields[key]) for key in ("data", "indices", "indptr"))
        if any(part.dtype.kind not in "fiu" or part.ndim != 1 for part in parts):
            raise ValueError("its fields are no rows of numbers")
        if not np.isfinite(parts[0]).all():
            raise ValueError("its numbers are not finite")
        rows, columns = fields["_shape"]
        matrix = sparse.csr_matrix(parts, shape=(int(rows), int(columns)), dtype=np.float32)
        matrix.check_format(full_check=True)
    except (KeyError, TypeError, ValueError) as error:
        _refuse(path, f"holds no sparse matrix ({error})", "a pickled csr_matrix")
    return matrix


def _one_hot(path: Path) -> NDArray[Any]:
    stored = _unpickle(path)
    if not (isinstance(stored, np.ndarray) and stored.ndim == 2 and stored.dtype.kind in "fiu"):
        _refuse(path, f"holds a {type(stored).__name__}", "a pickled array, a row a node")
    if stored.shape[1] < 2 or np.any((stored != 0) & (stored != 1)) or np.any(stored.sum(1) > 1):
        _refuse(path, f"holds labels of shape {stored.shape} that are not one-hot", "one 1 a row at most")
    return stored


def _edges(path: Path, nodes: int) -> torch.Tensor:
    stored = _unpickle(path)
    if not isinstance(stored, dict):
        _refuse(path, f"holds a {type(stored).__name__}", "a dictionary of lists of neighbours")
    try:
        pairs = [(node, other) for node, others in stored.items() for other in others]
        edges = np.array(pairs, np.int64).reshape(-1, 2)
        exact = edges.tolist() == [list(pair) for pair in pairs]
    except (TypeError, ValueError, OverflowError) as error:
        _refuse(path, f"holds no neighbours ({error})", "a dictionary of lists of neighbours")
    if not exact or (len(edges) and not 0 <= edges.min() <= edges.max() < nodes):
        _refuse(path, "names nodes that are not there", f"whole numbers from 0 to {nodes - 1}")
    return torch.from_numpy(edges.T.copy())


def _test_index(path: Path) -> NDArray[np.int64]:
    try:
        index = np.array(path.read_text(encoding="ascii").split(), np.int64)
    except (ValueError, OverflowError) as error:
        _refuse(path, f"cannot be read ({error})", "a node a line")
    if not len(index) or index.min() < 0 or len(np.unique(index)) != len(index):
        _refuse(path, f"holds {len(index)} nodes, some twice or negative", "different nodes, a node a line")
    return index


def _refuse(path: Path, what: str, expected: str) -> NoReturn:
    raise DataError(f"{path} {what}", expected, "Replace it by the published file.")
