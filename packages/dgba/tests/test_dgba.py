"""DGBA against the authors' form with one pass a task, and against what it is meant to beat."""

import pytest
import torch
from small_models import TASKS, ThreeHeads, batch, losses

from dgba._dgba import DGBA
from dgba._fgsm import IFGSM
from dgba._tasks import losses_of


def by_task_passes(model, images, targets, eps, steps, clean_weights):
    x, clean = images, None
    for _ in range(steps):
        x = x.detach().requires_grad_()
        values = losses_of(TASKS, model(x), targets)
        clean = clean or {name: loss.detach() for name, loss in values.items()}
        direction = torch.zeros_like(x)
        for name, loss in values.items():
            (gradient,) = torch.autograd.grad(loss.sum(), x, retain_graph=True)
            by = clean[name] if clean_weights else loss.detach()
            direction += gradient / (by + 1e-6)[:, None, None, None]
        moved = x.detach() + eps / steps * direction.sign()
        x = torch.clamp(moved, images - eps, images + eps).clamp(0, 1)
    return x


@pytest.mark.parametrize("weights", ["current", "clean"])
def test_is_the_form_with_one_pass_a_task(weights):
    model = ThreeHeads().eval()
    images, targets = batch()
    adversarial = DGBA(model, TASKS, eps=0.05, steps=8, weights=weights, keep_best=False)(images, targets)
    expected = by_task_passes(model, images, targets, 0.05, 8, weights == "clean")
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-9)


def test_raises_relative_losses_more_than_the_other_combinations():
    model = ThreeHeads()
    images, targets = batch(40)
    targets["depth"] = targets["depth"] * 100
    before = losses(model, images, targets)

    def growth(attack):
        after = losses(model, attack(images, targets), targets)
        return float(sum((after[name] / before[name]).log() for name in after).mean())

    dgba = growth(DGBA(model, TASKS, eps=0.02))
    for combination in ("total", "signsum", *(f"single:{task.name}" for task in TASKS)):
        assert dgba > growth(IFGSM(model, TASKS, combination=combination, eps=0.02))


def test_the_combination_is_not_to_be_chosen():
    with pytest.raises(TypeError):
        DGBA(ThreeHeads(), TASKS, combination="total")
