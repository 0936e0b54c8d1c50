import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dgba import (
    Comparison,
    Task,
    compare,
    damage,
    damage_interval,
    damage_per_rise,
    eps_curve,
    evaluate,
    log_ratio,
    relative_loss_change,
    segmentation,
    transfer_matrix,
    worst_case,
)
from dgba.evaluation import LOSS_FLOOR
from tenfold import DataError, SettingError


def squared(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().flatten(1).sum(1)


def mean_output(output: Tensor, target: Tensor) -> Tensor:
    return output.flatten(1).mean(1)


class Halves(nn.Module):
    """Task ``left`` reads the left half of an image, ``right`` the right one; `leak` mixes them."""

    def __init__(self, leak: float = 0.0) -> None:
        super().__init__()
        self.leak = leak
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        left, right = images.chunk(2, dim=-1)
        return {"left": left + self.leak * right, "right": right + self.leak * left}


def tasks(**metrics: object) -> tuple[Task, Task]:
    return (
        Task("left", squared, metrics={"mean": mean_output}, higher_is_better=True),
        Task("right", squared, metrics={"mean": mean_output}),
    )


def batches(count: int = 6, size: int = 6) -> list[tuple[Tensor, dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, 4, 4, generator=generator) * 0.5 + 0.25
    targets = {name: torch.rand(count, 1, 4, 2, generator=generator) for name in ("left", "right")}
    return [
        (images[start : start + size], {name: item[start : start + size] for name, item in targets.items()})
        for start in range(0, count, size)
    ]


def doubled(images: Tensor, targets: object) -> Tensor:
    return 2 * images


def test_damage_is_the_relative_change_of_the_metrics_with_the_sign_of_harm() -> None:
    clean, attacked = evaluate(Halves(), tasks(), batches()), evaluate(Halves(), tasks(), batches(), doubled)
    found = damage(clean, attacked)
    assert found.tasks["left"] == pytest.approx(100)
    assert found.tasks["right"] == pytest.approx(-100)
    assert found.average == pytest.approx(0, abs=1e-9)
    assert found.mildest == found.tasks["left"]


def test_metrics_are_of_the_data_set_and_not_a_mean_over_images() -> None:
    one = segmentation("left", 2)
    output = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 1]]).reshape(2, 1, 2, 2)
    model = nn.Identity()
    target = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1]]).reshape(2, 2, 2)
    logits = torch.cat([0.5 - output, output - 0.5], 1)
    found = evaluate(_Named(model), [one], [(logits, {"left": target})]).metrics()["left"]
    miou = next(value for name, value in found.items() if "iou" in name.lower())
    assert miou in (pytest.approx((6 / 7 + 1 / 2) / 2), pytest.approx(100 * (6 / 7 + 1 / 2) / 2))


class _Named(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"left": self.inner(images)}


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 6))
def test_batches_make_no_difference(size: int) -> None:
    whole = evaluate(Halves(0.3), tasks(), batches(), doubled)
    parts = evaluate(Halves(0.3), tasks(), batches(size=size), doubled)
    assert parts.metrics()["left"]["mean"] == pytest.approx(whole.metrics()["left"]["mean"])
    torch.testing.assert_close(parts.losses, whole.losses)


def test_losses_change_by_their_closed_forms() -> None:
    zero = [
        (images, {name: torch.zeros_like(item) for name, item in targets.items()})
        for images, targets in batches()
    ]
    clean, attacked = evaluate(Halves(), tasks(), zero), evaluate(Halves(), tasks(), zero, doubled)
    assert relative_loss_change(clean, attacked)["left"] == pytest.approx(300, rel=1e-5)
    assert log_ratio(clean, attacked) == pytest.approx(math.log(4), rel=1e-4)


def test_damage_per_rise_is_relative_to_the_mean_of_the_tasks() -> None:
    both = (Task("left", squared, metrics={"mean": mean_output}), Task("right", squared))
    zero = [
        (images, {name: torch.zeros_like(item) for name, item in targets.items()})
        for images, targets in batches()
    ]
    clean, attacked = evaluate(Halves(), both, zero), evaluate(Halves(), both, zero, doubled)
    # Both losses rise fourfold: the mean output doubles, the squares are 300 % worse.
    assert damage_per_rise(clean, attacked) == pytest.approx({"left": 0.5, "right": 1.5}, rel=1e-3)
    with pytest.raises(DataError, match="of the loss of 'left'"):
        damage_per_rise(attacked, clean)


def test_a_zero_loss_has_a_finite_log_ratio() -> None:
    images, _ = batches()[0]
    exact = [(images, Halves()(images))]
    clean, attacked = evaluate(Halves(), tasks(), exact), evaluate(Halves(), tasks(), exact, doubled)
    expected = torch.stack([(item / LOSS_FLOOR + 1).log() for item in attacked.losses.values()]).mean()
    assert log_ratio(clean, attacked) == pytest.approx(float(expected))


def test_a_metric_that_is_zero_when_clean_is_left_out() -> None:
    both = {"zero": lambda output, target: 0 * mean_output(output, target), "mean": mean_output}
    mixed = [Task("left", squared, metrics=both, higher_is_better=True)]
    clean, attacked = evaluate(Halves(), mixed, batches()), evaluate(Halves(), mixed, batches(), doubled)
    assert damage(clean, attacked).tasks == {"left": pytest.approx(100)}
    alone = [Task("left", squared, metrics={"zero": both["zero"]})]
    with pytest.raises(DataError, match="zero 0"):
        damage(evaluate(Halves(), alone, batches()), evaluate(Halves(), alone, batches()))


