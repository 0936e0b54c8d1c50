"""Auto-SAGA against its definition, written out."""

import torch
from small_models import LABEL, TASKS, ThreeHeads, batch

from dgba._auto_saga import AutoSAGA
from dgba._fgsm import IFGSM
from dgba._tasks import losses_of

EPS = 8 / 255


def by_definition(model, images, targets, steps, rate, fitting):
    alpha = EPS / steps

    def gradients(x):
        x = x.detach().requires_grad_()
        values = losses_of(TASKS, model(x), targets)
        return [torch.autograd.grad(loss.sum(), x, retain_graph=True)[0] for loss in values.values()]

    def move(x, direction):
        return torch.clamp(x + alpha * direction.sign(), images - EPS, images + EPS).clamp(0, 1)

    x, weights = images, [torch.ones_like(images) for _ in TASKS]
    for _ in range(steps):
        g = gradients(x)
        combined = sum(w * one for w, one in zip(weights, g, strict=True))
        ahead = sum(gradients(move(x, combined)))
        sech = 1 / torch.cosh(fitting * combined)
        slope = rate * ahead * fitting * alpha * sech**2
        weights = [w + slope * one for w, one in zip(weights, g, strict=True)]
        x = move(x, sum(w * one for w, one in zip(weights, g, strict=True)))
    return x


def test_is_its_definition_with_every_task_once():
    model = ThreeHeads().eval()
    images, targets = batch()
    attack = AutoSAGA(model, TASKS, steps=6, rate=1000.0, fitting=5.0, keep_best=False)
    adversarial = attack(images, targets)
    expected = by_definition(model, images, targets, 6, 1000.0, 5.0)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-9)
    plain = IFGSM(model, TASKS, combination="total", steps=6, keep_best=False)(images, targets)
    assert not torch.equal(adversarial, plain)


def test_without_learning_it_is_ifgsm_along_the_sum():
    model = ThreeHeads()
    images, targets = batch()
    for combination in ("total", "dgba"):
        torch.testing.assert_close(
            AutoSAGA(model, TASKS, combination=combination, rate=0.0)(images, targets),
            IFGSM(model, TASKS, combination=combination)(images, targets),
        )


def test_steep_losses_do_not_overflow():
    model = ThreeHeads(torch.float32)
    images, targets = batch(dtype=torch.float32)
    steep = AutoSAGA(lambda x: {"label": 1e4 * model.eval()(x)["label"]}, LABEL)
    assert steep(images, targets).isfinite().all()
