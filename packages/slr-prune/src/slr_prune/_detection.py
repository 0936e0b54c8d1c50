"""Object detection in small: an anchor-free detector of a single stage.

After CenterNet (Zhou et al., "Objects as Points", 2019): every class has a heat map at a quarter
of the resolution, whose peaks are the centres of objects. Unlike CenterNet and as in FCOS (Tian et al.,
ICCV 2019), a cell says how far the four sides of the box are from its own centre, so that no
separate offset is needed; and as in TTFNet (Liu et al., AAAI 2020) the spread of a peak follows
width and height separately, and cells near the centre learn the box as well, by their heat.

With target y and prediction p the loss of the heat map is the focal loss

    -1/N sum (1 - p)^2 log p  where y = 1,   (1 - y)^4 p^2 log(1 - p)  elsewhere,

N the number of objects; that of the boxes is the absolute error in cells, weighted by the heat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slr_prune._annotated import AnnotatedImages
from slr_prune._boxes import Detections, areas, nms
from slr_prune._segmentation import conv_bn_relu
from tenfold import SettingError

STRIDE = 4
SPREAD = 0.54 / 6
LEAST_WEIGHT = 0.05
BOX_WEIGHT = 0.5
FIRST_HEAT = -2.19  # a heat of a tenth
FIRST_SIDE = 2.0


class CenterDetector(nn.Module):
    """An anchor-free detector for images (n, 3, h, w), h and w multiples of 16.

    Parameters
    ----------
    classes : int
        Classes of objects.
    width : int
        Channels at half the resolution; a quarter has twice as many, what is below four times.

    Raises
    ------
    SettingError
        A parameter is below 1.
    """

    def __init__(self, classes: int, *, width: int = 8) -> None:
        super().__init__()
        for name, value in (("classes", classes), ("width", width)):
            if value < 1:
                raise SettingError(f"{name} is {value}", "1 or more", f"Raise {name}.")
        quarter, below = 2 * width, 4 * width
        self.stem = nn.Sequential(conv_bn_relu(3, width, 2), conv_bn_relu(width, quarter, 2))
        self.quarter = conv_bn_relu(quarter, quarter)
        self.eighth = nn.Sequential(conv_bn_relu(quarter, below, 2), conv_bn_relu(below, below))
        self.sixteenth = nn.Sequential(conv_bn_relu(below, below, 2), conv_bn_relu(below, below))
        self.up_eighth = conv_bn_relu(2 * below, below)
        self.up_quarter = conv_bn_relu(below + quarter, below)
        self.heat = nn.Sequential(conv_bn_relu(below, below), _predict(below, classes, FIRST_HEAT))
        self.sides = nn.Sequential(conv_bn_relu(below, below), _predict(below, 4, FIRST_SIDE))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, classes + 4, h / 4, w / 4): logits of the heat, then the sides in cells."""
        quarter = self.quarter(self.stem(x))
        eighth = self.eighth(quarter)
        x = self.up_eighth(torch.cat([eighth, F.interpolate(self.sixteenth(eighth), scale_factor=2.0)], 1))
        x = self.up_quarter(torch.cat([quarter, F.interpolate(x, scale_factor=2.0)], 1))
        return torch.cat([self.heat(x), self.sides(x)], 1)


def _predict(before: int, after: int, first: float) -> nn.Conv2d:
    """Return a 1 x 1 convolution whose outputs begin about `first`."""
    layer = nn.Conv2d(before, after, 1)
    nn.init.constant_(cast(Tensor, layer.bias), first)
    return layer


@dataclass(frozen=True, eq=False)
class DetectionTargets:
    """What a detector of stride 4 is to predict for n images of h' x w' cells.

    Attributes
    ----------
    heat : Tensor
        float32 (n, classes, h', w'), 1 at the centre of an object.
    sides : Tensor
        float32 (n, 4, h', w'): from the cell's centre to the left, top, right and bottom side of
        the box, in cells.
    weight : Tensor
        float32 (n, h', w'), the weight of the sides of a cell.
    known : Tensor
        bool (n, h', w'), False where nobody said what is there.
    """

    heat: Tensor
    sides: Tensor
    weight: Tensor
    known: Tensor

    def __getitem__(self, index: Tensor) -> DetectionTargets:
        return DetectionTargets(self.heat[index], self.sides[index], self.weight[index], self.known[index])


