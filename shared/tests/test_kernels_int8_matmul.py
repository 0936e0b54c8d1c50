"""Products of int8 matrices: every implementation and instruction set against integers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold import SettingError, kernels

NATIVE = [f"native:{name}" for name in kernels.instruction_sets()]
IMPLEMENTATIONS = ["reference", *NATIVE]
ONE = torch.tensor(1.0)


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def random_int8(shape, generator, extremes):
    if extremes:
        return torch.tensor([-128, -127, 0, 127], dtype=torch.int8)[
            torch.randint(4, shape, generator=generator)
        ]
    return torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8)


def in_layout(matrix, layout):
    if layout == "columns":
        return matrix.mT.contiguous().mT
    if layout == "strided":
        wide = torch.full((matrix.shape[0], 2 * matrix.shape[1] + 1), 55, dtype=torch.int8)
        wide[:, 1::2] = matrix
        return wide[:, 1::2]
    return matrix


sizes = st.sampled_from([0, 1, 2, 3, 5, 6, 7, 12, 13, 16, 31, 33, 63, 64, 65, 100, 130])
cases = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "m": sizes,
        "k": sizes,
        "n": sizes,
        "extremes": st.booleans(),
        "transpose_a": st.booleans(),
        "transpose_b": st.booleans(),
        "layouts": st.tuples(*[st.sampled_from(["rows", "columns", "strided"])] * 2),
        "row_scale": st.booleans(),
        "bias": st.booleans(),
        "relu": st.booleans(),
        "threads": st.sampled_from([1, 2, 3]),
        "implementation": st.sampled_from(IMPLEMENTATIONS),
    }
)


@settings(max_examples=400, deadline=None)
@given(case=cases)
def test_the_product_is_that_of_integers(case):
    generator = torch.Generator().manual_seed(case["seed"])
    m, k, n = case["m"], case["k"], case["n"]
    left = random_int8((m, k), generator, case["extremes"])
    right = random_int8((k, n), generator, case["extremes"])
    scale = torch.rand((), generator=generator)
    row_scale = torch.randn(m, generator=generator) if case["row_scale"] else None
    bias = torch.randn(n, generator=generator) if case["bias"] else None

    expected = (left.long() @ right.long()).float() * (
        scale if row_scale is None else (scale * row_scale)[:, None]
    )
    expected = expected if bias is None else expected + bias
    expected = expected.relu() if case["relu"] else expected

    torch.set_num_threads(case["threads"])
    positive = torch.full(((m * n + 7) // 8,), 255, dtype=torch.uint8)
    out, largest = kernels.int8_matmul(
        in_layout(left.mT if case["transpose_a"] else left, case["layouts"][0]),
        in_layout(right.mT if case["transpose_b"] else right, case["layouts"][1]),
        scale,
        transpose_a=case["transpose_a"],
        transpose_b=case["transpose_b"],
        row_scale=row_scale,
        bias=bias,
        relu=case["relu"],
        positive=positive,
        implementation=case["implementation"],
    )
    assert torch.equal(out, expected)
    assert torch.equal(largest, expected.abs().max() if expected.numel() else torch.tensor(0.0))
    assert torch.equal(positive, kernels.positive_bits(expected, implementation="reference"))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("extreme", [(127, 127), (-128, -128), (-128, 127), (127, -128)])
def test_sums_beyond_int32(implementation, transpose_a, extreme):
    # 133,145 products of 127 by 127, or 131,072 of -128 by -128, are the first that int32 does not hold.
    for terms in (65_536, 65_537, 131_071, 131_072, 133_144, 133_145, 300_001):
        a = torch.full((terms, 2) if transpose_a else (2, terms), extreme[0], dtype=torch.int8)
        b = torch.full((terms, 3), extreme[1], dtype=torch.int8)
        out, largest = kernels.int8_matmul(a, b, ONE, transpose_a=transpose_a, implementation=implementation)
        exact = torch.tensor(terms * extreme[0] * extreme[1]).float()
        assert torch.equal(out, exact.expand(2, 3))
        assert torch.equal(largest, exact.abs())


@pytest.mark.parametrize("implementation", NATIVE)
def test_shapes_of_a_layer_over_threads(implementation):
    generator = torch.Generator().manual_seed(1)
    x, w = random_int8((3001, 70), generator, False), random_int8((70, 90), generator, False)
    gradient = random_int8((3001, 90), generator, False)
    products = [
        ((x, w), {}, x.double() @ w.double()),
        ((gradient, w), {"transpose_b": True}, gradient.double() @ w.double().mT),
        ((x, gradient), {"transpose_a": True}, x.double().mT @ gradient.double()),
    ]
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        for factors, transposed, exact in products:
            out, largest = kernels.int8_matmul(*factors, ONE, **transposed, implementation=implementation)
            assert torch.equal(out, exact.float())
            assert torch.equal(largest, exact.float().abs().max())


@pytest.mark.parametrize("implementation", NATIVE)
@pytest.mark.parametrize("columns", [256, 264, 257])
def test_a_product_too_large_for_a_cache_is_that_of_the_reference(implementation, columns):
    generator = torch.Generator().manual_seed(4)
    a, b = random_int8((4200, 40), generator, False), random_int8((40, columns), generator, False)
    settings = {"bias": torch.randn(columns, generator=generator), "relu": True}
    positive = torch.empty((4200 * columns + 7) // 8, dtype=torch.uint8)
    ours = kernels.int8_matmul(a, b, ONE, positive=positive, implementation=implementation, **settings)
    expected = kernels.int8_matmul(a, b, ONE, implementation="reference", **settings)
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(ours[1], expected[1])
    assert torch.equal(positive, kernels.positive_bits(expected[0], implementation="reference"))


@pytest.mark.parametrize("implementation", NATIVE)
def test_a_transposed_product_too_large_to_sum_up_beside(implementation):
    generator = torch.Generator().manual_seed(2)
    a, b = random_int8((5, 2100), generator, False), random_int8((5, 2000), generator, False)
    out, _ = kernels.int8_matmul(a, b, ONE, transpose_a=True, implementation=implementation)
    assert torch.equal(out, (a.double().mT @ b.double()).float())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinity_pass_through(implementation, relu):
    a, b = torch.tensor([[1, 2], [0, 0]], dtype=torch.int8), torch.ones(2, 40, dtype=torch.int8)

    def product(scale, **options):
        return kernels.int8_matmul(
            a, b, torch.tensor(scale), relu=relu, implementation=implementation, **options
        )

    out, largest = product(float("nan"))
    assert out.isnan().all()
    assert largest.isnan()
    out, largest = product(float("inf"))
    assert out[0].isinf().all()
    assert out[1].isnan().all()
    assert largest.isnan()
    out, largest = product(1.0, row_scale=torch.tensor([float("inf"), 1.0]))
    assert math.isinf(largest)
    bias = torch.zeros(40)
    bias[39] = float("nan")
    out, largest = product(1.0, bias=bias)
    assert out[:, 39].isnan().all()
    assert not out[:, :39].isnan().any()
    assert largest.isnan()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_quantised_product_is_near_the_product(implementation):
    generator = torch.Generator().manual_seed(3)
    x, w = torch.randn(200, 64, generator=generator), torch.randn(64, 48, generator=generator)
    (x_scale, xq), (w_scale, wq) = (
        (scale, kernels.quantize(tensor, scale, implementation=implementation))
        for tensor in (x, w)
        for scale in [kernels.absmax(tensor, implementation=implementation) / 127]
    )
    out, _ = kernels.int8_matmul(xq, wq, x_scale * w_scale, implementation=implementation)
    # Each factor is off by half a step: |x w - x' w'| <= |x| s_w / 2 + |w| s_x / 2 + s_x s_w / 4.
    bound = (x.abs().sum(1)[:, None] * w_scale + w.abs().sum(0) * x_scale) / 2 + 64 * x_scale * w_scale / 4
    assert bool(((out - x @ w).abs() <= bound * 1.0001).all())


def test_gradients_are_cut():
    scale = torch.tensor(2.0, requires_grad=True)
    a = torch.ones(2, 2, dtype=torch.int8)
    for implementation in IMPLEMENTATIONS:
        out, _ = kernels.int8_matmul(
            a, a, scale, bias=torch.ones(2, requires_grad=True), implementation=implementation
        )
        assert not out.requires_grad


def _arguments(**changes):
    a, b = torch.ones(3, 4, dtype=torch.int8), torch.ones(4, 5, dtype=torch.int8)
    return {"a": a, "b": b, "scale": ONE} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": torch.ones(3, 4)}, r"torch\.float32 on cpu and torch\.int8"),
        ({"b": torch.ones(4, 5, dtype=torch.int8, device="meta")}, "on one device"),
        ({"a": torch.ones(4, dtype=torch.int8)}, r"shapes \(4,\)"),
        ({"a": torch.ones(3, 5, dtype=torch.int8)}, r"\(3, 5\) and \(4, 5\)"),
        ({"transpose_a": True}, r"\(3, 4\) transposed"),
        ({"transpose_b": True}, r"\(4, 5\) transposed"),
        ({"scale": torch.ones(1)}, r"scale of shape \(1,\)"),
        ({"row_scale": torch.ones(4)}, r"row_scale of shape \(4,\)"),
        ({"bias": torch.ones(4)}, r"bias of shape \(4,\)"),
        ({"bias": torch.ones(5, dtype=torch.float64)}, r"bias of shape \(5,\) and torch\.float64"),
        (
            {"positive": torch.empty(3, dtype=torch.uint8)},
            r"positive of torch\.uint8 and shape \(3,\).*shape \(2,\)",
        ),
        ({"positive": torch.empty(2)}, r"positive of torch\.float32"),
        ({"positive": torch.empty(4, dtype=torch.uint8)[::2]}, "a contiguous"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(SettingError, match=message):
        kernels.int8_matmul(**_arguments(**changes))
