"""Graphs that need no files: neighbours among scikit-learn's digits, and a power law.

The digits are real: 1,797 images of 8 x 8 pixels. An image is joined to those nearest to it, and few of
them are labelled, as in Planetoid's graphs. The power law is for measuring speed: the degrees of web and
social graphs without their meaning.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tango_gnn._data import NodeData, undirected
from tenfold import SettingError, data

LABELLED, VALIDATION = 20, 500


def digits(neighbours: int = 8) -> NodeData:
    """Return the graph of nearest neighbours among scikit-learn's digits.

    Features are the pixels, from 0 to 1; distances are Euclidean, and of equally near images the earlier
    is the nearer. 20 images of a class are for training, 500 of the others for validation, and the other
    1,097 for the test.

    Parameters
    ----------
    neighbours : int
        Neighbours of an image; an edge in either direction counts in both.

    Returns
    -------
    NodeData

    Raises
    ------
    SettingError
        `neighbours` is below 1, or not below the number of images.
    """
    images = data.load("digits")
    parts = (images.train, images.validation, images.test)
    pixels = torch.cat([torch.from_numpy(part.images.reshape(len(part), -1)) for part in parts])
    labels = torch.cat([torch.from_numpy(part.labels) for part in parts])
    nodes = len(pixels)
    if not 1 <= neighbours < nodes:
        raise SettingError(f"{neighbours} neighbours", f"from 1 to {nodes - 1}", "Take 8.")
    x = pixels.double()
    # Whole numbers in double precision: the distances are exact and equal on every machine.
    squares = x.square().sum(1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    distances.fill_diagonal_(torch.inf)
    nearest = distances.sort(dim=1, stable=True).indices[:, :neighbours]
    rows = torch.arange(nodes)[:, None].expand_as(nearest)
    order = [torch.nonzero(labels == label).flatten() for label in range(len(images.classes))]
    train = torch.cat([rows[:LABELLED] for rows in order]).sort().values
    others = torch.ones(nodes, dtype=torch.bool)
    others[train] = False
    rest = torch.nonzero(others).flatten()
    return NodeData(
        name="digits",
        edges=undirected(torch.stack([nearest.flatten(), rows.flatten()]), nodes),
        features=(x / images.peak).float(),
        labels=labels,
        classes=len(images.classes),
        train=train,
        validation=rest[:VALIDATION],
        test=rest[VALIDATION:],
    )


def power_law(
    nodes: int = 100_000, edges: int = 2_000_000, *, exponent: float = 0.5, seed: int = 0
) -> Tensor:
    """Draw a directed graph whose degrees follow a power law, with a self-loop at every node.

    Both ends of an edge are drawn independently, the node of rank i with a probability in proportion to
    i to the power of minus `exponent`, so that degrees fall off with the power 1 + 1 / `exponent`. Edges
    repeat.

    Parameters
    ----------
    nodes, edges : int
        Self-loops come on top of `edges`.
    exponent : float
        From 0, where all nodes are alike.
    seed : int

    Returns
    -------
    Tensor
        int64, shape (2, edges + nodes).

    Raises
    ------
    SettingError
        There are no nodes, or a number is negative.
    """
    if nodes < 1 or edges < 0 or not 0 <= exponent < float("inf"):
        raise SettingError(
            f"{nodes} nodes, {edges} edges, exponent {exponent:g}",
            "a node or more, and nothing negative",
            "Correct them.",
        )
    generator = torch.Generator().manual_seed(seed)
    weights = torch.arange(1, nodes + 1, dtype=torch.float64).pow(-exponent)
    cumulative = weights.cumsum(0) / weights.sum()
    names = torch.randperm(nodes, generator=generator)
    draws = torch.rand((2, edges), generator=generator, dtype=torch.float64)
    ends = names[torch.searchsorted(cumulative, draws).clamp_(max=nodes - 1)]
    return torch.cat([ends, torch.arange(nodes).expand(2, -1)], 1)
