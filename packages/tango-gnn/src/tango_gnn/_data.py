"""What a data set of graphs is once loaded: edges, features, and what is to be predicted.

Edges are a tensor of shape (2, E), sources above destinations, as PyG has them; an undirected edge is
there in both directions. The layers of `tango_gnn.nn` take the `Graph` made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tango_gnn._graph import Graph
from tenfold import SettingError


@dataclass(frozen=True, eq=False)
class NodeData:
    """A graph whose nodes are to be classified.

    Parameters
    ----------
    name : str
    edges : Tensor
        int64, shape (2, E).
    features : Tensor
        float32, shape (n, F).
    labels : Tensor
        int64, shape (n,); -1 where a node has none.
    classes : int
    train, validation, test : Tensor
        int64, the nodes of each split, all with a label.

    Raises
    ------
    SettingError
        A shape or type is another, an edge or a split names a node that is not there, features are not
        finite, or a label is out of range.
    """

    name: str
    edges: Tensor
    features: Tensor
    labels: Tensor
    classes: int
    train: Tensor
    validation: Tensor
    test: Tensor

    def __post_init__(self) -> None:
        nodes = check_features(self.features)
        check_edges(self.edges, nodes)
        if self.labels.dtype != torch.int64 or self.labels.shape != (nodes,):
            raise SettingError(
                f"labels are {self.labels.dtype} of shape {tuple(self.labels.shape)}",
                f"int64 of shape ({nodes},)",
                "Give one class index per node, -1 where it has none.",
            )
        if nodes and not -1 <= int(self.labels.min()) <= int(self.labels.max()) < self.classes:
            raise SettingError(
                f"labels from {self.labels.min()} to {self.labels.max()}",
                f"from 0 to {self.classes - 1}, or -1",
                "Correct the labels or the number of classes.",
            )
        for split in ("train", "validation", "test"):
            rows = getattr(self, split)
            if rows.dtype != torch.int64 or rows.dim() != 1 or _outside(rows, nodes):
                raise SettingError(
                    f"the split {split} is {rows.dtype} of shape {tuple(rows.shape)}, nodes {_range(rows)}",
                    f"int64 indices from 0 to {nodes - 1}",
                    "Give the indices of nodes, not a mask.",
                )
            if bool((self.labels[rows] < 0).any()):
                raise SettingError(
                    f"a node of the split {split} without a label", "a label", "Leave it out of the split."
                )

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.features)

    @cached_property
    def graph(self) -> Graph:
        """The `Graph` of the edges, built once."""
        return Graph.from_edges(self.edges[0], self.edges[1], self.nodes)


@dataclass(frozen=True, eq=False)
class LinkData:
    """A graph of which some edges are held out, to be told from pairs that are no edges.

    Parameters
    ----------
    name : str
    edges : Tensor
        int64, shape (2, E): the edges that a model may see.
    features : Tensor
        float32, shape (n, F).
    train : Tensor
        int64, shape (2, m): pairs to train on, an undirected edge once.
    validation, validation_negatives, test, test_negatives : Tensor
        int64, shape (2, k): edges that were held out, and pairs that are none.

    Raises
    ------
    SettingError
        A shape or type is another, a pair names a node that is not there, or features are not finite.
    """

    name: str
    edges: Tensor
    features: Tensor
    train: Tensor
    validation: Tensor
    validation_negatives: Tensor
    test: Tensor
    test_negatives: Tensor

    def __post_init__(self) -> None:
        nodes = check_features(self.features)
        for pairs in (
            self.edges,
            self.train,
            self.validation,
            self.validation_negatives,
            self.test,
            self.test_negatives,
        ):
            check_edges(pairs, nodes)

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.features)

    @cached_property
    def graph(self) -> Graph:
        """The `Graph` of the edges that a model may see, built once."""
        return Graph.from_edges(self.edges[0], self.edges[1], self.nodes)


def hold_out_links(
    data: NodeData, generator: torch.Generator, *, validation: float = 0.05, test: float = 0.1
) -> LinkData:
    """Hold out undirected edges of a graph for link prediction.

    As many pairs of different nodes that are no edges of the whole graph are drawn as negatives.

    Parameters
    ----------
    data : NodeData
        With every undirected edge in both directions.
    generator : torch.Generator
    validation, test : float
        Shares of the undirected edges.

    Returns
    -------
    LinkData

    Raises
    ------
    SettingError
        The shares leave no edge to one of the splits, or the graph is too dense for as many negatives.
    """
    source, destination = data.edges[:, data.edges[0] < data.edges[1]]
    once = torch.stack([source, destination])
    once = once[:, torch.randperm(once.shape[1], generator=generator)]
    first = int(validation * once.shape[1])
    second = first + int(test * once.shape[1])
    if not 0 < first < second < once.shape[1]:
        raise SettingError(
            f"{validation:g} and {test:g} of {once.shape[1]} edges held out",
            "an edge at least for each of validation, test and training",
            "Change the shares.",
        )
    negatives = _non_edges(data.edges, data.nodes, second, generator)
    train = once[:, second:]
    return LinkData(
        name=data.name,
        edges=torch.cat([train, train.flip(0)], 1),
        features=data.features,
        train=train,
        validation=once[:, :first],
        validation_negatives=negatives[:, :first],
        test=once[:, first:second],
        test_negatives=negatives[:, first:],
    )


def undirected(edges: Tensor, nodes: int) -> Tensor:
    """Return the edges in both directions, each once, in the order of sources, without self-loops."""
    both = torch.cat([edges, edges.flip(0)], 1)
    keys = torch.unique(both[0] * nodes + both[1])
    source, destination = keys // max(nodes, 1), keys % max(nodes, 1)
    different = source != destination
    return torch.stack([source[different], destination[different]])


def scale_rows(features: Tensor) -> Tensor:
    """Divide rows of non-negative features by their sums; rows of zeros stay."""
    return features / features.sum(1, keepdim=True).clamp_min(torch.finfo(features.dtype).tiny)


def check_features(features: Tensor) -> int:
    """Return the number of rows of features that are finite float32 in a matrix.

    Raises
    ------
    SettingError
        They are not.
    """
    if features.dtype != torch.float32 or features.dim() != 2:
        raise SettingError(
            f"features are {features.dtype} of shape {tuple(features.shape)}",
            "float32 of shape (nodes, width)",
            "Convert them by .float().",
        )
    if not bool(torch.isfinite(features).all()):
        raise SettingError("features with NaN or infinity", "finite ones", "Mend or drop those nodes.")
    return len(features)


def check_edges(edges: Tensor, nodes: int) -> None:
    """Refuse edges of another type or shape, or of nodes that are not there.

    Raises
    ------
    SettingError
        They are not int64 of shape (2, E), from 0 to `nodes` - 1.
    """
    if edges.dtype != torch.int64 or edges.dim() != 2 or len(edges) != 2:
        raise SettingError(
            f"edges are {edges.dtype} of shape {tuple(edges.shape)}",
            "int64 of shape (2, E), sources above destinations",
            "Stack the two rows.",
        )
    if _outside(edges, nodes):
        raise SettingError(
            f"edges of nodes {_range(edges)}", f"nodes from 0 to {nodes - 1}", "Correct the edges."
        )


def _non_edges(edges: Tensor, nodes: int, count: int, generator: torch.Generator) -> Tensor:
    keys = torch.unique(torch.cat([edges[0] * nodes + edges[1], edges[1] * nodes + edges[0]]))
    if count > (nodes * (nodes - 1) - len(keys)) // 4:
        raise SettingError(
            f"{count} pairs that are no edges among {nodes} nodes with {len(keys)} edges",
            "a graph of which at most three quarters of the pairs would be used",
            "Hold out fewer edges.",
        )
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < count:
        pairs = torch.randint(nodes, (2, 2 * count), generator=generator)
        drawn = (pairs.amin(0) * nodes + pairs.amax(0))[pairs[0] != pairs[1]]
        drawn = drawn[~torch.isin(drawn, keys)]
        found = _first_of_each(torch.cat([found, drawn]))
    return torch.stack([found[:count] // nodes, found[:count] % nodes])


def _first_of_each(keys: Tensor) -> Tensor:
    """Drop repetitions, and keep the order: sorted keys would hold out the first nodes only."""
    unique, inverse = torch.unique(keys, return_inverse=True)
    first = torch.full((len(unique),), len(keys)).scatter_reduce(0, inverse, torch.arange(len(keys)), "amin")
    return keys[first.sort().values]


def _outside(rows: Tensor, nodes: int) -> bool:
    return rows.numel() > 0 and not 0 <= int(rows.min()) <= int(rows.max()) < nodes


def _range(rows: Tensor) -> str:
    return f"{rows.min()} to {rows.max()}" if rows.numel() else "none"
