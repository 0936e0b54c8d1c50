"""A training written for Opacus, which two lines of the README turn into one with filtered gradients."""

import torch
import torchvision
from opacus import PrivacyEngine
from torch import Tensor, nn
from torchvision import transforms


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.tanh(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.tanh(self.conv2(x)), 2)
        logits: Tensor = self.fc2(torch.tanh(self.fc1(x.flatten(1))))
        return logits


# For the real thing: torchvision.datasets.MNIST(folder, transform=transforms.ToTensor(), download=True)
data = torchvision.datasets.FakeData(200, (1, 28, 28), 10, transforms.ToTensor())
model = LeNet()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loader = torch.utils.data.DataLoader(data, batch_size=50, shuffle=True)

engine = PrivacyEngine()
model, optimizer, loader = engine.make_private(
    module=model,
    optimizer=optimizer,
    data_loader=loader,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
)
for epoch in range(2):
    for images, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    print(f"epoch {epoch}: epsilon {engine.get_epsilon(delta=1e-3):.2f}")
