"""What combinations climb, and in which direction."""

import pytest
import torch
from small_models import TASKS, ThreeHeads, batch
from torch import Tensor

from dgba._combinations import (
    Combination,
    GradientBalance,
    SignSum,
    Single,
    Total,
    as_combination,
    combination_names,
    gradients_of,
    register_combination,
)
from dgba._tasks import losses_of
from tenfold import SettingError, UnknownNameError


def evaluate(seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    images, targets = batch(seed=seed)
    x = images.requires_grad_()
    return x, losses_of(TASKS, ThreeHeads().eval()(x), targets)


def passes(losses: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """One backward pass a task."""
    return {name: torch.autograd.grad(loss.sum(), x, retain_graph=True)[0] for name, loss in losses.items()}


@pytest.mark.parametrize("seed", range(5))
def test_one_pass_of_log_losses_is_the_sum_over_tasks_of_gradient_over_loss(seed):
    x, losses = evaluate(seed)
    expected = sum(
        gradient / (losses[name].detach() + 1e-6)[:, None, None, None]
        for name, gradient in passes(losses, x).items()
    )
    gradient = GradientBalance().gradient(losses, x)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_clean_weights_divide_by_the_clean_losses():
    x, losses = evaluate()
    clean = {name: torch.linspace(0.5, 2, 6, dtype=torch.float64) for name in losses}
    combination = GradientBalance("clean").start(clean)
    expected = sum(
        gradient / (clean[name] + 1e-6)[:, None, None, None] for name, gradient in passes(losses, x).items()
    )
    torch.testing.assert_close(combination.gradient(losses, x), expected)
    relative = sum(loss / (clean[name] + 1e-6) for name, loss in losses.items())
    torch.testing.assert_close(combination.objective(losses), relative)
    assert GradientBalance("clean").needs_clean
    assert not GradientBalance().needs_clean


def test_current_and_clean_weights_agree_at_the_clean_images():
    x, losses = evaluate()
    clean = {name: loss.detach() for name, loss in losses.items()}
    current = GradientBalance().gradient(losses, x)
    x, losses = evaluate()
    torch.testing.assert_close(GradientBalance("clean").start(clean).gradient(losses, x), current)


def test_single_total_and_signsum():
    x, losses = evaluate()
    gradients = passes(losses, x)
    signs = sum(gradient.sign() for gradient in gradients.values())
    torch.testing.assert_close(SignSum().gradient(losses, x), signs)
    x, losses = evaluate()
    torch.testing.assert_close(Total().gradient(losses, x), sum(gradients.values()))
    x, losses = evaluate()
    torch.testing.assert_close(Single("depth").gradient(losses, x), gradients["depth"])
    torch.testing.assert_close(Single("depth").objective(losses), losses["depth"])
    torch.testing.assert_close(SignSum().objective(losses), sum(losses.values()))


@pytest.mark.parametrize("name", ["total", "signsum", "dgba", "dgba:clean", "single:label"])
def test_targeted_goes_the_other_way(name):
    x, losses = evaluate()
    clean = {task: loss.detach() for task, loss in losses.items()}
    up = as_combination(name).start(clean).gradient(losses, x)
    x, losses = evaluate()
    down = as_combination(name).start(clean, targeted=True)
    torch.testing.assert_close(down.gradient(losses, x), -up)
    torch.testing.assert_close(down.objective(losses), -as_combination(name).start(clean).objective(losses))


@pytest.mark.parametrize("weights", ["current", "clean"])
def test_a_task_without_loss_contributes_nothing(weights):
    x, losses = evaluate()
    clean = {name: loss.detach() for name, loss in losses.items()} | {"empty": torch.zeros(6).double()}
    with_empty = losses | {"empty": x.flatten(1)[:, :0].sum(1)}
    gradient = GradientBalance(weights).start(clean).gradient(with_empty, x)
    assert gradient.isfinite().all()
    x, losses = evaluate()
    torch.testing.assert_close(GradientBalance(weights).start(clean).gradient(losses, x), gradient)


def test_a_zero_clean_loss_counts_as_the_floor():
    x = torch.ones(1, 1, 1, 1, requires_grad=True)
    losses = {"a": x.sum((1, 2, 3)) * 2}
    combination = GradientBalance("clean", floor=0.5).start({"a": torch.zeros(1)})
    assert combination.gradient(losses, x).item() == 4.0


def test_gradients_of_each_term():
    x, losses = evaluate()
    expected = torch.stack(list(passes(losses, x).values()))
    torch.testing.assert_close(gradients_of(Total().gains(losses), x), expected)


def test_users_register_their_own():
    @register_combination("largest")
    class Largest(Combination):
        def terms(self, losses):
            return {"largest": torch.stack(list(losses.values())).amax(0)}

    assert "largest" in combination_names()
    x, losses = evaluate()
    torch.testing.assert_close(
        as_combination("largest").objective(losses), torch.stack(list(losses.values())).amax(0)
    )
    assert as_combination("largest").gradient(losses, x).shape == x.shape


def test_names_and_settings_that_do_not_exist():
    with pytest.raises(UnknownNameError, match="dgba"):
        as_combination("dgb")
    with pytest.raises(SettingError, match="weights is 'dirty'"):
        as_combination("dgba:dirty")
    with pytest.raises(SettingError, match="floor"):
        GradientBalance(floor=0)
    x, losses = evaluate()
    with pytest.raises(UnknownNameError, match="depht"):
        Single("depht").gradient(losses, x)
    with pytest.raises(SettingError, match="among 3"):
        Single().gradient(losses, x)


def test_a_loss_without_gradient_is_named():
    x, losses = evaluate()
    losses["depth"] = losses["depth"].detach()
    with pytest.raises(SettingError, match="'depth' does not depend"):
        GradientBalance().gradient(losses, x)
    with pytest.raises(SettingError, match="does not depend"):
        Total().gradient({"label": torch.ones(6, requires_grad=True)}, x)
