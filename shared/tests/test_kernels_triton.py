"""Triton kernels of sparse products and of selection against the reference, through Triton's interpreter.

One test runs all the ``check_`` functions of this file.
"""

import pytest
import torch
from triton_interpreter import needs_triton, run_checks

from tenfold import SettingError, kernels

CHECKS = 4 * 3 + 2 + 1 + 1 + 1


@needs_triton
def test_triton_through_its_interpreter():
    run_checks(__file__, CHECKS)


def _random(block, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(6, (9,), generator=generator)
    crow = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(rows, minlength=7).cumsum(0)])
    col = torch.randint(4, (9,), generator=generator)
    return crow, col, torch.randn(9, *(block or ()), generator=generator)


@pytest.mark.parametrize("block", [None, (2, 2), (3, 5), (16, 4)])
@pytest.mark.parametrize("n", [1, 5, 37])
def check_products_and_gradients(block, n):
    crow, col, values = _random(block, n)
    dense = torch.randn(n, 4 * (block[1] if block else 1)).mT
    matmul = kernels.bsr_matmul if block else kernels.csr_matmul

    def run(implementation):
        leaves = values.clone().requires_grad_(), dense.clone().requires_grad_()
        product = matmul(crow, col, *leaves, implementation=implementation)
        return product.detach(), *torch.autograd.grad(product.sin().sum(), leaves)

    for ours, expected in zip(run("triton"), run("reference"), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [40, 2500])
def check_topk_mask(size):
    generator = torch.Generator().manual_seed(size)
    scores = torch.randint(-9, 9, (size,), generator=generator) * torch.rand(size, generator=generator).round(
        decimals=1
    )
    scores[3], scores[5] = float("inf"), -0.0
    for keep in (0, 1, size // 3, size - 1, size):
        ours = kernels.topk_mask(scores, keep, implementation="triton")
        assert torch.equal(ours, kernels.topk_mask(scores, keep, implementation="reference"))


def check_nan_is_rejected():
    with pytest.raises(SettingError, match="NaN"):
        kernels.topk_mask(torch.tensor([1.0, float("nan")]), 1, implementation="triton")


def check_group_norms():
    groups = torch.randn(5, 1300, generator=torch.Generator().manual_seed(0))
    groups[2] = 0
    ours = kernels.group_norms(groups, implementation="triton")
    torch.testing.assert_close(ours, kernels.group_norms(groups, implementation="reference"))


def check_group_topk_mask():
    groups = torch.tensor([[1.0, 1.0], [3.0, 4.0], [5.0, 0.0]])
    assert kernels.group_topk_mask(groups, 1, implementation="triton").tolist() == [False, True, False]
