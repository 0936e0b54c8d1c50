"""Triton kernels compiled for two generations of GPUs, which takes no GPU.

The interpreter accepts what the compiler does not: a variable that changes its shape in a loop, say.
"""

import importlib.util
import os

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets"),
]

AMPERE, HOPPER = 80, 90
ROW_STARTS = torch.tensor([0, 2, 3], dtype=torch.int32)
INDICES = torch.tensor([0, 1, 1], dtype=torch.int32)
ONE = torch.ones(())


@pytest.fixture(params=[AMPERE, HOPPER])
def assembly(request, monkeypatch, tmp_path):
    """Compile instead of launching; return the assembly of every kernel launched so far by its name."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime.jit import JITFunction, mangle_type

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assembly = {}

    def compile_kernel(kernel, *args, grid, warmup, **kwargs):
        options = {name: kwargs.pop(name) for name in list(kwargs) if name not in kernel.arg_names}
        values = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
        types = {}
        for each in kernel.params:
            fixed = each.is_constexpr or values[each.name] is None
            specialize = not each.do_not_specialize
            types[each.name] = "constexpr" if fixed else mangle_type(values[each.name], specialize)
        constants = {name: values[name] for name, kind in types.items() if kind == "constexpr"}
        source = ASTSource(kernel, types, constants)
        compiled = triton.compile(source, GPUTarget("cuda", request.param, 32), options)
        assembly[kernel.__name__] = compiled.asm["ptx"]

    monkeypatch.setattr(JITFunction, "run", compile_kernel)
    return assembly


def test_absmax_and_quantize(assembly):
    from tenfold.kernels._triton import quantize

    x, mask = torch.ones(3, 5), torch.ones(3, 5, dtype=torch.bool)
    quantize.absmax(x, torch.ones(3), mask)
    quantize.quantize(x, ONE, 127, None, None, None)
    quantize.quantize(x, ONE, 7, (1, 0xFFFFFFFF), torch.ones(3), x)
    quantize.absmax(x, None, quantize.positive_bits(x))
    assert "fma.rn.f32" not in assembly["_quantize"]


def test_int8_matmul_uses_tensor_cores(assembly):
    from tenfold.kernels._triton import int8_matmul

    gradient, x = torch.ones(2, 50_000, 256, dtype=torch.int8)
    weight = torch.ones(256, 40, dtype=torch.int8)
    for a, b, bias in (x, weight, torch.ones(40)), (gradient[:, :40], weight.mT, None):
        int8_matmul.int8_matmul(a, b, ONE, torch.ones(50_000), bias, True)
        assert "mma" in assembly["_multiply"]
    int8_matmul.int8_matmul(gradient.mT, x, ONE, None, None, False)
    assert "mma" in assembly["_multiply"]
    assert "_add_parts" in assembly


def test_message_passing(assembly):
    from tenfold.kernels._triton import message_passing

    for x in torch.ones(2, 4, 8), torch.ones(2, 4, 8, dtype=torch.int8):
        scale = ONE if x.dtype is torch.int8 else None
        flat = x.flatten(1)
        message_passing.spmm_copy_u(ROW_STARTS, INDICES, flat, scale, torch.ones(2))
        message_passing.spmm_copy_u(ROW_STARTS, INDICES.long(), flat, scale, None)
        message_passing.sddmm_u_dot_v(ROW_STARTS, INDICES, x, x, INDICES, scale)
        message_passing.sddmm_u_add_v(ROW_STARTS, INDICES, flat, flat, INDICES, scale, scale)
        message_passing.edge_sum(ROW_STARTS, flat, None, scale)
        for e in torch.ones(3, 4), torch.ones(3, 4, dtype=torch.int8):
            message_passing.spmm_u_mul_e(ROW_STARTS, INDICES, x, e, INDICES, ONE)
    assert assembly.keys() == {"_sum_in_edges", "_dot", "_add"}


def test_attention(assembly):
    from tenfold.kernels._triton import attention

    x, e = torch.ones(2, 5), torch.ones(3, 5)
    attention.edge_attention(ROW_STARTS, INDICES, x, x, 0.2)
    attention.edge_attention_backward(ROW_STARTS, INDICES, x, x, e, e, 0.2)
    assert assembly.keys() == {"_attention", "_attention_backward"}


def test_sparse_products(assembly):
    from tenfold.kernels._triton import sparse

    values, dense = torch.ones(3, 4, 2), torch.ones(4, 5)
    sparse.product(ROW_STARTS, INDICES, values, dense)
    sparse.transposed_product(ROW_STARTS, INDICES, values, torch.ones(8, 5), 4)
    sparse.sampled_product(ROW_STARTS, INDICES, torch.ones(8, 5), dense, (3, 4, 2))
    assert assembly.keys() == {"_product", "_transposed_product", "_sampled_product"}


def test_selection(assembly):
    from tenfold.kernels._triton import selection

    selection.topk_mask(torch.ones(3000), 5)
    selection.group_norms(torch.ones(3, 5))
    assert assembly.keys() == {"_count_digits", "_count_equal", "_keep_above", "_group_norms"}