def test_a_task_without_metrics_is_measured_by_its_loss() -> None:
    bare = [Task("left", squared)]
    clean, attacked = evaluate(Halves(), bare, batches()), evaluate(Halves(), bare, batches(), doubled)
    change = relative_loss_change(clean, attacked)["left"]
    assert damage(clean, attacked).tasks["left"] == pytest.approx(-change, rel=1e-4)


def test_an_attack_on_a_half_leaves_the_other_half_alone() -> None:
    def push(name: str):  # type: ignore[no-untyped-def]
        def attack(images: Tensor, targets: object) -> Tensor:
            changed = images.clone()
            half = changed[..., :2] if name == "left" else changed[..., 2:]
            half *= 0.5 if name == "left" else 2.0
            return changed

        return attack

    apart = transfer_matrix(Halves(), tasks(), batches(), push)
    np.testing.assert_allclose(apart.damages, [[-50, 0], [0, -100]], atol=1e-4)
    assert apart.diagonal == pytest.approx(-75)
    assert apart.off_diagonal == pytest.approx(0, abs=1e-4)
    assert transfer_matrix(Halves(0.5), tasks(), batches(), push).damages[1, 0] > 1


def test_a_curve_over_eps_starts_at_no_damage() -> None:
    curve = eps_curve(
        Halves(),
        tasks()[1:],
        batches(),
        lambda eps: lambda images, targets: images * (1 + eps),
        [0.0, 0.1, 0.3],
    )
    assert [item.average for item in curve.values()] == pytest.approx([0, -10, -30], abs=1e-4)


def test_one_pass_compares_image_by_image_even_when_shuffled() -> None:
    def shuffled():  # type: ignore[no-untyped-def]
        order = list(batches(size=1))
        torch.random.manual_seed(0)
        yield from (order[int(place)] for place in torch.randperm(len(order)))

    found = compare(Halves(), tasks(), shuffled(), {"clean": None, "doubled": doubled})
    torch.testing.assert_close(
        found["doubled"].statistics["left"]["mean"][:, 0], 2 * found["clean"].statistics["left"]["mean"][:, 0]
    )


def test_the_worst_case_is_chosen_image_by_image() -> None:
    found = compare(
        Halves(), tasks(), batches(), {"low": lambda x, y: 0.5 * x, "high": doubled, "clean": None}
    )
    worst = worst_case(list(found.values()))
    scores = torch.stack([item.score() for item in found.values()])
    torch.testing.assert_close(worst.score(), scores.max(0).values)
    left = worst_case(list(found.values()), "left")
    assert torch.equal(
        left.losses["left"], torch.stack([item.losses["left"] for item in found.values()]).max(0).values
    )
    assert (
        left.losses["right"] <= torch.stack([item.losses["right"] for item in found.values()]).max(0).values
    ).all()


def test_an_interval_holds_the_damage_and_vanishes_for_equal_images() -> None:
    def noisy(images: Tensor, targets: object) -> Tensor:
        return images * (1 + images[:, :, :1, :1])

    clean, attacked = (
        evaluate(Halves(), tasks(), batches(30)),
        evaluate(Halves(), tasks(), batches(30), noisy),
    )
    found = damage(clean, attacked)
    intervals = damage_interval(clean, attacked, resamples=200)
    for name, value in {**found.tasks, "average": found.average}.items():
        low, high = intervals[name]
        assert low <= value <= high
    low, high = intervals["left"]
    assert high - low > 1
    assert intervals == damage_interval(clean, attacked, resamples=200)
    low, high = damage_interval(clean, evaluate(Halves(), tasks(), batches(30), doubled), resamples=50)[
        "left"
    ]
    assert (low, high) == (pytest.approx(100), pytest.approx(100))


def test_an_interrupted_comparison_goes_on() -> None:
    attacks = {"clean": None, "doubled": doubled}
    whole = compare(Halves(), tasks(), batches(size=2), attacks)
    first, second = Comparison(Halves(), tasks(), attacks), Comparison(Halves(), tasks(), attacks)
    first.add(*batches(size=2)[0])
    second.load_state_dict(first.state_dict())
    for batch in batches(size=2)[1:]:
        second.add(*batch)
    torch.testing.assert_close(second.evaluations()["doubled"].losses, whole["doubled"].losses)


def test_the_model_is_measured_in_evaluation_mode_and_put_back() -> None:
    model = Halves().train()
    model.norm.eval()
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    evaluate(model, tasks(), batches())
    assert seen == [False]
    assert model.training
    assert not model.norm.training


def test_an_empty_loader_is_refused() -> None:
    with pytest.raises(DataError, match="without images"):
        evaluate(Halves(), tasks(), [])


def test_evaluations_of_other_data_are_refused() -> None:
    with pytest.raises(SettingError, match="6 images for left, right and of 4"):
        damage(evaluate(Halves(), tasks(), batches()), evaluate(Halves(), tasks(), batches(4)))
