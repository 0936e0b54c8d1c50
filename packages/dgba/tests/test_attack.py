"""What all attacks share: batches, modes, normalisation, starts, saving, and errors."""

import copy

import pytest
import torch
from small_models import LABEL, TASKS, ThreeHeads, batch, losses, only
from torch import nn

from dgba._apgd import APGD, APGDRestart
from dgba._auto_saga import AutoSAGA
from dgba._dgba import DGBA
from dgba._fgsm import FGSM, IFGSM
from dgba._mim import MIM
from dgba._pgd import PGD
from tenfold import DivergedError, SettingError, UnknownNameError

EPS = 8 / 255
RADII = {"linf": EPS, "l2": 0.4, "l1": 3.0, "l0": 12}
ATTACKS = {
    "FGSM": lambda model, **keys: FGSM(model, TASKS, **keys),
    "IFGSM": lambda model, **keys: IFGSM(model, TASKS, steps=4, **keys),
    "PGD": lambda model, **keys: PGD(model, TASKS, steps=4, **keys),
    "MIM": lambda model, **keys: MIM(model, TASKS, steps=4, **keys),
    "APGD": lambda model, **keys: APGD(model, TASKS, steps=12, **keys),
    "APGDRestart": lambda model, **keys: APGDRestart(model, TASKS, steps=6, restarts=2, **keys),
    "AutoSAGA": lambda model, **keys: AutoSAGA(model, TASKS, steps=4, **keys),
    "DGBA": lambda model, **keys: DGBA(model, TASKS, steps=4, **keys),
    "DGBA clean": lambda model, **keys: DGBA(model, TASKS, steps=4, weights="clean", **keys),
}


@pytest.fixture
def model() -> ThreeHeads:
    return ThreeHeads()


def size(delta, norm):
    flat = delta.flatten(1)
    if norm == "l0":
        return (flat != 0).sum(1)
    return torch.linalg.vector_norm(flat, {"linf": float("inf"), "l2": 2, "l1": 1}[norm], dim=1)


@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("name", ATTACKS)
def test_stays_in_the_ball_and_in_the_range_and_damages(model, name, norm):
    images, targets = batch()
    attack = ATTACKS[name](model, norm=norm, eps=RADII[norm])
    adversarial = attack(images, targets)
    assert adversarial.shape == images.shape
    assert adversarial.dtype == images.dtype
    assert not adversarial.requires_grad
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (size(adversarial - images, norm) <= RADII[norm] * (1 + 1e-9)).all()
    before, after = losses(model, images, targets), losses(model, adversarial, targets)
    assert sum((after[name] / before[name]).log() for name in after).mean() > 0.05


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_else_is_in_the_batch_changes_nothing(model, name, norm):
    images, targets = batch()
    attack = ATTACKS[name](model, norm=norm, eps=RADII[norm], random_start=name != "FGSM")
    whole = attack(images, targets)
    order = [3, 0, 5, 1, 4, 2]
    torch.testing.assert_close(attack(images[order], only(targets, order)), whole[order], rtol=0, atol=1e-9)
    for part in ([0, 1], [2], [3, 4, 5]):
        torch.testing.assert_close(attack(images[part], only(targets, part)), whole[part], rtol=0, atol=1e-9)


def test_a_sample_without_valid_target_leaves_its_neighbours_alone(model):
    images, targets = batch()
    targets["segmentation"][2] = 255
    whole = DGBA(model, TASKS)(images, targets)
    assert whole.isfinite().all()
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(
        DGBA(model, TASKS)(images[others], only(targets, others)), whole[others], rtol=0, atol=1e-9
    )
    without = DGBA(model, TASKS[1:])(images[2:3], only(targets, [2]))
    torch.testing.assert_close(without, whole[2:3], rtol=0, atol=1e-9)


def test_every_submodule_keeps_its_own_mode_also_after_an_error(model):
    model.train()
    model.features[1].eval()
    modes = [module.training for module in model.modules()]
    statistics = copy.deepcopy(model.features[1].state_dict())
    images, targets = batch()
    DGBA(model, TASKS)(images, targets)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(SettingError):
        DGBA(model, TASKS)(images, {})
    assert [module.training for module in model.modules()] == modes
    for key, value in model.features[1].state_dict().items():
        torch.testing.assert_close(value, statistics[key])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_works_without_gradients_and_in_inference_mode_around_it(model):
    images, targets = batch()
    expected = DGBA(model, TASKS)(images, targets)
    with torch.no_grad():
        torch.testing.assert_close(DGBA(model, TASKS)(images, targets), expected)
    with torch.inference_mode():
        inside = {name: target.clone() for name, target in targets.items()}
        torch.testing.assert_close(DGBA(model, TASKS)(images.clone(), inside), expected)


