"""Auto-PGD against torchattacks, and for each sample by itself."""

import pytest
import torch
import torchattacks
from small_models import LABEL, TASKS, Logits, ThreeHeads, batch, losses

from dgba._apgd import APGD, APGDRestart, _checkpoints
from dgba._pgd import PGD

EPS = 8 / 255


@pytest.mark.parametrize(
    ("combination", "steps"),
    [
        *(("single", steps) for steps in (1, 2, 5, 10, 20, 50, 100)),
        ("total", 100),
        # The logarithm of float32 rounds otherwise; after more steps a sign turns with it.
        ("dgba", 20),
    ],
)
def test_is_that_of_torchattacks_from_the_same_start(combination, steps):
    model = ThreeHeads(torch.float32).eval()
    images, targets = batch(12, dtype=torch.float32)
    torch.manual_seed(5)
    noise = 2 * torch.rand(images.shape) - 1
    start = images + EPS * noise / noise.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
    torch.manual_seed(5)
    theirs = torchattacks.APGD(Logits(model), eps=EPS, steps=steps)
    loss, expected = theirs.perturb(images, targets["label"], best_loss=True)
    attack = APGD(model, LABEL, combination=combination, steps=steps)
    adversarial = attack(images, targets, start=start.clamp(0, 1))
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(losses(model, adversarial, targets, LABEL)["label"], loss)


def test_in_l2_it_is_that_of_torchattacks_away_from_the_edges_of_the_range():
    model = ThreeHeads(torch.float32).eval()
    images, targets = batch(12, dtype=torch.float32)
    images = 0.25 + images / 2
    torch.manual_seed(5)
    noise = torch.randn(images.shape)
    start = images + 0.2 * noise / noise.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    torch.manual_seed(5)
    theirs = torchattacks.APGD(Logits(model), norm="L2", eps=0.2, steps=20)
    _, expected = theirs.perturb(images, targets["label"], best_loss=True)
    attack = APGD(model, LABEL, norm="l2", eps=0.2, steps=20, combination="single")
    torch.testing.assert_close(attack(images, targets, start=start), expected, rtol=0, atol=1e-4)


def test_checkpoints_of_a_hundred_steps():
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(_checkpoints(1)) == [1]


def test_returns_the_best_of_all_points_it_was_at():
    model = ThreeHeads()
    images, targets = batch(8)
    seen = []

    def watched(x):
        outputs = model.eval()(x)
        label = outputs["label"].detach()
        seen.append(torch.nn.functional.cross_entropy(label, targets["label"], reduction="none"))
        return outputs

    adversarial = APGD(watched, LABEL, combination="total", steps=20)(images, targets)
    assert len(seen) == 21
    torch.testing.assert_close(losses(model, adversarial, targets, LABEL)["label"], torch.stack(seen).amax(0))


def test_restarts_never_lose_and_begin_with_the_single_run():
    model = ThreeHeads()
    images, targets = batch(12)

    def total(adversarial):
        return sum(losses(model, adversarial, targets).values())

    one = total(APGD(model, TASKS, combination="total", steps=8)(images, targets))
    again = total(APGDRestart(model, TASKS, combination="total", steps=8, restarts=1)(images, targets))
    more = total(APGDRestart(model, TASKS, combination="total", steps=8, restarts=4)(images, targets))
    torch.testing.assert_close(again, one)
    assert (more >= one).all()
    assert (more > one).any()


def test_beats_pgd_with_as_many_passes():
    model = ThreeHeads()
    images, targets = batch(40)
    apgd = APGD(model, TASKS, combination="total", eps=0.1, steps=50)(images, targets)
    pgd = PGD(model, TASKS, combination="total", eps=0.1, steps=50)(images, targets)
    gain = sum(losses(model, apgd, targets).values()) - sum(losses(model, pgd, targets).values())
    assert gain.mean() > 0


def test_without_return_to_the_best_point_it_is_another_attack():
    model = ThreeHeads()
    images, targets = batch(12)
    settings = {"combination": "total", "steps": 30, "eps": 0.1}
    back = APGD(model, TASKS, **settings)(images, targets)
    onward = APGD(model, TASKS, return_to_best=False, **settings)(images, targets)
    assert not torch.equal(back, onward)
