"""Sparse products: every implementation, instruction set and thread count against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold import SettingError, kernels

NATIVE = [f"native:{name}" for name in kernels.instruction_sets()]
pytestmark = pytest.mark.skipif(not NATIVE, reason="the native kernels are not built")


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def random_sparse(generator, block_rows, block_columns, block, entries, index_type):
    """Random BSR (or, for block 1 x 1 as None, CSR) with empty rows and duplicates."""
    rows = torch.randint(
        max(block_rows, 1), (entries if block_rows and block_columns else 0,), generator=generator
    )
    counts = torch.bincount(rows, minlength=block_rows)[:block_rows]
    crow = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]).to(index_type)
    col = torch.randint(max(block_columns, 1), rows.shape, generator=generator).to(index_type)
    values = torch.randn(len(rows), *(block or ()), generator=generator)
    return crow, col, values


def whole(tensor):
    """Small integers, of which sums of products are exact in any order."""
    return (3 * tensor).round()


def densify(crow, col, values, columns):
    height, width = values.shape[1:] if values.dim() == 3 else (1, 1)
    dense = torch.zeros((len(crow) - 1) * height, columns, dtype=values.dtype)
    for row in range(len(crow) - 1):
        for entry in range(int(crow[row]), int(crow[row + 1])):
            first = int(col[entry]) * width
            dense[row * height : (row + 1) * height, first : first + width] += values[entry]
    return dense


def in_layout(dense, layout):
    """The same matrix in another memory layout."""
    if layout == "columns":
        return dense.mT.contiguous().mT
    if layout == "strided":
        wide = torch.full((dense.shape[0], 2 * dense.shape[1] + 1), float("nan"))
        wide[:, 1::2] = dense
        return wide[:, 1::2]
    return dense


cases = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "block_rows": st.integers(0, 40),
        "block_columns": st.integers(1, 30),
        "block": st.sampled_from([None, (1, 1), (3, 5), (8, 8), (16, 16), (17, 4), (1, 33)]),
        "entries": st.integers(0, 200),
        "n": st.sampled_from([0, 1, 2, 7, 16, 17, 31, 32, 33, 64, 65, 130]),
        "index_type": st.sampled_from([torch.int32, torch.int64]),
        "layout": st.sampled_from(["rows", "columns", "strided"]),
        "threads": st.sampled_from([1, 2, 3]),
        "implementation": st.sampled_from(NATIVE or ["native"]),
    }
)


@settings(max_examples=300, deadline=None)
@given(case=cases)
def test_native_agrees_with_the_reference(case):
    generator = torch.Generator().manual_seed(case["seed"])
    block = case["block"]
    height, width = block or (1, 1)
    crow, col, values = random_sparse(
        generator, case["block_rows"], case["block_columns"], block, case["entries"], case["index_type"]
    )
    dense = in_layout(
        whole(torch.randn(case["block_columns"] * width, case["n"], generator=generator)), case["layout"]
    )
    gradient = whole(torch.randn(case["block_rows"] * height, case["n"], generator=generator))
    matmul = kernels.bsr_matmul if block else kernels.csr_matmul

    def run(implementation, threads):
        torch.set_num_threads(threads)
        leaves = whole(values).requires_grad_(), dense.detach().clone().requires_grad_()
        product = matmul(crow, col, *leaves, implementation=implementation)
        return product.detach(), *torch.autograd.grad(product, leaves, gradient)

    reference = run("reference", 1)
    native = run(case["implementation"], case["threads"])
    for ours, expected in zip(native, reference, strict=True):
        assert torch.equal(ours, expected)
    plain = matmul(crow, col, whole(values), dense, implementation=case["implementation"])
    assert torch.equal(plain, native[0])


@pytest.mark.parametrize("implementation", ["reference", *NATIVE])
@pytest.mark.parametrize("block", [None, (4, 3)])
def test_product_and_gradients_match_dense_autograd(implementation, block):
    generator = torch.Generator().manual_seed(3)
    crow, col, values = random_sparse(generator, 23, 19, block, 90, torch.int64)
    columns = 19 * (block[1] if block else 1)
    values.requires_grad_()
    dense = torch.randn(columns, 29, generator=generator, requires_grad=True)
    matmul = kernels.bsr_matmul if block else kernels.csr_matmul
    sparse_product = matmul(crow, col, values, dense, implementation=implementation)
    dense_product = densify(crow, col, values, columns) @ dense
    torch.testing.assert_close(sparse_product, dense_product, rtol=1e-4, atol=1e-4)
    weights = torch.randn(sparse_product.shape, generator=generator)
    ours = torch.autograd.grad((sparse_product.sin() * weights).sum(), (values, dense))
    expected = torch.autograd.grad((dense_product.sin() * weights).sum(), (values, dense))
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("block", [None, (2, 3)])
def test_reference_gradients_by_finite_differences(block):
    generator = torch.Generator().manual_seed(4)
    crow, col, values = random_sparse(generator, 4, 3, block, 7, torch.int32)
    dense = torch.randn(3 * (block[1] if block else 1), 2, generator=generator, dtype=torch.float64)
    matmul = kernels.bsr_matmul if block else kernels.csr_matmul
    inputs = values.double().requires_grad_(), dense.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, d: matmul(crow, col, v, d), inputs)


@pytest.mark.parametrize("implementation", NATIVE)
@pytest.mark.parametrize("block", [None, (16, 16), (5, 3)])
@pytest.mark.parametrize("n", [1, 48])
def test_the_number_of_threads_does_not_change_a_bit(implementation, block, n):
    generator = torch.Generator().manual_seed(5)
    block_rows, block_columns = (700, 300) if block is None else (60, 50)
    entries = 40_000 if block is None else 900
    crow, col, values = random_sparse(generator, block_rows, block_columns, block, entries, torch.int32)
    dense = torch.randn(block_columns * (block[1] if block else 1), n, generator=generator)
    matmul = kernels.bsr_matmul if block else kernels.csr_matmul

    def run(threads):
        torch.set_num_threads(threads)
        leaves = values.clone().requires_grad_(), dense.clone().requires_grad_()
        product = matmul(crow, col, *leaves, implementation=implementation)
        return product.detach(), *torch.autograd.grad(product.square().sum(), leaves)

    alone = run(1)
    for threads in (2, 3, 5):
        for ours, expected in zip(run(threads), alone, strict=True):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("implementation", ["reference", *NATIVE])
@pytest.mark.parametrize("shape", [(12,), (1, 12), (5, 12), (2, 3, 12)])
def test_linear_layers(implementation, shape):
    generator = torch.Generator().manual_seed(6)
    input, bias = torch.randn(shape, generator=generator), torch.randn(20, generator=generator)  # noqa: A001
    crow, col, values = random_sparse(generator, 20, 12, None, 60, torch.int32)
    expected = torch.nn.functional.linear(input, densify(crow, col, values, 12), bias)
    ours = kernels.csr_linear(input, crow, col, values, bias, implementation=implementation)
    torch.testing.assert_close(ours, expected)
    crow, col, values = random_sparse(generator, 5, 3, (4, 4), 8, torch.int32)
    expected = torch.nn.functional.linear(input, densify(crow, col, values, 12))
    ours = kernels.bsr_linear(input, crow, col, values, implementation=implementation)
    torch.testing.assert_close(ours, expected)


def test_a_layer_keeps_the_layout_of_its_input():
    crow, col, values = random_sparse(torch.Generator().manual_seed(7), 20, 12, None, 60, torch.int32)
    assert kernels.csr_linear(torch.ones(5, 12), crow, col, values).is_contiguous()
    assert kernels.csr_matmul(crow, col, values, torch.ones(12, 5)).is_contiguous()


def _arguments(**changes):
    arguments = {
        "crow_indices": torch.tensor([0, 1, 3]),
        "col_indices": torch.tensor([2, 0, 1]),
        "values": torch.ones(3),
        "dense": torch.ones(3, 4),
    }
    return arguments | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": torch.ones(3, 1)}, r"values of shape \(entries,\)"),
        ({"dense": torch.ones(3)}, r"a vector is a matrix with n = 1"),
        ({"dense": torch.ones(3, 4, dtype=torch.float64)}, "one floating-point type"),
        ({"values": torch.ones(3, dtype=torch.int32)}, "one floating-point type"),
        ({"col_indices": torch.tensor([2, 0, 1], dtype=torch.int32)}, "int32 or torch.int64 for both"),
        ({"crow_indices": torch.tensor([0.0, 1.0, 3.0])}, "int32 or torch.int64 for both"),
        ({"crow_indices": torch.empty(0, dtype=torch.long)}, "one entry more"),
        ({"crow_indices": torch.tensor([0, 1, 2])}, "end at 2"),
        ({"crow_indices": torch.tensor([1, 1, 3])}, "do not start at 0"),
        ({"crow_indices": torch.tensor([0, 4, 3])}, "never fall"),
        ({"col_indices": torch.tensor([2, 0])}, "2 column indices"),
        ({"col_indices": torch.tensor([3, 0, 1])}, "as high as 3"),
        ({"col_indices": torch.tensor([-1, 0, 1])}, "negative"),
        ({"dense": torch.ones(3, 4, device="meta")}, "one device"),
    ],
)
def test_wrong_csr_arguments_are_named(changes, message):
    with pytest.raises(SettingError, match=message):
        kernels.csr_matmul(**_arguments(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"\(blocks, r, c\)"),
        ({"values": torch.ones(3, 2, 2)}, "blocks of 2 x 2 and dense of 3 rows"),
        ({"values": torch.ones(3, 0, 1)}, "not empty"),
        ({"values": torch.ones(3, 2, 3)}, "from 0 to 0"),
    ],
)
def test_wrong_bsr_arguments_are_named(changes, message):
    with pytest.raises(SettingError, match=message):
        kernels.bsr_matmul(**_arguments(**changes))


def test_a_change_of_the_indices_is_noticed():
    arguments = _arguments()
    kernels.csr_matmul(**arguments)
    arguments["col_indices"][0] = 5
    with pytest.raises(SettingError, match="as high as 5"):
        kernels.csr_matmul(**arguments)


def test_indices_made_in_inference_mode_are_checked():
    with torch.inference_mode():
        arguments = _arguments()
        kernels.csr_matmul(**arguments)
        arguments["col_indices"][0] = 5
        with pytest.raises(SettingError, match="as high as 5"):
            kernels.csr_matmul(**arguments)


def test_checked_indices_are_forgotten_with_their_tensor():
    from tenfold.kernels import _checks

    before = len(_checks._known)
    kernels.csr_matmul(**_arguments())
    assert len(_checks._known) == before
