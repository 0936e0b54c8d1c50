"""Triton kernels against the reference, through Triton's interpreter.

The interpreter must be chosen before Triton is imported, so one test runs all the ``check_``
functions of this file in a process of its own.
"""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
import torch

from tenfold import SettingError, kernels

CHECKS = 4 * 3 + 2 + 1 + 1 + 1


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_triton_through_its_interpreter():
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "python_functions=check_*"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, __file__],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"\b{CHECKS} passed", done.stdout), done.stdout


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