def test_images_and_targets_are_left_as_they_were(model):
    images, targets = batch()
    before = images.clone(), {name: target.clone() for name, target in targets.items()}
    APGD(model, TASKS)(images, targets)
    assert torch.equal(images, before[0])
    assert not images.requires_grad
    assert all(torch.equal(targets[name], before[1][name]) for name in targets)


def test_a_normalised_model_gets_the_same_attack(model):
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    m, s = (torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1) for values in (mean, std))

    class Normalised(nn.Module):
        def forward(self, x):
            return model(x * s + m)

    images, targets = batch()
    expected = PGD(model, TASKS, random_start=False)(images, targets)
    attack = PGD(Normalised().double(), TASKS, random_start=False)
    attack.set_normalization_used(mean, std)
    model.eval()
    adversarial = attack((images - m) / s, targets)
    torch.testing.assert_close(adversarial * s + m, expected, rtol=0, atol=1e-9)
    with pytest.raises(SettingError, match=r"within \[0, 1\]"):
        attack(images * 3, targets)


def test_random_starts_depend_on_seed_and_content(model):
    images, targets = batch()
    images[4] = images[1]
    one = PGD(model, TASKS, steps=1, alpha=0.0, keep_best=False)
    start = one(images, targets)
    assert torch.equal(start[1], start[4])
    assert not torch.equal(start[1] - images[1], start[0] - images[0])
    assert torch.equal(start, one(images, targets))
    other = PGD(model, TASKS, steps=1, alpha=0.0, keep_best=False, seed=1)(images, targets)
    assert not torch.equal(start, other)


def test_a_given_start_is_where_it_starts(model):
    images, targets = batch()
    start = (images + 0.01).clamp(0, 1)
    attack = PGD(model, TASKS, steps=1, alpha=0.0, keep_best=False)
    torch.testing.assert_close(attack(images, targets, start=start), start)
    far = attack(images, targets, start=torch.ones_like(images))
    torch.testing.assert_close(far, (images + EPS).clamp(0, 1))
    with pytest.raises(SettingError, match="one start an image"):
        attack(images, targets, start=start[:1])


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - {"FGSM"}))
def test_targeted_lowers_the_losses_to_the_goals(model, name):
    images, targets = batch()
    _, goals = batch(seed=7)
    attack = ATTACKS[name](model)
    attack.set_mode_targeted_by_target()
    adversarial = attack(images, goals)
    before, after = losses(model, images, goals), losses(model, adversarial, goals)
    assert sum((after[name] / before[name]).log() for name in after).mean() < -0.05
    by_function = ATTACKS[name](model)
    by_function.set_mode_targeted_by_function(lambda x, given: goals if given is not goals else {})
    torch.testing.assert_close(by_function(images, targets), adversarial)
    by_function.set_mode_default()
    torch.testing.assert_close(by_function(images, targets), ATTACKS[name](model)(images, targets))


def test_eps_zero_returns_the_images(model):
    images, targets = batch()
    for make in ATTACKS.values():
        assert torch.equal(make(model, eps=0.0)(images, targets), images)


def test_no_images_give_none(model):
    images, targets = batch()
    assert DGBA(model, TASKS)(images[:0], only(targets, [])).shape == (0, 3, 8, 8)


def test_a_single_task_takes_its_target_alone(model):
    images, targets = batch()
    torch.testing.assert_close(
        DGBA(model, LABEL)(images, targets["label"]), DGBA(model, LABEL)(images, targets)
    )


def test_outputs_in_the_order_of_the_tasks_and_functions_as_models(model):
    images, targets = batch()
    model.eval()
    attack = DGBA(lambda x: tuple(model(x)[task.name] for task in TASKS), TASKS)
    expected = DGBA(model, TASKS)(images, targets)
    torch.testing.assert_close(attack(images, targets), expected)
    torch.testing.assert_close(attack(images, [targets[task.name] for task in TASKS]), expected)


