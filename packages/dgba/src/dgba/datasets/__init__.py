"""Images with the truth of several tasks: rendered, and read from files.

=============  ======================================  ===================================================
what           files                                   tasks
=============  ======================================  ===================================================
`scenes`       none: rooms rendered from a seed        segmentation, depth, normals, edges, keypoints
`MTAN`         NYUv2 in NumPy files                    segmentation (13), depth, normals
`NYUDepth`     NYUv2's ``nyu_depth_v2_labeled.mat``    depth, normals from it, segmentation (40)
`AdaShare`     NYUv2 or Taskonomy by a JSON list       segmentation (40 or 17), normals, depth; keypoints,
                                                       edges
`Taskonomy`    Taskonomy's folders                     segmentation (17), depth, normals, edges, keypoints
`ParquetNYU`   NYUv2 in parquet files                  segmentation (13), depth, normals
=============  ======================================  ===================================================

Each gives (image, targets by task), with what is unknown marked as the tasks of `dgba` ignore it by default.
"""

from dgba.datasets._adashare import AdaShare
from dgba.datasets._files import Resized
from dgba.datasets._mtan import MTAN
from dgba.datasets._nyu import NYUDepth, normals_of_depth, nyu_classes, nyu_split
from dgba.datasets._parquet import ParquetNYU
from dgba.datasets._scenes import CHANNELS, CLASSES, Scenes, scene_tasks, scenes
from dgba.datasets._taskonomy import Taskonomy

__all__ = [
    "CHANNELS",
    "CLASSES",
    "MTAN",
    "AdaShare",
    "NYUDepth",
    "ParquetNYU",
    "Resized",
    "Scenes",
    "Taskonomy",
    "normals_of_depth",
    "nyu_classes",
    "nyu_split",
    "scene_tasks",
    "scenes",
]
