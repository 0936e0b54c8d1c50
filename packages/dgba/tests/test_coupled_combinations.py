"""Max-min and bounded combinations: the worst task is raised, bounds are kept."""

import pytest
import torch
from small_models import TASKS, ThreeHeads, batch, losses, only

from dgba._apgd import APGD
from dgba._combinations import Bounded, MaxMin, as_combination, gradients_of
from dgba._dgba import DGBA
from dgba._fgsm import IFGSM
from dgba._programs import coupled_step
from dgba._tasks import losses_of
from tenfold import SettingError, UnknownNameError

EPS = 8 / 255


@pytest.fixture
def model() -> ThreeHeads:
    return ThreeHeads().eval()


def rises(model, x, images, targets):
    before, after = losses(model, images, targets), losses(model, x, targets)
    return {name: (after[name] / before[name]).log() for name in before}


def test_the_direction_reaches_the_best_least_gain_of_the_program(model):
    images, targets = batch(3)
    images = (255 * images).round() / 255
    x = images.clone().requires_grad_()
    values = losses_of(TASKS, model(x), targets)
    clean = {name: loss.detach() for name, loss in values.items()}
    room = lambda x: ((-x).clamp(min=-EPS), (1 - x).clamp(max=EPS))  # noqa: E731
    combination = MaxMin(tolerance=1e-4).start(clean, room=room)
    gradients = gradients_of(combination.gains(values), x).transpose(0, 1).flatten(2)
    direction = combination.gradient(values, x).flatten(1)
    gradients = gradients / 255
    lo, hi = ((255 * bound).round().flatten(1) for bound in room(images))
    step = torch.where(direction > 0, hi, lo)
    for sample in range(3):
        best = coupled_step(gradients[sample], lo[sample], hi[sample], objective="worst", relaxed=True).value
        least = float((gradients[sample] @ step[sample]).min())
        assert 0.9 * best <= least <= best * (1 + 1e-6)


def test_max_min_raises_the_worst_task_more_than_dgba_does(model):
    images, targets = batch(12)
    targets["depth"] = targets["depth"] + 20
    least = [
        torch.stack(list(rises(model, attack(images, targets), images, targets).values())).amin(0)
        for attack in (DGBA(model, TASKS), IFGSM(model, TASKS, combination="maxmin"))
    ]
    assert least[1].mean() > 1.2 * least[0].mean()
    assert (least[1] > 0).all()


def test_a_task_of_less_weight_rises_more(model):
    images, targets = batch(12)

    def least(weights):
        attack = IFGSM(model, TASKS, combination=MaxMin(weights))
        change = rises(model, attack(images, targets), images, targets)
        return change, torch.stack([weights.get(name, 1.0) * rise for name, rise in change.items()]).amin(0)

    weights = {"depth": 0.2}
    (plain, _), (weighted, best) = least({}), least(weights)
    assert weighted["depth"].mean() > 1.5 * plain["depth"].mean()
    others = torch.stack([weights.get(name, 1.0) * rise for name, rise in plain.items()]).amin(0)
    assert best.mean() > others.mean()


def test_max_min_leaves_out_a_task_that_has_no_target_in_a_sample(model):
    images, targets = batch(3)
    targets["segmentation"][1] = 255
    attack = IFGSM(model, TASKS, combination="maxmin", steps=4)
    adversarial = attack(images, targets)
    without = IFGSM(model, TASKS[1:], combination="maxmin", steps=4)(images[1:2], only(targets, [1]))
    least = [
        min(float(rises(model, x, images[1:2], only(targets, [1]))[name]) for name in ("depth", "label"))
        for x in (adversarial[1:2], without)
    ]
    assert least[0] == pytest.approx(least[1], rel=0.1)
    assert least[0] > 0
    targets = dict.fromkeys(("segmentation",), targets["segmentation"][1:2])
    alone = IFGSM(model, TASKS[:1], combination="maxmin", steps=4)(images[1:2], targets)
    assert torch.equal(alone, images[1:2])


def test_max_min_targeted_lowers_the_loss_that_is_furthest(model):
    images, _ = batch(8)
    _, goals = batch(8, seed=7)
    attack = IFGSM(model, TASKS, combination="maxmin")
    attack.set_mode_targeted_by_target()
    change = torch.stack(list(rises(model, attack(images, goals), images, goals).values()))
    assert change.amax(0).mean() < -0.02


