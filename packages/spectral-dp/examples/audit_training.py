"""A training at epsilon 4 for ``spectral-dp audit one-run``, with canaries where the filter lets them pass.

    spectral-dp audit one-run audit_training:train --canaries 4000 --guesses 200 --epsilon 4 --delta 1e-5

Softmax regression whose gradient is low-passed to half of its 100 inputs. A canary is one of the 50 waves
that the filter keeps, with one of 80 labels: no two have the same gradient, and nothing of it is removed.
The score of a canary is its loss under the trained model alone. Every step uses all the data, and the rate
is so small that a canary's gradient is the same in every step: the worst case that the claim is for.
"""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp import FFTLowPass, SpectralPrivacyEngine

INPUTS, LABELS, EPOCHS = 100, 80, 4


def train(included: np.ndarray) -> np.ndarray:
    """Train on the canaries that are included; return how well the model fits each of all."""
    projection = FFTLowPass(0.5, (INPUTS,))
    waves = projection.bases()[0][: INPUTS // 2].float()
    assert len(included) == len(waves) * LABELS
    x, y = waves.repeat(LABELS, 1), torch.arange(LABELS).repeat_interleave(len(waves))
    mask = torch.from_numpy(included)
    model = nn.Linear(INPUTS, LABELS, bias=False)
    nn.init.zeros_(model.weight)
    data = TensorDataset(x[mask], y[mask])
    module, optimizer, criterion, loader = SpectralPrivacyEngine().make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(reduction="sum"),
        loss_reduction="sum",  # the mean would tell how many canaries there are
        data_loader=DataLoader(data, batch_size=len(data)),
        poisson_sampling=False,  # one batch of everything: nothing is left to chance but the noise
        target_epsilon=4.0,
        target_delta=1e-5,
        epochs=EPOCHS,
        max_grad_norm=0.5,
        grad_sample_mode="ghost",
        spectrum={"": projection},
    )
    for _ in range(EPOCHS):
        for inputs, labels in loader:
            optimizer.zero_grad()
            criterion(module(inputs), labels).backward()
            optimizer.step()
    with torch.no_grad():
        scores: np.ndarray = -nn.functional.cross_entropy(model(x), y, reduction="none").numpy()
    return scores
