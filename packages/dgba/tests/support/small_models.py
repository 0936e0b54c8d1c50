"""Small models with many outputs, and batches for them, on which attacks are tested."""

import torch
from torch import Tensor, nn

from dgba._tasks import Task, classification, depth, losses_of, segmentation

CLASSES = 4
TASKS = (segmentation("segmentation", CLASSES), depth("depth"), classification("label", CLASSES))
LABEL = (TASKS[2],)


class ThreeHeads(nn.Module):
    """Segmentation, depth and a label from shared features, curved enough for attacks to go astray."""

    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Conv2d(6, 6, 3),
            nn.Tanh(),
        )
        self.segmentation = nn.ConvTranspose2d(6, CLASSES, 3)
        self.depth = nn.ConvTranspose2d(6, 1, 3)
        self.label = nn.Linear(6 * 36, CLASSES)
        self.to(dtype)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(x)
        return {
            "segmentation": self.segmentation(features),
            "depth": self.depth(features),
            "label": self.label(features.flatten(1)),
        }


class Logits(nn.Module):
    """The label alone, as torchattacks takes it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        label: Tensor = self.model(x)["label"]
        return label


def batch(n: int = 6, dtype: torch.dtype = torch.float64, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, 8, 8, generator=generator, dtype=torch.float64)
    images[:, 0, :2] = images[:, 0, :2].round()
    return images.to(dtype), {
        "segmentation": torch.randint(0, CLASSES, (n, 8, 8), generator=generator),
        "depth": torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64).to(dtype) + 0.1,
        "label": torch.randint(0, CLASSES, (n,), generator=generator),
    }


def only(targets: dict[str, Tensor], samples: list[int]) -> dict[str, Tensor]:
    """Return the targets of some samples."""
    return {name: target[samples] for name, target in targets.items()}


def losses(
    model: nn.Module, x: Tensor, targets: dict[str, Tensor], tasks: tuple[Task, ...] = TASKS
) -> dict[str, Tensor]:
    """Return the losses in eval mode, without gradient."""
    with torch.no_grad():
        return losses_of(tasks, model.eval()(x), targets)
