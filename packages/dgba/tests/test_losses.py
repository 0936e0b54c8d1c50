"""Losses: torch's own on every sample by itself, masks, gradients, shapes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgba.losses import Loss, cosine, cross_entropy, l1
from tenfold import SettingError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cross_entropy_is_torchs_mean_over_each_samples_pixels() -> None:
    logits, labels = draw(3, 5, 4, 4), draw(3, 4, 4, seed=1).abs().long()
    labels[0, :2] = 255
    labels[1, 1, 1] = 255
    losses = cross_entropy(logits, labels, ignore_value=255)
    for i in range(3):
        expected = F.cross_entropy(logits[i : i + 1], labels[i : i + 1], ignore_index=255)
        torch.testing.assert_close(losses[i], expected)


def test_cross_entropy_of_images_is_torchs() -> None:
    logits, labels = draw(6, 5), torch.arange(6) % 5
    torch.testing.assert_close(
        cross_entropy(logits, labels), F.cross_entropy(logits, labels, reduction="none")
    )


def test_cosine_is_one_minus_cos_of_valid_pixels_at_any_length() -> None:
    target = torch.zeros(1, 3, 1, 3)
    target[0, 0, 0, 0] = 2.0
    target[0, 1, 0, 1] = 3.0  # the third pixel has no normal
    output = torch.tensor([[5.0, 0.0, 0.0], [math.cos(1.0), math.sin(1.0), 0.0], [1.0, 2.0, 3.0]])
    losses = cosine(output.T.reshape(1, 3, 1, 3), target, ignore_value=0.0)
    assert losses.item() == pytest.approx((0 + 1 - math.sin(1.0)) / 2, abs=1e-6)


def test_cosine_is_exact_and_not_below_0_for_tiny_angles() -> None:
    vectors = draw(50, 3, 8).float()
    assert (cosine(vectors, 3 * vectors) >= 0).all()
    target, output = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1e-4]], requires_grad=True)
    loss = cosine(output, target)
    assert loss.item() == pytest.approx(0.5e-8, rel=1e-3)
    loss.backward()
    assert output.grad is not None
    assert output.grad[0, 1].item() == pytest.approx(1e-4, rel=1e-3)


def test_vectors_of_length_0_have_a_finite_gradient() -> None:
    output = torch.zeros(1, 3, requires_grad=True)
    cosine(output, torch.ones(1, 3)).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_l1_leaves_out_what_is_ignored_nan_included() -> None:
    target = torch.tensor([[1.0, math.nan, 3.0], [0.0, 5.0, math.nan]])
    output = torch.tensor([[2.0, 9.0, 3.5], [0.0, 4.0, 7.0]], requires_grad=True)
    losses = l1(output, target, ignore_value=math.nan)
    torch.testing.assert_close(losses, torch.tensor([0.75, 0.5]))
    losses.sum().backward()
    assert output.grad is not None
    torch.testing.assert_close(output.grad, torch.tensor([[0.5, 0.0, 0.5], [0.0, -0.5, 0.0]]))


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (cross_entropy, torch.full((2, 3, 3), 4)),
        (cosine, torch.full((2, 6, 3, 3), 4.0)),
        (l1, torch.full((2, 6, 3, 3), 4.0)),
    ],
)
def test_an_empty_mask_gives_no_loss_and_no_gradient(loss: Loss, target: Tensor) -> None:
    output = draw(2, 6, 3, 3).float().requires_grad_()
    value = loss(output, target, ignore_value=4)  # type: ignore[call-arg]
    assert torch.equal(value, torch.zeros(2))
    value.sum().backward()
    assert output.grad is not None
    assert not output.grad.any()


def test_gradients_are_those_of_finite_differences() -> None:
    labels = torch.tensor([[0, 1], [3, 0]])
    torch.autograd.gradcheck(lambda y: cross_entropy(y, labels, 3), draw(2, 3, 2).requires_grad_())
    torch.autograd.gradcheck(lambda y: cosine(y, draw(2, 3, 2, seed=1)), draw(2, 3, 2).requires_grad_())
    torch.autograd.gradcheck(lambda y: l1(y, draw(2, 3, 2, seed=1)), draw(2, 3, 2).requires_grad_())


def test_bad_input_is_refused() -> None:
    with pytest.raises(SettingError, match=r"\(2, 1, 4\) and a target of shape \(2, 4\)"):
        l1(draw(2, 1, 4), draw(2, 4))
    with pytest.raises(SettingError, match="2 dimensions or more"):
        cosine(draw(2), draw(2))
    with pytest.raises(SettingError, match=r"logits of shape \(2, 3, 4\)"):
        cross_entropy(draw(2, 3, 4), torch.zeros(2, 1, 4).long())
    with pytest.raises(SettingError, match=r"classes of type torch\.float64"):
        cross_entropy(draw(2, 3), draw(2))
    with pytest.raises(SettingError, match="classes from 0 to 255, and 3 logits"):
        cross_entropy(draw(2, 3), torch.tensor([0, 255]))