def detection_targets(examples: AnnotatedImages) -> DetectionTargets:
    """Return the targets of annotated images.

    Where peaks of a class overlap, the higher counts; where objects do, a cell learns the box of
    the one whose heat is the highest, and of two with their centre in one cell the smaller one's.

    Raises
    ------
    SettingError
        Height or width is not a multiple of 16.
    """
    height, width = examples.images.shape[2:]
    if height % 16 or width % 16:
        raise SettingError(f"images of {height} x {width}", "multiples of 16", "Choose another size.")
    y, x = (torch.arange(length // STRIDE).float() + 0.5 for length in (height, width))
    count, classes = len(examples), len(examples.classes)
    heat = torch.zeros(count, classes, len(y), len(x))
    sides = torch.zeros(count, 4, len(y), len(x))
    weight = torch.zeros(count, len(y), len(x))
    known = torch.ones(count, len(y), len(x), dtype=torch.bool)
    for index, (boxes, labels) in enumerate(zip(examples.boxes, examples.labels, strict=True)):
        boxes = boxes / STRIDE
        for left, top, right, bottom in (examples.ignored[index] / STRIDE).tolist():
            known[index] &= ~(((y > top) & (y < bottom))[:, None] & (x > left) & (x < right))
        for place in areas(boxes).argsort(descending=True, stable=True).tolist():
            left, top, right, bottom = boxes[place].tolist()
            peak = _bell(y, top, bottom)[:, None] * _bell(x, left, right)
            label = int(labels[place])
            heat[index, label] = torch.maximum(heat[index, label], peak)
            mine = (peak >= weight[index]) & (peak > LEAST_WEIGHT)
            weight[index][mine] = peak[mine]
            towards = torch.stack(
                torch.broadcast_tensors(x - left, y[:, None] - top, right - x, bottom - y[:, None])
            )
            sides[index][:, mine] = towards[:, mine]
    return DetectionTargets(heat, sides, weight, known | (heat == 1).any(1))


def _bell(cells: Tensor, low: float, high: float) -> Tensor:
    """Return a Gaussian over cell centres, 1 at the cell in which the middle of the interval lies."""
    middle = min(max(int((low + high) / 2), 0), len(cells) - 1)
    spread = max(SPREAD * (high - low), 1e-3)
    return torch.exp(-((cells - cells[middle]) ** 2) / (2 * spread**2))


def detection_loss(output: Tensor, targets: DetectionTargets) -> Tensor:
    """Return the loss of a detector's output, (n, classes + 4, h', w'), averaged over objects."""
    classes = targets.heat.shape[1]
    logits, sides = output[:, :classes], output[:, classes:]
    centre = targets.heat == 1
    objects = centre.sum().clamp(min=1)
    found = torch.sigmoid(logits)
    focal = torch.where(
        centre,
        (1 - found) ** 2 * F.logsigmoid(logits),
        (1 - targets.heat) ** 4 * found**2 * F.logsigmoid(-logits),
    )
    heat = -(focal * targets.known[:, None]).sum() / objects
    error = ((sides - targets.sides).abs().sum(1) * targets.weight).sum() / targets.weight.sum().clamp(min=1)
    return heat + BOX_WEIGHT * error


def decode(
    heat: Tensor, sides: Tensor, *, least_score: float = 0.05, most: int = 100, overlap: float = 0.5
) -> list[Detections]:
    """Read boxes off heat maps: peaks among their eight neighbours, then non-maximum suppression.

    Parameters
    ----------
    heat : Tensor
        float32 (n, classes, h', w'), from 0 to 1.
    sides : Tensor
        float32 (n, 4, h', w'), in cells; see `DetectionTargets`.
    least_score : float
        Heat that a peak needs.
    most : int
        Most detections an image.
    overlap : float
        Intersection over union above which the lower of two boxes of a class is dropped.

    Returns
    -------
    list of Detections
        One an image; boxes in pixels, clipped to the image.
    """
    height, width = heat.shape[2:]
    peaks = heat * (heat == F.max_pool2d(heat, 3, stride=1, padding=1))
    scores, order = peaks.flatten(1).topk(min(most, peaks[0].numel()), dim=1)
    labels, cells = order // (height * width), order % (height * width)
    centres = torch.stack([cells % width, cells // width], 2) + 0.5
    distances = sides.flatten(2).transpose(1, 2).gather(1, cells[:, :, None].expand(-1, -1, 4))
    boxes = STRIDE * torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], 2)
    limit = STRIDE * torch.tensor([width, height, width, height], device=boxes.device)
    boxes = boxes.clamp(min=0).minimum(limit)
    found = []
    for box, score, label in zip(boxes, scores, labels, strict=True):
        real = (score >= least_score) & (box[:, 2:] > box[:, :2]).all(1)
        box, score, label = box[real], score[real], label[real]
        kept = nms(box, score, label, overlap)
        found.append(Detections(box[kept], score[kept], label[kept]))
    return found


def detect(output: Tensor, classes: int) -> list[Detections]:
    """Decode the output of a `CenterDetector`."""
    return decode(torch.sigmoid(output[:, :classes]), output[:, classes:])
