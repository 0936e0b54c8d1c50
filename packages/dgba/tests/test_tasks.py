"""Tasks: losses per sample, names and orders, empty masks, bad input."""

import math

import pytest
import torch
from torch import Tensor

from dgba import Task, classification, depth, edges, keypoints, losses_of, normals, segmentation
from dgba._tasks import by_task
from dgba.metrics import Accuracy
from tenfold import DivergedError, SettingError, UnknownNameError

TASKS = [segmentation("seg", 4), normals(), depth(), edges(), keypoints()]


def batch(n: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def draw(channels: int) -> Tensor:
        return torch.randn(n, channels, 4, 4, generator=generator)

    outputs = {"seg": draw(4), "normals": draw(3), "depth": draw(1), "edges": draw(1), "keypoints": draw(1)}
    targets = {name: torch.randn_like(output).abs() for name, output in outputs.items()}
    targets["seg"] = draw(4).argmax(1)
    return outputs, targets


def test_every_ready_made_task_has_finite_losses_and_metrics() -> None:
    outputs, targets = batch(3)
    losses = losses_of(TASKS, outputs, targets)
    assert list(losses) == ["seg", "normals", "depth", "edges", "keypoints"]
    assert all(loss.shape == (3,) and (loss > 0).all() for loss in losses.values())
    for task in TASKS:
        for metric in task.measures().values():
            assert math.isfinite(metric(outputs[task.name], targets[task.name]))


def test_names_order_and_a_single_tensor_mean_the_same() -> None:
    outputs, targets = batch(2)
    named = losses_of(TASKS, {"other": outputs["seg"], **outputs}, targets)
    listed = losses_of(TASKS, tuple(outputs.values()), list(targets.values()))
    alone = losses_of([classification("class", 4)], outputs["seg"][:, :, 0, 0], targets["seg"][:, 0, 0])
    assert all(torch.equal(named[name], listed[name]) for name in named)
    assert alone["class"].shape == (2,)


def test_losses_do_not_depend_on_the_batch() -> None:
    outputs, targets = batch(5)
    targets["depth"][3] = 0
    together = losses_of(TASKS, outputs, targets)
    for i in range(5):
        one = slice(i, i + 1)
        alone = losses_of(
            TASKS, {k: v[one] for k, v in outputs.items()}, {k: v[one] for k, v in targets.items()}
        )
        for name in together:
            torch.testing.assert_close(alone[name], together[name][one])


@pytest.mark.parametrize("empty", [[1], [0, 1, 2]])
def test_a_sample_without_a_target_has_loss_and_gradient_zero_even_if_the_loss_is_nan(
    empty: list[int],
) -> None:
    """Even if the task's loss would be NaN there, with NaN for a gradient."""

    def mean_of_valid(output: Tensor, target: Tensor) -> Tensor:
        return torch.stack([(o - t)[t != 0].square().mean() for o, t in zip(output, target, strict=True)])

    target = torch.ones(3, 4)
    target[empty] = 0
    output = torch.full((3, 4), 3.0, requires_grad=True)
    loss = losses_of([Task("mine", mean_of_valid, ignore_value=0)], output, target)["mine"]
    assert loss.tolist() == [0.0 if i in empty else 4.0 for i in range(3)]
    loss.sum().backward()
    assert output.grad is not None
    assert output.grad.tolist() == [[0.0] * 4 if i in empty else [1.0] * 4 for i in range(3)]


def test_metrics_know_which_way_is_better() -> None:
    def score(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).flatten(1).mean(1)

    task = Task("mine", score, {"a": score, "b": score, "accuracy": Accuracy()}, {"b": True})
    assert {name: metric.higher_is_better for name, metric in task.measures().items()} == {
        "a": False,
        "b": True,
        "accuracy": True,
    }
    assert Task("mine", score, {"a": score}, True).measures()["a"].higher_is_better
    with pytest.raises(UnknownNameError, match="metric of task 'mine'"):
        Task("mine", score, {"a": score}, {"c": True})


def test_bad_input_is_refused() -> None:
    outputs, targets = batch(2)
    del outputs["depth"]
    with pytest.raises(SettingError, match=r"outputs of 'seg', 'normals', 'edges'.*'depth'"):
        losses_of(TASKS, outputs, targets)
    with pytest.raises(SettingError, match="4 outputs without names"):
        losses_of(TASKS, list(outputs.values()), targets)
    with pytest.raises(SettingError, match="targets of task 'edges' of type list"):
        by_task([edges()], {"edges": [1.0]}, "targets")  # type: ignore[dict-item]
    with pytest.raises(SettingError, match="2 outputs and 1 targets of task 'seg'"):
        losses_of(TASKS[:1], outputs, {"seg": targets["seg"][:1]})
    with pytest.raises(SettingError, match=r"the loss of task 'mine' has shape \(\) for 2 samples"):
        losses_of([Task("mine", lambda output, target: output.mean())], torch.ones(2), torch.ones(2))
    with pytest.raises(DivergedError, match="the loss of task 'edges' is nan for sample 1"):
        losses_of([edges()], torch.ones(2, 1), torch.tensor([[1.0], [math.nan]]))
    with pytest.raises(SettingError, match="without a name"):
        Task("", lambda output, target: output)
    with pytest.raises(SettingError, match="1 classes"):
        segmentation("seg", 1)
