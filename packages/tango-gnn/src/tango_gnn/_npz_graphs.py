"""Graphs in npz files, as the benchmark of Shchur et al. stores them.

Shchur, Mumme, Bojchevski and Günnemann, "Pitfalls of graph neural network evaluation", 2018. A file holds
the adjacency matrix and the attributes in CSR form, ``adj_{data,indices,indptr,shape}`` and ``attr_*``, and
``labels``. Splits are drawn as the paper draws them: 20 nodes of a class for training, 30 for validation, the
others for the test. The paper keeps the largest component only; here every node stays.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from scipy import sparse

from tango_gnn._data import NodeData, scale_rows, undirected
from tenfold import DataError

TRAIN, VALIDATION = 20, 30


def read_npz(path: Path, generator: torch.Generator, *, name: str = "") -> NodeData:
    """Read a graph and draw its splits.

    Parameters
    ----------
    path : Path
        The npz file.
    generator : torch.Generator
        Draws the splits.
    name : str
        Of the data set; the file's when empty.

    Returns
    -------
    NodeData
        Undirected, without self-loops and repeated edges; features divided by their rows' sums.

    Raises
    ------
    DataError
        The file is missing, cut short, no such graph, or has a class of fewer than 51 nodes.
    """
    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, NpzFile):
            raise ValueError("it holds a single array")
        with stored:
            adjacency, attributes = (_matrix(stored, key) for key in ("adj", "attr"))
            labels = stored["labels"]
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error})",
            "an npz file with adj_*, attr_* and labels",
            "Bring it from github.com/shchur/gnn-benchmark.",
        ) from error
    nodes = adjacency.shape[0]
    if not (
        adjacency.shape == (nodes, nodes)
        and attributes.shape[0] == nodes
        and labels.shape == (nodes,)
        and labels.dtype.kind in "iu"
        and labels.min(initial=0) >= 0
        and np.isfinite(attributes.data).all()
    ):
        raise DataError(
            f"{path} holds an adjacency matrix of {adjacency.shape}, attributes of {attributes.shape} and "
            f"{labels.dtype} labels of {labels.shape}",
            "a row of each for every node, finite, labels from 0",
            "Replace it by the published file.",
        )
    coordinates = adjacency.tocoo()
    edges = torch.from_numpy(np.stack([coordinates.row, coordinates.col]).astype(np.int64))
    train, validation, test = _splits(path, labels, generator)
    return NodeData(
        name=name or path.stem,
        edges=undirected(edges, nodes),
        features=scale_rows(torch.from_numpy(attributes.toarray())),
        labels=torch.from_numpy(labels.astype(np.int64)),
        classes=int(labels.max()) + 1,
        train=train,
        validation=validation,
        test=test,
    )


def _matrix(stored: NpzFile, key: str) -> sparse.csr_matrix:
    parts = tuple(stored[f"{key}_{part}"] for part in ("data", "indices", "indptr"))
    rows, columns = stored[f"{key}_shape"]
    matrix = sparse.csr_matrix(parts, shape=(int(rows), int(columns)), dtype=np.float32)
    matrix.check_format(full_check=True)
    return matrix


def _splits(path: Path, labels: NDArray[Any], generator: torch.Generator) -> list[torch.Tensor]:
    parts: list[list[torch.Tensor]] = [[], [], []]
    for label in range(int(labels.max()) + 1):
        rows = torch.from_numpy(np.flatnonzero(labels == label))
        if len(rows) <= TRAIN + VALIDATION:
            raise DataError(
                f"{path} has {len(rows)} nodes of class {label}",
                f"more than {TRAIN + VALIDATION}",
                "Merge or drop small classes.",
            )
        rows = rows[torch.randperm(len(rows), generator=generator)]
        for part, taken in zip(parts, rows.tensor_split([TRAIN, TRAIN + VALIDATION]), strict=True):
            part.append(taken)
    return [torch.cat(part).sort().values for part in parts]
