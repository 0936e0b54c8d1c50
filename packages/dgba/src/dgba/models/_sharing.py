"""Which tasks share which of an encoder's five blocks: a tree, given as a partition of the tasks a block.

The groups of a block refine those of the block before: tasks that have parted never meet again. The
paper's two ends are "all shared", one group in every block, and "independent", each task a group of its
own in every block.
"""

from __future__ import annotations

from collections.abc import Sequence

from tenfold import SettingError, UnknownNameError

BLOCKS = 5
TRUNK = 3
"""Blocks that ``"branched"`` shares."""

Partition = tuple[tuple[str, ...], ...]
Sharing = tuple[Partition, ...]


def resolve_sharing(sharing: str | Sequence[Sequence[Sequence[str]]], tasks: Sequence[str]) -> Sharing:
    """Return the groups of tasks of each of the five blocks, checked.

    Parameters
    ----------
    sharing : {"shared", "branched", "independent"} or nested sequence
        A name, where ``"branched"`` shares the first three blocks among all tasks and none of the last
        two, or for each block its groups, each a sequence of names.
    tasks : sequence of str
        All of them.

    Returns
    -------
    tuple of tuple of tuple of str

    Raises
    ------
    UnknownNameError
        There is no sharing, or no task, of a name that came.
    SettingError
        There are not five blocks, a block leaves a task out or has it twice, or its groups do not refine
        those of the block before.
    """
    together, apart = (tuple(tasks),), tuple((task,) for task in tasks)
    named = {
        "shared": (together,) * BLOCKS,
        "branched": (together,) * TRUNK + (apart,) * (BLOCKS - TRUNK),
        "independent": (apart,) * BLOCKS,
    }
    if isinstance(sharing, str):
        if sharing not in named:
            raise UnknownNameError("sharing", sharing, named)
        return named[sharing]
    tree = tuple(tuple(tuple(group) for group in partition) for partition in sharing)
    if len(tree) != BLOCKS:
        raise SettingError(f"the sharing has {len(tree)} blocks", f"{BLOCKS}", "Give the groups of each.")
    before: Partition = together
    for block, partition in enumerate(tree, start=1):
        members = [task for group in partition for task in group]
        for task in members:
            if task not in tasks:
                raise UnknownNameError("task", task, tasks)
        if sorted(members) != sorted(tasks) or not all(partition):
            raise SettingError(
                f"block {block} of the sharing has the tasks {', '.join(members)}",
                "each task once, and no empty group",
                "Correct its groups.",
            )
        for group in partition:
            if not any(set(group) <= set(parent) for parent in before):
                raise SettingError(
                    f"block {block} of the sharing joins {', '.join(group)}, which parted before",
                    "groups that refine those of the block before",
                    "Tasks that have parted cannot share a later block.",
                )
        before = partition
    return tree
