"""A network of five blocks, some of them shared, and a head for each task.

The paper's models are encoders in five coarse blocks. How much the tasks share is a tree: in each block,
the groups of tasks that have one copy of it (`dgba.models._sharing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from dgba._tasks import Task
from dgba.datasets import CHANNELS
from dgba.models import _mobilenet_v2, _resnet34
from dgba.models._aspp import ASPPHead
from dgba.models._sharing import Sharing, resolve_sharing
from dgba.models._small import PyramidHead, small_block
from tenfold import SettingError, UnknownNameError

CENTRE, SPREAD = 0.5, 0.25


@dataclass(frozen=True)
class Encoder:
    """An encoder in five blocks, and the head that goes with it.

    Attributes
    ----------
    block : callable
        Makes the block of an index from 0 to 4.
    head : callable
        Makes a head of a number of output channels. A head takes the outputs of the five blocks on its
        task's path, and the (height, width) of the images.
    """

    block: Callable[[int], nn.Module]
    head: Callable[[int], nn.Module]


ENCODERS: Mapping[str, Encoder] = MappingProxyType(
    {
        "small": Encoder(small_block, PyramidHead),
        "resnet34": Encoder(_resnet34.resnet34_block, partial(ASPPHead, _resnet34.WIDTHS[-1])),
        "mobilenet_v2": Encoder(_mobilenet_v2.mobilenet_v2_block, partial(ASPPHead, _mobilenet_v2.WIDTH)),
    }
)


class MultiTaskModel(nn.Module):
    """Map images to the output of every task, along a tree of blocks. Made by `multi_task`.

    Attributes
    ----------
    sharing : tuple of partitions
        The groups of tasks of each block.
    blocks : ModuleList of ModuleList
        By block, then by group in the order of `sharing`.
    heads : ModuleDict
        By task.
    """

    def __init__(self, channels: Mapping[str, int], sharing: Sharing, encoder: Encoder) -> None:
        super().__init__()
        self.sharing = sharing
        self.blocks = nn.ModuleList(
            nn.ModuleList(encoder.block(index) for _ in groups) for index, groups in enumerate(sharing)
        )
        self.heads = nn.ModuleDict({task: encoder.head(count) for task, count in channels.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs by task, each (n, channels, h, w), for `images` (n, 3, h, w) in [0, 1].

        Raises
        ------
        SettingError
            The images have another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise SettingError(
                f"images of shape {tuple(images.shape)}", "(n, 3, height, width)", "Batch colour images."
            )
        images = images.contiguous(memory_format=torch.channels_last)
        paths = {task: [(images - CENTRE) / SPREAD] for task in self.heads}
        for groups, blocks in zip(self.sharing, self.blocks, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            for group, block in zip(groups, blocks, strict=True):
                output = block(paths[group[0]][-1])
                for task in group:
                    paths[task].append(output)
        size = (images.shape[-2], images.shape[-1])
        return {task: head(paths[task][1:], size) for task, head in self.heads.items()}


def multi_task(
    tasks: Sequence[Task],
    *,
    encoder: str | Encoder = "small",
    sharing: str | Sequence[Sequence[Sequence[str]]] = "shared",
    channels: Mapping[str, int] = CHANNELS,
    seed: int = 0,
) -> MultiTaskModel:
    """Make a multi-task model with random weights.

    Parameters
    ----------
    tasks : sequence of Task
    encoder : {"small", "resnet34", "mobilenet_v2"} or Encoder
        ``"small"`` suits images of 64 x 64 pixels, the others larger ones.
    sharing : {"shared", "branched", "independent"} or nested sequence of str
        ``"branched"`` shares the first three of the five blocks among all tasks and none of the last two.
        Otherwise, for each block its groups of tasks, which refine those of the block before.
    channels : mapping of str to int
        Channels of each task's output; by default those of the tasks of `dgba.datasets.scenes`.
    seed : int
        Of the weights; torch's own generator is left as it was.

    Returns
    -------
    MultiTaskModel

    Raises
    ------
    UnknownNameError
        There is no encoder or sharing of that name, or a task has no channels.
    SettingError
        No tasks, or the sharing is no tree of them.

    Examples
    --------
    >>> import torch
    >>> from dgba.datasets import scene_tasks
    >>> from dgba.models import multi_task
    >>> model = multi_task(scene_tasks(), sharing="branched")
    >>> {task: tuple(output.shape) for task, output in model(torch.rand(2, 3, 64, 64)).items()}["normals"]
    (2, 3, 64, 64)
    """
    names = [task.name for task in tasks]
    if not names:
        raise SettingError("a model of no task", "one task at least", "Name its tasks.")
    for name in names:
        if name not in channels:
            raise UnknownNameError("task with a number of channels", name, channels)
    if isinstance(encoder, str):
        if encoder not in ENCODERS:
            raise UnknownNameError("encoder", encoder, ENCODERS)
        encoder = ENCODERS[encoder]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MultiTaskModel(
            {name: channels[name] for name in names}, resolve_sharing(sharing, names), encoder
        )
    return model.to(memory_format=torch.channels_last)
