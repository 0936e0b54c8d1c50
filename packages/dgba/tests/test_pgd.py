"""Projected gradient ascent against torchattacks, and in other norms."""

import pytest
import torch
import torchattacks
from small_models import LABEL, TASKS, Logits, ThreeHeads, batch, losses

from dgba._pgd import PGD

EPS = 8 / 255


@pytest.mark.parametrize("combination", ["single", "total", "signsum", "dgba", "dgba:clean"])
@pytest.mark.parametrize("targeted", [False, True])
def test_is_that_of_torchattacks_from_the_same_start(combination, targeted):
    model = ThreeHeads(torch.float32).eval()
    images, targets = batch(dtype=torch.float32)
    torch.manual_seed(3)
    start = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
    ours = PGD(model, LABEL, combination=combination, alpha=2 / 255, keep_best=False)
    theirs = torchattacks.PGD(Logits(model), eps=EPS, alpha=2 / 255, steps=10, random_start=True)
    if targeted:
        ours.set_mode_targeted_by_target()
        theirs.set_mode_targeted_by_label(quiet=True)
    torch.manual_seed(3)
    expected = theirs(images, targets["label"])
    torch.testing.assert_close(ours(images, targets, start=start), expected, rtol=0, atol=1e-6)


def test_in_l2_it_is_that_of_torchattacks_away_from_the_edges_of_the_range():
    model = ThreeHeads(torch.float32).eval()
    images, targets = batch(dtype=torch.float32)
    images = 0.25 + images / 2
    ours = PGD(model, LABEL, norm="l2", eps=0.2, alpha=0.05, random_start=False, keep_best=False)
    theirs = torchattacks.PGDL2(Logits(model), eps=0.2, alpha=0.05, steps=10, random_start=False)
    torch.testing.assert_close(ours(images, targets), theirs(images, targets["label"]), rtol=0, atol=1e-5)


def test_more_steps_and_a_larger_ball_damage_more():
    model = ThreeHeads()
    images, targets = batch(12)

    def damage(**settings):
        adversarial = PGD(model, TASKS, combination="total", **settings)(images, targets)
        return float(sum(losses(model, adversarial, targets).values()).mean())

    assert damage(steps=1) < damage(steps=20)
    assert damage(eps=2 / 255) < damage(eps=8 / 255) < damage(eps=32 / 255)


def test_settings_can_be_changed_between_calls():
    model = ThreeHeads()
    images, targets = batch()
    attack = PGD(model, TASKS)
    assert attack.step_length == 2.5 * EPS / 10
    attack.eps = 2 / 255
    attack.alpha = 1 / 255
    assert (attack(images, targets) - images).abs().max() <= 2 / 255 + 1e-9
    torch.testing.assert_close(
        attack(images, targets), PGD(model, TASKS, eps=2 / 255, alpha=1 / 255)(images, targets)
    )