@pytest.mark.parametrize("ceiling", [0.0, 0.01])
def test_a_ceiling_spares_a_task(model, ceiling):
    images, targets = batch(12)
    combination = Bounded(attacked=("depth",), ceilings={"segmentation": ceiling})
    adversarial = APGD(model, TASKS, combination=combination, steps=20)(images, targets)
    spared = rises(model, adversarial, images, targets)
    alone = rises(
        model, APGD(model, TASKS, combination="single:depth", steps=20)(images, targets), images, targets
    )
    most = torch.tensor(ceiling, dtype=torch.float64).log1p()
    assert (alone["segmentation"] > most + 1e-3).float().mean() > 0.3
    assert (spared["segmentation"] <= most + 1e-3).all()
    assert spared["depth"].mean() > 0.5 * alone["depth"].mean()


def test_spare_by_name_attacks_the_others(model):
    images, targets = batch(12)
    change = rises(model, APGD(model, TASKS, combination="spare:label")(images, targets), images, targets)
    assert (change["label"] <= 1e-3).all()
    assert change["depth"].mean() > 0.05
    assert change["segmentation"].mean() > 0.02


def test_a_floor_is_reached_where_the_others_would_leave_it(model):
    images, targets = batch(12)
    combination = Bounded(attacked=("label",), floors={"segmentation": 0.05})
    floored = rises(
        model, APGD(model, TASKS, combination=combination, steps=20)(images, targets), images, targets
    )
    alone = rises(
        model, APGD(model, TASKS, combination="single:label", steps=20)(images, targets), images, targets
    )
    least = torch.tensor(0.05).log1p() - 1e-3
    assert (alone["segmentation"] >= least).float().mean() < 0.6
    assert (floored["segmentation"] >= least).float().mean() > 0.9
    assert floored["label"].mean() > 0.5 * alone["label"].mean()


def test_bounds_do_not_hold_for_a_task_that_has_no_target_in_a_sample(model):
    images, targets = batch(3)
    targets["segmentation"][1] = 255
    bounded = Bounded(attacked=("depth",), floors={"segmentation": 1.0})
    adversarial = IFGSM(model, TASKS, combination=bounded, steps=4)(images, targets)
    alone = IFGSM(model, TASKS, combination="single:depth", steps=4)(images, targets)
    torch.testing.assert_close(adversarial[1], alone[1])
    assert not torch.equal(adversarial[0], alone[0])


@pytest.mark.parametrize(
    "combination", [MaxMin(), Bounded(ceilings={"segmentation": 0.0}), Bounded(floors={"depth": 0.1})]
)
def test_what_else_is_in_the_batch_changes_nothing(model, combination):
    images, targets = batch(5)
    attack = IFGSM(model, TASKS, combination=combination, steps=3)
    whole = attack(images, targets)
    for part in ([4, 1], [0], [2, 3]):
        torch.testing.assert_close(attack(images[part], only(targets, part)), whole[part], rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["l2", "l1", "l0"])
def test_other_norms_use_the_same_weights(model, norm):
    images, targets = batch(6)
    eps = {"l2": 0.4, "l1": 3.0, "l0": 12}[norm]
    adversarial = IFGSM(model, TASKS, combination="maxmin", norm=norm, eps=eps)(images, targets)
    change = torch.stack(list(rises(model, adversarial, images, targets).values()))
    assert change.amin(0).mean() > 0


def test_bounds_that_are_impossible(model):
    with pytest.raises(SettingError, match="neither floors nor ceilings"):
        Bounded()
    with pytest.raises(SettingError, match="rise of -2"):
        Bounded(ceilings={"depth": -2})
    with pytest.raises(SettingError, match="tolerance is 0"):
        MaxMin(tolerance=0)
    with pytest.raises(SettingError, match="floor is 0"):
        MaxMin(floor=0)
    with pytest.raises(SettingError, match="weight of 0 for task 'depth'"):
        MaxMin({"depth": 0})
    images, targets = batch(2)
    for misspelt in (as_combination("spare:depht"), MaxMin({"depht": 2.0})):
        with pytest.raises(UnknownNameError, match="depth"):
            IFGSM(model, TASKS, combination=misspelt)(images, targets)
