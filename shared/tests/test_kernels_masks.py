"""Masks and norms: every implementation and instruction set against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold import SettingError, kernels

IMPLEMENTATIONS = ["reference", *(f"native:{name}" for name in kernels.instruction_sets())]


@settings(max_examples=150, deadline=None)
@given(
    scores=st.lists(
        st.one_of(
            st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, float("inf"), float("-inf"), 1e-45]),
            st.floats(allow_nan=False, width=32),
        ),
        max_size=80,
    ),
    share=st.floats(0, 1),
    implementation=st.sampled_from(IMPLEMENTATIONS),
)
def test_topk_mask_is_the_stable_order(scores, share, implementation):
    keep = round(share * len(scores))
    ranked = sorted(range(len(scores)), key=lambda i: (-abs(scores[i]), i))
    mask = kernels.topk_mask(torch.tensor(scores, dtype=torch.float32), keep, implementation=implementation)
    assert mask.nonzero().flatten().tolist() == sorted(ranked[:keep])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_topk_mask_over_threads_with_ties(implementation, threads):
    scores = torch.randint(-50, 50, (311, 407), generator=torch.Generator().manual_seed(0)).float()
    expected = kernels.topk_mask(scores, 60_000, implementation="reference")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(kernels.topk_mask(scores, 60_000, implementation=implementation), expected)
        turned = kernels.topk_mask(scores.mT, 60_000, implementation=implementation)
        assert torch.equal(
            turned, kernels.topk_mask(scores.mT.contiguous(), 60_000, implementation="reference")
        )
    finally:
        torch.set_num_threads(before)
    assert int(expected.sum()) == 60_000


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_topk_mask_rejects_nan(implementation):
    with pytest.raises(SettingError, match="NaN"):
        kernels.topk_mask(torch.tensor([1.0, float("nan")]), 1, implementation=implementation)


@pytest.mark.parametrize("keep", [-1, 4])
def test_topk_mask_rejects_impossible_numbers(keep):
    with pytest.raises(SettingError, match=f"keep {keep} of 3"):
        kernels.topk_mask(torch.ones(3), keep)


def test_topk_mask_rejects_integers():
    with pytest.raises(SettingError, match="floating-point"):
        kernels.topk_mask(torch.ones(3, dtype=torch.int32), 1)


def test_topk_mask_takes_double_and_parameters():
    scores = torch.nn.Parameter(torch.tensor([[0.5, -3.0], [2.0, 0.1]]))
    expected = torch.tensor([[False, True], [True, False]])
    assert torch.equal(kernels.topk_mask(scores, 2), expected)
    assert torch.equal(kernels.topk_mask(scores.double(), 2), expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    groups=st.integers(0, 30),
    size=st.integers(0, 70),
    implementation=st.sampled_from(IMPLEMENTATIONS),
)
def test_group_norms_agree(seed, groups, size, implementation):
    values = torch.randn(groups, size, generator=torch.Generator().manual_seed(seed))
    ours = kernels.group_norms(values, implementation=implementation)
    torch.testing.assert_close(ours, torch.linalg.vector_norm(values, dim=1))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_group_norms_do_not_overflow_and_have_gradients(implementation):
    groups = torch.tensor([[3e30, 4e30], [0.0, 0.0], [3.0, -4.0]], requires_grad=True)
    norms = kernels.group_norms(groups, implementation=implementation)
    torch.testing.assert_close(norms, torch.tensor([5e30, 0.0, 5.0]))
    (gradient,) = torch.autograd.grad(norms.sum(), groups)
    torch.testing.assert_close(gradient, torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.6, -0.8]]))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_group_topk_mask(implementation):
    groups = torch.tensor([[1.0, 1.0], [3.0, 4.0], [5.0, 0.0], [0.0, 0.0]])
    mask = kernels.group_topk_mask(groups, 1, implementation=implementation)
    assert mask.tolist() == [False, True, False, False]
    assert kernels.group_topk_mask(groups, 2, implementation=implementation).tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_group_norms_reject_other_shapes():
    with pytest.raises(SettingError, match="one group a row"):
        kernels.group_norms(torch.ones(3))
