"""The paper's loss, what it learns, and the head."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mot_cup.direct import (
    LogVarianceHead,
    direct_modelling_loss,
    gaussian_nll_loss,
    predicted_covariance,
)
from mot_cup.scores import gaussian_nll
from tenfold import DataError, SettingError


def test_the_losses_are_their_formulas() -> None:
    prediction = torch.tensor([[0.5, -2.0]])
    log_variance = torch.tensor([[0.2, -0.4]])
    truth = torch.zeros(1, 2)
    paper = [0.125 * np.exp(-0.2) + 0.1, 1.5 * np.exp(0.4) - 0.2]
    assert direct_modelling_loss(prediction, log_variance, truth).item() == pytest.approx(np.mean(paper))
    normal = gaussian_nll(prediction.numpy(), np.exp(log_variance.numpy() / 2)) - np.log(2 * np.pi) / 2
    assert gaussian_nll_loss(prediction, log_variance, truth).item() == pytest.approx(normal.mean())
    weights = torch.tensor([[1.0, 0.0]])
    assert direct_modelling_loss(prediction, log_variance, truth, weights).item() == pytest.approx(paper[0])
    assert direct_modelling_loss(prediction, log_variance, truth, torch.zeros(1)).item() == 0


def best(loss: object, errors: torch.Tensor) -> float:
    """Return the log-variance, the same for all errors, of the smallest loss."""
    value = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([value], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        found = loss(errors, value.expand_as(errors), torch.zeros_like(errors))  # type: ignore[operator]
        found.backward()
        return found

    optimizer.step(closure)
    return value.item()


@pytest.mark.parametrize("unit", [0.1, 1.0, 4.0, 16.0])
def test_the_paper_loss_learns_less_than_the_variance_beyond_its_bend(unit: float) -> None:
    errors = unit * torch.randn(50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    variance = (errors**2).mean().log().item()
    assert best(gaussian_nll_loss, errors) == pytest.approx(variance, abs=1e-4)
    paper = best(direct_modelling_loss, errors)
    bent = 2 * nn.functional.smooth_l1_loss(errors, torch.zeros_like(errors))
    assert paper == pytest.approx(bent.log().item(), abs=1e-4)
    assert paper == pytest.approx(variance, abs=1e-3) if unit < 0.2 else paper < variance - 0.1


@pytest.mark.parametrize("loss", [direct_modelling_loss, gaussian_nll_loss])
def test_a_small_training_recovers_boxes_and_variances(loss: object) -> None:
    generator = torch.Generator().manual_seed(1)
    distance = torch.rand(4096, 1, generator=generator)
    sigma = 0.02 * torch.exp(2 * distance * torch.tensor([1.0, 0.5, 0.0, -0.5]))
    mean = distance * torch.tensor([1.0, -1.0, 0.5, 2.0])
    truth = mean + sigma * torch.randn(4096, 4, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        box_head = nn.Linear(1, 4)
    head = LogVarianceHead(features=1)
    optimizer = torch.optim.Adam([*box_head.parameters(), *head.parameters()], lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        loss(box_head(distance), head(distance), truth).backward()  # type: ignore[operator]
        optimizer.step()
    with torch.no_grad():
        learnt, boxes = (head(distance) / 2).exp(), box_head(distance)
    np.testing.assert_allclose(learnt, sigma, rtol=0.1)
    np.testing.assert_allclose(boxes, mean, atol=0.01)


def test_the_head_starts_at_one_keeps_its_bounds_and_comes_back_from_them() -> None:
    head = LogVarianceHead(features=3)
    np.testing.assert_allclose(head(torch.randn(2, 7, 3)).detach(), np.zeros((2, 7, 4)), atol=1e-4)
    with torch.no_grad():
        head.linear.bias.copy_(torch.tensor([-1e4, -20.0, 15.0, 1e4]))
    made = head(torch.zeros(1, 3))
    assert made.min() >= -14
    assert made.max() <= 10
    # A detector that is sure and wrong is pushed back from beyond the lower bound.
    gaussian_nll_loss(torch.ones(1, 4), made, torch.zeros(1, 4)).backward()
    assert head.linear.bias.grad is not None
    assert head.linear.bias.grad[1] < 0
    assert head.linear.bias.grad[2] > 0


def test_predictions_become_covariances() -> None:
    covariance = predicted_covariance(torch.zeros(2, 4, requires_grad=True), "xysr", "m")
    assert (covariance.space, covariance.unit) == ("xysr", "m")
    assert covariance.matrices.tolist() == np.tile(np.eye(4), (2, 1, 1)).tolist()
    with pytest.raises(DataError, match="finite"):
        predicted_covariance(torch.full((1, 4), torch.nan), "xysr", "m")


def test_shapes_and_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DataError, match="one shape"):
        direct_modelling_loss(torch.zeros(2, 4), torch.zeros(2, 1), torch.zeros(2, 4))
    with pytest.raises(SettingError, match="1 or more"):
        LogVarianceHead(0)
    with pytest.raises(SettingError, match="below 0 and one above"):
        LogVarianceHead(8, bounds=(1.0, 2.0))


def test_only_this_module_needs_torch() -> None:
    program = """
import sys

class WithoutTorch:
    def find_spec(self, name, *arguments):
        if name == "torch":
            raise ImportError(name)

sys.meta_path.insert(0, WithoutTorch())
import mot_cup, mot_cup.conformal, mot_cup.scores
from tenfold import MissingExtraError
try:
    import mot_cup.direct
except MissingExtraError as error:
    assert "pip install 'mot-cup[torch]'" in str(error), error
else:
    raise SystemExit("imported without torch")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
