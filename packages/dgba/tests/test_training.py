from dataclasses import dataclass

import pytest
import torch

from dgba import training
from dgba._pgd import PGD
from dgba._tasks import losses_of
from dgba.datasets import scene_tasks, scenes
from dgba.models import multi_task
from dgba.training import train
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Run

TASKS = scene_tasks()
EPS = 8 / 255


@pytest.fixture(scope="module")
def rooms():
    return scenes(10, 16)


def attack_on(model):
    return PGD(model, TASKS, eps=EPS, steps=2)


def made(**options):
    return multi_task(TASKS, sharing="branched", **options)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_training_lowers_the_losses(rooms):
    history = train(made(), TASKS, rooms, epochs=10, batch_size=5, learning_rate=3e-3)
    assert set(history) == {f"train {task.name}" for task in TASKS}
    first, last = (sum(values[epoch] for values in history.values()) for epoch in (0, -1))
    assert last < 0.8 * first


def test_training_is_the_loop_that_the_paper_describes(rooms):
    ours, reference = made(), made()
    train(ours, TASKS, rooms, epochs=5, batch_size=5, adversarial=attack_on)

    optimizer = torch.optim.Adam(reference.parameters(), 1e-3, betas=(0.5, 0.999), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(rooms, 5, shuffle=True, generator=generator)
    for epoch in range(5):
        optimizer.param_groups[0]["lr"] = 1e-3 * 0.5**epoch
        for images, targets in loader:
            for adversarial in (False, True):
                x = images
                if adversarial:
                    attack = attack_on(reference)
                    attack.seed = int(torch.randint(2**62, (), generator=generator))
                    x = attack(images, targets)
                reference.train()
                losses = losses_of(TASKS, reference(x), targets)
                optimizer.zero_grad()
                sum(loss.mean() for loss in losses.values()).backward()
                optimizer.step()
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
    assert not ours.training


@pytest.mark.parametrize("variant", ["standard", "fast", "free"])
def test_an_interrupted_run_ends_as_an_undisturbed_one(rooms, tmp_path, variant):
    def trained(folder, epochs):
        model = made()
        run = Run(Settings(), "", 0, 1, tmp_path / folder, None)
        with_notify = Run(Settings(), "", 0, 1, tmp_path / folder, stop_after(epochs))
        try:
            train(
                model,
                TASKS,
                rooms,
                epochs=3,
                batch_size=5,
                adversarial=attack_on,
                variant=variant,
                run=with_notify,
            )
        except KeyboardInterrupt:
            train(
                model, TASKS, rooms, epochs=3, batch_size=5, adversarial=attack_on, variant=variant, run=run
            )
            return model, run.history
        return model, with_notify.history

    (whole, history), (resumed, resumed_history) = trained("whole", 9), trained("resumed", 2)
    assert same(whole, resumed)
    assert history == resumed_history
    assert len(history["train adversarial depth"]) == 3


@dataclass(frozen=True)
class Settings:
    pass


def stop_after(epochs):
    def notify(stage, done, total):
        if done == epochs:
            raise KeyboardInterrupt

    return notify


@pytest.mark.parametrize(("variant", "steps"), [("standard", 2), ("fast", 2), ("free", training.REPLAYS)])
def test_every_variant_steps_on_clean_images_first_and_then_within_the_ball(rooms, variant, steps):
    model = made()
    images, targets = rooms.images[:4], {name: target[:4] for name, target in rooms.targets.items()}
    inputs = training._inputs(model, TASKS, attack_on, variant, torch.Generator())
    seen = []
    for x in inputs(images, targets):
        seen.append(x.detach().clone())
        losses = losses_of(TASKS, model(x), targets)
        torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
    assert len(seen) == steps
    assert torch.equal(seen[0], images)
    for x in seen[1:]:
        assert x.min() >= 0
        assert x.max() <= 1
        assert (x - images).abs().mean() > 0.25 * EPS
        assert (x - images).abs().max() <= EPS + 1e-6


def test_free_training_moves_along_the_gradient_of_the_training_step():
    images = torch.full((1, 1, 1, 2), 0.5)
    steps = training._free(0.1, images, {})
    moves = []
    for _ in range(3):
        x = next(steps)
        moves.append((x - 0.5).detach().flatten().tolist())
        (x * torch.tensor([2.0, -3.0])).sum().backward()
    assert moves[0] == [0, 0]
    assert moves[1:] == [pytest.approx([0.1, -0.1])] * 2


@pytest.mark.parametrize("variant", ["standard", "fast"])
def test_random_starts_differ_from_epoch_to_epoch(rooms, variant):
    model = made()
    inputs = training._inputs(model, TASKS, attack_on, variant, torch.Generator())
    targets = {name: target[:2] for name, target in rooms.targets.items()}
    (_, first), (_, second) = (list(inputs(rooms.images[:2], targets)) for _ in range(2))
    assert not torch.equal(first, second)


def test_clean_training_depends_on_its_seed_alone(rooms):
    one, again, other = made(), made(), made()
    for model, seed in ((one, 1), (again, 1), (other, 2)):
        train(model, TASKS, rooms, epochs=1, batch_size=5, seed=seed)
    assert same(one, again)
    assert not same(one, other)


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_impossible_numbers_are_refused(rooms, bad):
    with pytest.raises(SettingError):
        train(made(), TASKS, rooms, **{"epochs": 1, **bad})


def test_unknown_variants_and_variants_in_other_norms_are_refused(rooms):
    with pytest.raises(UnknownNameError, match="fast"):
        train(made(), TASKS, rooms, epochs=1, adversarial=attack_on, variant="quick")
    with pytest.raises(SettingError, match="linf"):
        train(made(), TASKS, rooms, epochs=1, adversarial=lambda m: PGD(m, TASKS, norm="l2"), variant="free")
