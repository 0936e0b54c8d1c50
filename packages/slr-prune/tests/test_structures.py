"""Every structure is the Euclidean projection: held against the enumeration of all its masks."""

import itertools
import math
import pickle
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from slr_prune import STRUCTURES, get_structure
from tenfold import SettingError, UnknownNameError

SEEDS = st.integers(0, 10_000)
SPARSITIES = st.floats(0.05, 0.95)

# The 13 patterns of the authors' code as pictures, x where an entry stays.
PICTURES = """
.x. ..x ..x ..x xx. .xx x.. x.. xxx .x. xxx xxx x..
xxx xxx xxx ..x .x. .x. xxx xxx .x. .x. x.. ..x x..
.x. x.. ..x xxx .xx xx. ..x x.. .x. xxx x.. ..x xxx
"""


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unions(groups: list[list[int]], kept: int, size: int) -> Iterator[Tensor]:
    """Every mask that keeps `kept` of the groups of flat indices."""
    for chosen in itertools.combinations(groups, kept):
        mask = torch.zeros(size, dtype=torch.bool)
        mask[list(itertools.chain(*chosen))] = True
        yield mask


def assert_projection(weight: Tensor, mask: Tensor, admissible: Iterator[Tensor]) -> None:
    """`mask` is one of the admissible flat masks, and none of them keeps more."""
    assert mask.dtype == torch.bool
    assert mask.shape == weight.shape
    squares = weight.flatten().square()
    found, best = False, 0.0
    for candidate in admissible:
        found = found or torch.equal(candidate, mask.flatten())
        best = max(best, squares[candidate].sum().item())
    assert found
    assert squares[mask.flatten()].sum().item() == pytest.approx(best, rel=1e-12)


def kept_of(count: int, sparsity: float) -> int:
    return max(1, round(count * (1 - sparsity)))


@given(SEEDS, SPARSITIES)
@settings(max_examples=30, deadline=None)
def test_irregular(seed: int, sparsity: float) -> None:
    weight = draw((3, 3), seed)
    mask = get_structure("irregular")(weight, sparsity)
    assert_projection(weight, mask, unions([[index] for index in range(9)], kept_of(9, sparsity), 9))


