"""A network of five blocks, some of them shared, and a head for each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dgba.models._sharing import Sharing

CENTRE, SPREAD = 0.5, 0.25


class MultiTaskModel(nn.Module):
    """Map images to the output of every task, along a tree of blocks.

    Parameters
    ----------
    channels : mapping of str to int
        Channels of the output of every task.
    sharing : tuple of partitions
        Groups of tasks of each block.
    block : callable
        Makes the block of an index from 0 to 4.
    head : callable
        Makes the head of a number of channels; it takes the outputs of the five blocks on the task's
        path and the size of the images.

    Attributes
    ----------
    sharing : tuple of partitions
    blocks : ModuleList of ModuleList
        By block, then by group in the order of `sharing`.
    heads : ModuleDict
        By task.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        sharing: Sharing,
        block: Callable[[int], nn.Module],
        head: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.sharing = sharing
        self.blocks = nn.ModuleList(
            nn.ModuleList(block(index) for _ in groups) for index, groups in enumerate(sharing)
        )
        self.heads = nn.ModuleDict({task: head(count) for task, count in channels.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs, each (n, channels, h, w), for `images` (n, 3, h, w) in [0, 1]."""
        trunk = (images - CENTRE) / SPREAD
        paths: dict[str, list[Tensor]] = {task: [] for task in self.heads}
        for groups, blocks in zip(self.sharing, self.blocks, strict=True):
            for group, block in zip(groups, blocks, strict=True):
                before = paths[group[0]]
                output = block(before[-1] if before else trunk)
                for task in group:
                    paths[task] = [*paths[task], output]
        return {task: head(paths[task]) for task, head in self.heads.items()}
