import pytest
import torch
from torch import Tensor, nn

from dgba import Square, Task
from dgba._square import side, stripes, with_square
from tenfold import SettingError

EPS = 0.1


def mean_square(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().flatten(1).mean(1)


class Bright(nn.Module):
    """The output is the image, so that the worst perturbation is +eps everywhere."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"image": images}


TASKS = [Task("image", mean_square)]


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25


def attack(queries: int = 300, **options: object) -> Square:
    return Square(Bright(), TASKS, combination="total", eps=EPS, queries=queries, **options)  # type: ignore[arg-type]


def test_the_known_optimum_is_approached_within_the_ball() -> None:
    x = images()
    targets = {"image": torch.zeros_like(x)}
    found = attack(1000)(x, targets)
    worst, clean = ((y**2).mean((1, 2, 3)) for y in (x + EPS, x))
    reached = ((found**2).mean((1, 2, 3)) - clean) / (worst - clean)
    assert (reached > 0.85).all()
    assert ((found - x).abs() <= EPS + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_more_queries_never_do_less() -> None:
    x = images()
    targets = {"image": torch.zeros_like(x)}
    objective = [(attack(queries)(x, targets) ** 2).mean() for queries in (1, 30, 300)]
    assert objective == sorted(objective)
    assert objective[0] >= (x**2).mean()


def test_an_image_is_attacked_the_same_in_any_company() -> None:
    x = images(5)
    targets = {"image": torch.zeros_like(x)}
    together = attack(50)(x, targets)
    alone = torch.cat([attack(50)(part, {"image": torch.zeros_like(part)}) for part in x.split(2)])
    assert torch.equal(together, alone)
    assert not torch.equal(together, attack(50, seed=1)(x, targets))


def test_squares_shrink_and_fit() -> None:
    sides = [side(query, 1000, 64, 48) for query in range(1000)]
    assert sides == sorted(sides, reverse=True)
    assert sides[0] == 48
    assert sides[-1] >= 1
    assert side(999, 1000, 2, 2) == 1


def test_a_proposal_changes_one_square_to_the_bounds() -> None:
    x = images(1)
    draws = torch.tensor([[0.99, 0.0, 0.1, 0.9, 0.1]])
    changed = with_square(x, x, EPS, 3, draws) - x
    inside = changed[0, :, 5:8, 0:3]
    torch.testing.assert_close(inside, torch.tensor([-EPS, EPS, -EPS])[:, None, None].expand(3, 3, 3))
    assert torch.count_nonzero(changed) == inside.numel()


def test_stripes_run_from_top_to_bottom() -> None:
    x = images(2)
    delta = stripes(x, EPS, torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(1))) - x
    torch.testing.assert_close(delta, delta[:, :, :1].expand_as(delta))
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, EPS))


def test_other_norms_and_no_queries_are_refused() -> None:
    with pytest.raises(SettingError, match="norm 'l2' with 300 queries"):
        attack(norm="l2")
    with pytest.raises(SettingError, match="0 queries"):
        attack(0)