def test_save_writes_what_calls_return(model, tmp_path):
    batches = [batch(4, seed=2), batch(3, seed=3)]
    attack = DGBA(model, TASKS)
    attack.save(batches, tmp_path / "adversarial.pt")
    saved = torch.load(tmp_path / "adversarial.pt")
    torch.testing.assert_close(saved["images"], torch.cat([attack(*one) for one in batches]))
    assert torch.equal(saved["targets"]["label"], torch.cat([targets["label"] for _, targets in batches]))
    assert [path.name for path in tmp_path.iterdir()] == ["adversarial.pt"]


def test_save_undoes_normalisation(model, tmp_path):
    images, targets = batch()
    attack = DGBA(model, TASKS)
    attack.set_normalization_used([0.5] * 3, [0.5] * 3)
    attack.save([((images - 0.5) / 0.5, targets)], tmp_path / "adversarial.pt")
    saved = torch.load(tmp_path / "adversarial.pt")["images"]
    assert (saved - images).abs().max() <= EPS * (1 + 1e-9)
    assert saved.min() >= 0
    assert saved.max() <= 1


def test_save_leaves_nothing_behind_when_it_fails(model, tmp_path):
    with pytest.raises(SettingError, match="without batches"):
        DGBA(model, TASKS).save([], tmp_path / "adversarial.pt")
    images, targets = batch()
    with pytest.raises(SettingError):
        DGBA(model, TASKS).save([(images, targets), (images * 2, targets)], tmp_path / "adversarial.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 8, 8).double() * 255, "Divide grey levels by 255"),
        (torch.full((2, 3, 8, 8), float("nan")).double(), "finite"),
        (torch.rand(3, 8, 8).double(), r"\(n, c, h, w\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "floating point"),
    ],
)
def test_images_that_are_none(model, images, message):
    with pytest.raises(SettingError, match=message):
        DGBA(model, TASKS)(images, only(batch()[1], [0, 1]))


def test_settings_that_are_impossible(model):
    with pytest.raises(SettingError, match="eps is -1"):
        DGBA(model, TASKS, eps=-1)
    with pytest.raises(SettingError, match="8 / 255"):
        DGBA(model, TASKS, eps=8)
    with pytest.raises(SettingError, match="steps is 0"):
        PGD(model, TASKS, steps=0)
    with pytest.raises(SettingError, match="alpha is -1"):
        PGD(model, TASKS, alpha=-1)
    with pytest.raises(SettingError, match="another name"):
        PGD(model, [*TASKS, *LABEL])
    with pytest.raises(SettingError, match="at least one task"):
        PGD(model, [])
    with pytest.raises(UnknownNameError, match="linf"):
        PGD(model, TASKS, norm="Linf")
    with pytest.raises(SettingError, match="restarts is 0"):
        APGDRestart(model, TASKS, restarts=0)
    with pytest.raises(SettingError, match="rho 2"):
        APGD(model, TASKS, rho=2)
    with pytest.raises(SettingError, match="decay is -1"):
        MIM(model, TASKS, decay=-1)
    with pytest.raises(SettingError, match="fitting 0"):
        AutoSAGA(model, TASKS, fitting=0)
    with pytest.raises(SettingError, match="std positive"):
        DGBA(model, TASKS).set_normalization_used([0.5], [0.0])


def test_models_that_cannot_be_attacked(model):
    images, targets = batch()

    def rounding(x):
        return {name: output.argmax(1, keepdim=True).double() for name, output in model(x).items()}

    with pytest.raises(SettingError, match="'depth' does not depend on the images"):
        DGBA(rounding, TASKS[1:2])(images, targets)
    with pytest.raises(SettingError, match="does not depend on the images"):
        DGBA(lambda x: model(x.detach()), TASKS)(images, targets)
    kinked = images.clone()
    kinked[2] = 0
    with pytest.raises(DivergedError, match=r"gradient .* for sample 2"):
        DGBA(lambda x: {"depth": x.sum(1, keepdim=True).sqrt()}, TASKS[1:2])(kinked, targets)
    with pytest.raises(SettingError, match="'label'"):
        DGBA(lambda x: {"depth": model(x)["depth"]}, TASKS)(images, targets)


def test_settings_are_shown(model):
    assert repr(PGD(model, TASKS, combination="single:depth", eps=0.5)).startswith(
        "PGD(combination=Single(task='depth'), norm='linf', eps=0.5"
    )
