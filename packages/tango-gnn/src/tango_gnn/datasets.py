"""Graphs to train on: of files, and two that need none.

>>> from tango_gnn import datasets
>>> data = datasets.load("digits")
>>> data.nodes, data.classes, len(data.train)
(1797, 10, 200)

==================  ==================================================================================
name                what, and where its files are below the folder that ``TENFOLD_DATA`` names
==================  ==================================================================================
``digits``          nearest neighbours among scikit-learn's digits; no files
``cora``            citations, Planetoid's split; ``graphs/planetoid/ind.cora.*``
``citeseer``        the same
``pubmed``          the same
``cora-npz``        citations, a random split; ``graphs/gnn-benchmark/cora.npz``
``citeseer-npz``    the same
``ogbn-*``          the Open Graph Benchmark, say ``ogbn-arxiv``; ``graphs/ogb/ogbn_arxiv``
``ogbl-*``          its link prediction, say ``ogbl-collab``; ``graphs/ogb/ogbl_collab``
==================  ==================================================================================

The readers take files from anywhere. `hold_out_links` makes any graph a data set of link prediction.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from tango_gnn._data import LinkData, NodeData, hold_out_links
from tango_gnn._generated import digits, power_law
from tango_gnn._npz_graphs import read_npz
from tango_gnn._ogb import read_ogb_links, read_ogb_nodes
from tango_gnn._planetoid import read_planetoid
from tenfold import DataError, SettingError, UnknownNameError

__all__ = [
    "NAMES",
    "LinkData",
    "NodeData",
    "digits",
    "hold_out_links",
    "load",
    "load_links",
    "power_law",
    "read_npz",
    "read_ogb_links",
    "read_ogb_nodes",
    "read_planetoid",
]

PLANETOID = ("cora", "citeseer", "pubmed")
NPZ = ("cora-npz", "citeseer-npz")
NAMES = ("digits", *PLANETOID, *NPZ)


def load(name: str, *, seed: int = 0) -> NodeData:
    """Load a data set of node classification by its name.

    Parameters
    ----------
    name : str
        One of the table above.
    seed : int
        Draws the split, of those of npz files alone.

    Returns
    -------
    NodeData

    Raises
    ------
    UnknownNameError
        There is no such data set.
    DataError
        ``TENFOLD_DATA`` names no folder, or a file is missing or corrupt.
    """
    if name == "digits":
        return digits()
    if name in PLANETOID:
        return read_planetoid(_folder(name) / "planetoid", name)
    if name in NPZ:
        path = _folder(name) / "gnn-benchmark" / f"{name.removesuffix('-npz')}.npz"
        return read_npz(path, torch.Generator().manual_seed(seed), name=name)
    if name.startswith("ogbn-"):
        return read_ogb_nodes(_folder(name) / "ogb" / name.replace("-", "_"))
    if name.startswith("ogbl-"):
        raise SettingError(
            f"{name} for node classification", "a data set of nodes", "Use load_links, or --set task=links."
        )
    raise UnknownNameError("data set", name, NAMES)


def load_links(name: str, *, seed: int = 0) -> LinkData:
    """Load a data set of link prediction by its name.

    Parameters
    ----------
    name : str
        One of the table above; of those of nodes, 5 % of the edges are held out for validation and 10 % for
        the test.
    seed : int
        Draws what is held out.

    Returns
    -------
    LinkData

    Raises
    ------
    UnknownNameError, DataError
        As of `load`.
    """
    if name.startswith("ogbl-"):
        return read_ogb_links(_folder(name) / "ogb" / name.replace("-", "_"))
    return hold_out_links(load(name), torch.Generator().manual_seed(seed))


def _folder(name: str) -> Path:
    root = os.environ.get("TENFOLD_DATA")
    if not root:
        raise DataError(
            f"the data set {name!r} and no TENFOLD_DATA",
            "the variable to name a folder with graphs in it",
            "Set it, or use the data set digits.",
        )
    folder = Path(root).expanduser() / "graphs"
    if not folder.is_dir():
        raise DataError(f"no folder {folder}", "the graphs there", "Put them there, or use digits.")
    return folder