SLICES = [
    ("filter", (6, 2, 2, 1), lambda o, i, h, w: o),
    ("channel", (2, 6, 2, 1), lambda o, i, h, w: i),
    ("channel", (3, 5), lambda o, i: i),
    ("column", (3, 2, 2, 2), lambda o, i, h, w: (i, h, w)),
    ("column", (3, 5), lambda o, i: i),
    ("block:2", (4, 2, 2, 1), lambda o, i, h, w: (o // 2, (2 * i + h) // 2)),
    ("block:2x3", (5, 7), lambda o, i: (o // 2, i // 3)),
    ("block:3", (2, 7), lambda o, i: (o // 3, i // 3)),
]


@pytest.mark.parametrize(("name", "shape", "group_of"), SLICES)
@given(SEEDS, SPARSITIES)
@settings(max_examples=30, deadline=None)
def test_groups(name: str, shape: tuple[int, ...], group_of, seed: int, sparsity: float) -> None:  # type: ignore[no-untyped-def]
    weight = draw(shape, seed)
    groups: dict[object, list[int]] = {}
    for flat, place in enumerate(itertools.product(*map(range, shape))):
        groups.setdefault(group_of(*place), []).append(flat)
    kept = kept_of(len(groups), sparsity)
    mask = get_structure(name)(weight, sparsity)
    assert_projection(weight, mask, unions(list(groups.values()), kept, weight.numel()))


def test_a_block_is_16_by_16_unless_named() -> None:
    weight = draw((40, 70), 0)
    mask = get_structure("block")(weight, 0.5)
    assert torch.equal(mask, get_structure("block:16x16")(weight, 0.5))
    assert not torch.equal(mask, get_structure("block:8")(weight, 0.5))


@pytest.mark.filterwarnings("ignore:Sparse BSR")
def test_blocks_that_divide_survive_the_conversion_to_bsr() -> None:
    weight = draw((64, 96), 0)
    bsr = (weight * get_structure("block")(weight, 0.75)).to_sparse_bsr((16, 16))
    assert bsr.values().shape == (6, 16, 16)


def pictures() -> list[list[bool]]:
    rows = [line.split() for line in PICTURES.split("\n") if line]
    return [[entry == "x" for entry in "".join(picture)] for picture in zip(*rows, strict=True)]


@given(SEEDS, st.floats(4 / 9, 0.95))
@settings(max_examples=15, deadline=None)
def test_pattern(seed: int, sparsity: float) -> None:
    weight = draw((3, 1, 3, 3), seed)
    shapes = [torch.tensor(picture) for picture in pictures()]
    kept = max(1, round(3 * 9 * (1 - sparsity) / 5))

    def admissible() -> Iterator[Tensor]:
        for chosen in itertools.combinations(range(3), kept):
            for combination in itertools.product(shapes, repeat=kept):
                mask = torch.zeros(3, 9, dtype=torch.bool)
                mask[list(chosen)] = torch.stack(combination)
                yield mask.flatten()

    assert_projection(weight, get_structure("pattern")(weight, sparsity), admissible())


def test_the_patterns_are_thirteen_and_keep_five_of_nine() -> None:
    assert len({tuple(picture) for picture in pictures()}) == 13
    assert {sum(picture) for picture in pictures()} == {5}


@pytest.mark.parametrize("sparsity", [4 / 9, 0.445, 0.44])
def test_the_least_sparsity_of_patterns_keeps_every_kernel(sparsity: float) -> None:
    mask = get_structure("pattern")(draw((200, 30, 3, 3), 0), sparsity)
    assert mask.double().mean().item() == pytest.approx(5 / 9, abs=1e-3)


@pytest.mark.parametrize(("name", "n", "m"), [("2:4", 2, 4), ("1:4", 1, 4), ("1:3", 1, 3)])
@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_n_of_m(name: str, n: int, m: int, seed: int) -> None:
    weight = draw((1, m, 2, 1), seed)

    def admissible() -> Iterator[Tensor]:
        for first, second in itertools.product(itertools.combinations(range(m), n), repeat=2):
            mask = torch.zeros(m, 2, dtype=torch.bool)
            mask[list(first), 0] = True
            mask[list(second), 1] = True
            yield mask.flatten()

    assert_projection(weight, get_structure(name)(weight, 1 - n / m), admissible())


def test_neighbours_of_2_4_are_aligned() -> None:
    weight = torch.tensor([[9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 3.0, 4.0]])
    assert torch.equal(get_structure("2:4")(weight, 0.5), torch.tensor([[1, 1, 0, 0, 0, 0, 1, 1]]).bool())


@pytest.mark.parametrize("name", [*STRUCTURES, "block:3x2", "1:2"])
def test_ties_go_to_the_lower_index(name: str) -> None:
    weight = torch.ones(4, 4, 3, 3)
    mask = get_structure(name)(weight, 0.5)
    assert mask[0, 0].any()
    if name != "pattern":
        assert mask[0, 0, 0, 0]
    assert not mask[-1, -1, -1, -1]
    assert torch.equal(mask, get_structure(name)(weight, 0.5))


@pytest.mark.parametrize("name", [*STRUCTURES, "block:8x4", "1:4"])
def test_every_structure_takes_parameters_of_any_float_type_and_can_be_pickled(name: str) -> None:
    structure = pickle.loads(pickle.dumps(get_structure(name)))
    sparsity = 0.75 if name == "1:4" else 0.5
    weight = draw((64, 32, 3, 3), 0)
    mask = structure(weight, sparsity)
    assert not mask.requires_grad
    assert torch.equal(mask, structure(torch.nn.Parameter(weight.float()), sparsity))
    half = weight.bfloat16()
    assert torch.equal(structure(half, sparsity), structure(half.double(), sparsity))


def test_ties_of_n_of_m_go_to_the_lower_input() -> None:
    assert get_structure("100:200")(torch.ones(3, 200), 0.5)[:, :100].all()


@pytest.mark.parametrize(("name", "dim"), [("filter", 0), ("channel", 1), ("column", 1), ("block:2x100", 0)])
def test_groups_in_half_precision_are_not_ranked_by_rounded_norms(name: str, dim: int) -> None:
    weight = torch.ones(4, 100, dtype=torch.bfloat16)
    if dim == 1:
        weight = weight.T.contiguous()
    weight.select(dim, 3)[0] = 1.25
    kept = get_structure(name)(weight, 0.75)
    assert kept.select(dim, 3).all()


@pytest.mark.parametrize("name", STRUCTURES)
def test_nan_is_refused(name: str) -> None:
    weight = torch.ones(4, 4, 3, 3)
    weight[0, 0, 0, 0] = math.nan
    with pytest.raises(SettingError, match="NaN"):
        get_structure(name)(weight, 0.5)


@pytest.mark.parametrize("name", [name for name in STRUCTURES if name not in ("irregular", "pattern")])
def test_a_vector_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=r"shape \(4,\); expected two dimensions.*'irregular'"):
        get_structure(name)(torch.ones(4), 0.5)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1, 1), (4, 4, 3, 5), (4, 4, 3)])
def test_pattern_refuses_other_kernels(shape: tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match=r"expected shape \(out, in, 3, 3\).*'irregular'"):
        get_structure("pattern")(torch.ones(shape), 0.5)


def test_pattern_refuses_less_than_its_four_ninths() -> None:
    with pytest.raises(SettingError, match=r"sparsity 0.4 .*4/9"):
        get_structure("pattern")(torch.ones(4, 4, 3, 3), 0.4)


@pytest.mark.parametrize("sparsity", [0.48, 0.52, 0.9])
def test_n_of_m_refuses_another_sparsity(sparsity: float) -> None:
    with pytest.raises(SettingError, match=r"expected 1 - 2/4 = 0\.5"):
        get_structure("2:4")(torch.ones(4, 4), sparsity)


def test_n_of_m_forgives_a_rounded_fraction() -> None:
    assert get_structure("1:3")(torch.ones(2, 6), 0.67).sum() == 4


def test_n_of_m_refuses_inputs_that_do_not_divide() -> None:
    with pytest.raises(SettingError, match=r"shape \(8, 6\); expected a multiple of 4"):
        get_structure("2:4")(torch.ones(8, 6), 0.5)


@pytest.mark.parametrize("name", ["4:4", "5:4", "0:4", "block:0", "block:8x0"])
def test_impossible_sizes_are_refused(name: str) -> None:
    with pytest.raises(SettingError, match=f"structure '{name}'"):
        get_structure(name)


@pytest.mark.parametrize("name", ["blocks", "block:", "block:8x", "2:", "2:4:8", "-1:4", "filters"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="no structure is named"):
        get_structure(name)
