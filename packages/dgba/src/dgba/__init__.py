"""Adversarial attacks on all tasks of a multi-task model, and its robustness, task by task."""

from dgba._tasks import Task, classification, depth, edges, keypoints, losses_of, normals, segmentation

__version__ = "0.1.0"

__all__ = [
    "Task",
    "__version__",
    "classification",
    "depth",
    "edges",
    "keypoints",
    "losses_of",
    "normals",
    "segmentation",
]
