"""Triton kernels of int8 tensors against the reference, through Triton's interpreter.

One test runs all the ``check_`` functions of this file. Results are equal bit for bit.
"""

import math

import pytest
import torch
from triton_interpreter import needs_triton, run_checks

from tenfold import kernels

CHECKS = 4 + 4 * 4 + 4 + 5 + 4 * 4 + 1 + 5 + 2

SHAPES = {"matrix": (37, 70), "row": (1, 5), "vector": (5000,), "scalar": ()}
MASKS = {
    "float32": lambda x: x,
    "int8": lambda x: x.to(torch.int8),
    "bool": lambda x: x > 0,
    "bits": lambda x: kernels.positive_bits(x, implementation="reference"),
}


@needs_triton
def test_triton_through_its_interpreter():
    run_checks(__file__, CHECKS)


def _both(function, *arguments, **settings):
    return (function(*arguments, **settings, implementation=name) for name in ("triton", "reference"))


def _random(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(-1, 2, shape, generator=generator).float()
    return torch.randn(shape, generator=generator), mask


@pytest.mark.parametrize("mask", MASKS)
def check_absmax(mask):
    x, positive = _random((37, 70))
    for row_scale in (None, x[:, 3].clone()):
        for kept in (None, MASKS[mask](positive)):
            ours, expected = _both(kernels.absmax, x, row_scale=row_scale, positive=kept)
            assert torch.equal(ours, expected)
    assert kernels.absmax(x, positive=torch.zeros_like(x), implementation="triton") == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mask", MASKS)
def check_quantize(shape, mask):
    x, positive = _random(SHAPES[shape])
    row_scale = x[..., 0].flatten().clone() if x.dim() == 2 else None
    for levels, seed in ((127, None), (127, 0), (7, 2**64 - 1), (1, 12_345)):
        scale = kernels.absmax(x) / levels
        for kept in (None, MASKS[mask](positive)):
            settings = {"levels": levels, "seed": seed, "row_scale": row_scale, "positive": kept}
            ours, expected = _both(kernels.quantize, x, scale, **settings)
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("shape", SHAPES)
def check_positive_bits(shape):
    x, _ = _random(SHAPES[shape])
    ours, expected = _both(kernels.positive_bits, x)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("scale", [0.0, 1e-39, math.inf, math.nan, 1.0])
def check_quantize_at_the_edges(scale):
    x = torch.tensor([math.nan, math.inf, -math.inf, -0.0, 126.5, 127.5, -1.5, -0.5, 0.5, 2.5])
    for seed in (None, 3):
        ours, expected = _both(kernels.quantize, x, torch.tensor(scale), seed=seed)
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("shape", [(5, 7, 3), (130, 300, 40), (16, 0, 3), (3, 2500, 130)])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def check_int8_matmul(shape, transposed):
    (m, k, n), (transpose_a, transpose_b) = shape, transposed
    generator = torch.Generator().manual_seed(m)
    a = torch.randint(-128, 128, (k, m) if transpose_a else (m, k), generator=generator).to(torch.int8)
    b = torch.randint(-128, 128, (n, k) if transpose_b else (k, n), generator=generator).to(torch.int8)
    scale, row_scale, bias = torch.tensor(0.013), torch.rand(m), torch.randn(n)
    for settings in ({}, {"relu": True}, {"row_scale": row_scale, "bias": bias, "relu": transpose_b}):
        positive = torch.empty((m * n + 7) // 8, dtype=torch.uint8)
        settings |= {"transpose_a": transpose_a, "transpose_b": transpose_b}
        ours, ours_absmax = kernels.int8_matmul(
            a, b, scale, **settings, positive=positive, implementation="triton"
        )
        expected, expected_absmax = kernels.int8_matmul(a, b, scale, **settings, implementation="reference")
        assert torch.equal(ours, expected)
        assert torch.equal(ours_absmax, expected_absmax)
        assert torch.equal(positive, kernels.positive_bits(expected, implementation="reference"))


def check_int8_matmul_beyond_int32():
    k = 133_200
    a = torch.full((1, k), -128, dtype=torch.int8)
    out, absmax = kernels.int8_matmul(a, a.mT, torch.tensor(1.0), implementation="triton")
    assert out.item() == absmax == torch.tensor(float(k * 128**2))


@pytest.mark.parametrize("tiles", [1, 64, 513, 10**6, 10**9])
def check_part_sums_fit_int32(tiles):
    from tenfold.kernels._triton import int8_matmul

    for k in (1, 2049, 10**6, 10**10):
        part = int8_matmul._part(k, tiles)
        assert part % int8_matmul._DEPTH == 0
        assert part * 128**2 < 2**31


@pytest.mark.parametrize("value", [math.nan, math.inf])
def check_what_is_not_finite_propagates(value):
    x = torch.tensor([1.0, value, -3.0])
    a = torch.ones(3, 2, dtype=torch.int8)
    _, absmax = kernels.int8_matmul(a, a.mT, torch.tensor(1.0), row_scale=x, implementation="triton")
    for ours in (kernels.absmax(x, implementation="triton"), absmax):
        assert math.isnan(ours) if math.isnan(value) else ours == value
