"""The momentum iterative method against torchattacks."""

import pytest
import torch
import torchattacks
from small_models import LABEL, Logits, ThreeHeads, batch

from dgba._fgsm import IFGSM
from dgba._mim import MIM

EPS = 8 / 255


@pytest.mark.parametrize("combination", ["single", "total", "dgba", "dgba:clean"])
@pytest.mark.parametrize("targeted", [False, True])
def test_is_that_of_torchattacks(combination, targeted):
    model = ThreeHeads(torch.float32).eval()
    images, targets = batch(dtype=torch.float32)
    ours = MIM(model, LABEL, combination=combination, alpha=2 / 255, decay=0.9, keep_best=False)
    theirs = torchattacks.MIFGSM(Logits(model), eps=EPS, alpha=2 / 255, steps=10, decay=0.9)
    if targeted:
        ours.set_mode_targeted_by_target()
        theirs.set_mode_targeted_by_label(quiet=True)
    expected = theirs(images, targets["label"])
    torch.testing.assert_close(ours(images, targets), expected, rtol=0, atol=1e-6)


def test_without_momentum_it_is_ifgsm():
    model = ThreeHeads()
    images, targets = batch()
    torch.testing.assert_close(
        MIM(model, LABEL, decay=0.0)(images, targets), IFGSM(model, LABEL)(images, targets)
    )


def test_a_zero_gradient_stays_where_it_is():
    images, targets = batch()
    attack = MIM(lambda x: {"label": 0 * x.mean((2, 3)) @ torch.ones(3, 4).double()}, LABEL)
    assert torch.equal(attack(images, targets), images)
