"""Track what a detector of torchvision finds.

    python torchvision_script.py            # outputs of a detector that is simulated
    python torchvision_script.py FOLDER     # torchvision's Faster R-CNN on the pictures of a video

A detector of torchvision returns a dictionary of tensors for each image: boxes, scores and labels. With a
head for the errors of its boxes (`mot_cup.direct`), log_variances are among them and the filter uses them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mot_cup import ByteTrack
from mot_cup.adapters import from_torchvision
from mot_cup.simulation import SceneSettings, simulate

CARS = 3  # of COCO's labels


def simulated_outputs() -> Iterator[dict[str, Tensor]]:
    """Yield what a detector with a head for its errors would return, image by image."""
    scene = simulate(SceneSettings(frames=50), np.random.default_rng(0))
    for found in scene.together.detections:
        assert found.covariance is not None
        variances = np.diagonal(found.covariance.matrices, axis1=1, axis2=2)
        yield {
            "boxes": torch.from_numpy(found.boxes),
            "scores": torch.from_numpy(found.scores),
            "labels": torch.full((len(found),), CARS),
            "log_variances": torch.from_numpy(np.log(variances)),
        }


@torch.no_grad()
def outputs_of(folder: Path) -> Iterator[dict[str, Tensor]]:
    """Yield what Faster R-CNN returns, which says nothing of its errors."""
    import torchvision

    model = torchvision.models.detection.fasterrcnn_resnet50_fpn_v2(weights="DEFAULT").eval()
    for path in sorted(folder.iterdir()):
        yield model([torchvision.io.decode_image(str(path), "RGB") / 255])[0]


def main() -> int:
    """Track, and print how many boxes and identities there are; return the latter."""
    outputs = outputs_of(Path(sys.argv[1])) if len(sys.argv) > 1 else simulated_outputs()
    uncertain = "off" if len(sys.argv) > 1 else "covariance"
    tracker = ByteTrack(track_thresh=0.5, frame_rate=5, uncertainty=uncertain, per_class=True)
    boxes, identities = 0, set()
    for output in outputs:
        rows = tracker.update(from_torchvision(output))
        boxes += len(rows)
        identities |= set(rows[:, 4].astype(int).tolist())
    print(f"{boxes} boxes of {len(identities)} identities")
    return len(identities)


if __name__ == "__main__":
    main()
