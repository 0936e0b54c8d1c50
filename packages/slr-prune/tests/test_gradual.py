"""The ramp of gradual pruning where a structure has a least sparsity."""

import pytest
import torch
from torch import Tensor, nn

from slr_prune import STRUCTURES, GradualPruner, get_structure, least_sparsity, register_structure
from tenfold import SettingError, UnknownNameError

STEPS = 20
FLOORS = [("2:4", 0.5, 0.5), ("1:4", 0.75, 0.75), ("1:2", 0.5, 0.5), ("pattern", 4 / 9, 4 / 9)]


def ramp(t: int) -> float:
    return 1 - (1 - t / STEPS) ** 3


def masks_along_the_ramp(structure: str, sparsity: float) -> tuple[Tensor, list[Tensor]]:
    """Return a weight, and its masks after every step of a ramp during which it stands still."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 12, 3))
    weight = model[0].weight.detach().clone()
    pruner = GradualPruner(model, sparsity, structure=structure, steps=STEPS, every=1)
    masks = []
    for _ in range(STEPS):
        with torch.no_grad():
            model[0].weight.copy_(weight)
        pruner.constrain()
        assert torch.equal(model[0].weight.detach(), weight * pruner.masks["0.weight"])
        masks.append(pruner.masks["0.weight"])
    return weight, masks


@pytest.mark.parametrize(("structure", "sparsity", "floor"), [*FLOORS, ("pattern", 0.7, 4 / 9)])
def test_the_ramp_is_followed_below_the_least_sparsity(structure: str, sparsity: float, floor: float) -> None:
    weight, masks = masks_along_the_ramp(structure, sparsity)
    at_floor = get_structure(structure)(weight, floor)
    for t, mask in enumerate(masks, start=1):
        assert (~mask).double().mean().item() == pytest.approx(sparsity * ramp(t), abs=5 / weight.numel())
        if sparsity * ramp(t) < floor:
            assert mask[at_floor].all()
            removed = weight[~mask].abs().sort().values
            assert torch.equal(removed, weight[~at_floor].abs().sort().values[: len(removed)])
        else:
            assert torch.equal(mask, get_structure(structure)(weight, sparsity * ramp(t)))
    assert torch.equal(masks[-1], get_structure(structure)(weight, sparsity))


@pytest.mark.parametrize("sparsity", [0.44, 0.67])
def test_a_rounded_least_sparsity_ends_on_the_structure(sparsity: float) -> None:
    structure = {0.44: "pattern", 0.67: "1:3"}[sparsity]
    model = nn.Sequential(nn.Conv2d(6, 4, 3))
    pruner = GradualPruner(model, sparsity, structure=structure, steps=STEPS, every=3)
    for _ in range(STEPS):
        pruner.constrain()
    last = pruner.masks["0.weight"]
    assert torch.equal(last, get_structure(structure)(model[0].weight, sparsity))


def test_a_ramp_towards_less_than_the_least_sparsity_is_refused() -> None:
    with pytest.raises(SettingError, match=r"layer '0'.*4/9"):
        GradualPruner(nn.Sequential(nn.Conv2d(4, 4, 3)), 0.4, structure="pattern", steps=4, every=1)


@pytest.mark.parametrize(
    ("name", "least"), [*((name, floor) for name, _, floor in FLOORS), ("irregular", 0.0), ("block:4x2", 0.0)]
)
def test_the_least_sparsity_is_the_least_that_is_accepted(name: str, least: float) -> None:
    assert least_sparsity(name) == pytest.approx(least)
    weight = torch.randn(8, 8, 3, 3)
    if least:
        get_structure(name)(weight, least)
        with pytest.raises(SettingError, match="sparsity"):
            get_structure(name)(weight, least - 0.01)
    else:
        get_structure(name)(weight, 1e-3)


def test_a_registered_structure_declares_its_least_sparsity() -> None:
    @register_structure("every second", least_sparsity=0.5)
    def every_second(weight: Tensor, sparsity: float) -> Tensor:
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[::2] = True
        return mask.view(weight.shape)

    try:
        assert least_sparsity("every second") == 0.5
        _, masks = masks_along_the_ramp("every second", 0.5)
        assert [int(mask.sum()) for mask in masks] == sorted(
            (int(mask.sum()) for mask in masks), reverse=True
        )
        assert int(masks[-1].sum()) == masks[-1].numel() // 2
    finally:
        del STRUCTURES["every second"]
    with pytest.raises(UnknownNameError, match="every second"):
        least_sparsity("every second")
