"""One step, and several, against torchattacks and against what is plainly right."""

import pytest
import torch
import torchattacks
from small_models import LABEL, TASKS, Logits, ThreeHeads, batch, losses

from dgba._fgsm import FGSM, IFGSM

EPS = 8 / 255
COMBINATIONS = ["single", "total", "signsum", "dgba", "dgba:clean"]


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("targeted", [False, True])
def test_one_step_is_that_of_torchattacks(combination, targeted):
    model = ThreeHeads(torch.float32).eval()
    images, targets = batch(dtype=torch.float32)
    ours, theirs = FGSM(model, LABEL, combination=combination), torchattacks.FGSM(Logits(model), eps=EPS)
    if targeted:
        ours.set_mode_targeted_by_target()
        theirs.set_mode_targeted_by_label(quiet=True)
    expected = theirs(images, targets["label"])
    torch.testing.assert_close(ours(images, targets), expected, rtol=0, atol=1e-6)
    assert (expected - images).abs().max() > 0.9 * EPS


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_several_steps_are_those_of_torchattacks(combination):
    model = ThreeHeads(torch.float32).eval()
    images, targets = batch(dtype=torch.float32)
    ours = IFGSM(model, LABEL, combination=combination, steps=7, keep_best=False)
    theirs = torchattacks.BIM(Logits(model), eps=EPS, alpha=EPS / 7, steps=7)
    torch.testing.assert_close(ours(images, targets), theirs(images, targets["label"]), rtol=0, atol=1e-6)


def test_a_linear_loss_is_raised_as_far_as_it_can_be():
    weights = torch.tensor([1.0, -2.0, 0.0, 0.5]).double().reshape(1, 1, 2, 2)
    images = torch.tensor([0.5, 0.005, 0.5, 0.99]).double().reshape(1, 1, 2, 2)
    adversarial = FGSM(
        lambda x: {"label": (x * weights).sum((1, 2, 3))[:, None] * torch.tensor([[1.0, -1.0, 0.0, 0.0]])},
        LABEL,
        eps=0.02,
    )(images, {"label": torch.tensor([1])})
    expected = torch.tensor([0.52, 0.0, 0.5, 1.0]).double().reshape(1, 1, 2, 2)
    torch.testing.assert_close(adversarial, expected)


def test_the_best_iterate_is_never_worse_than_the_last():
    model = ThreeHeads()
    images, targets = batch(20)
    wild = {"combination": "total", "eps": 0.5, "alpha": 0.4, "steps": 6}
    last = losses(model, IFGSM(model, TASKS, keep_best=False, **wild)(images, targets), targets)
    best = losses(model, IFGSM(model, TASKS, **wild)(images, targets), targets)
    gain = sum(best.values()) - sum(last.values())
    assert (gain >= 0).all()
    assert (gain > 0).any()
