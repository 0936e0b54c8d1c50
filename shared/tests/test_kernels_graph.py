"""Operators on graphs: every implementation, instruction set and thread count against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold import SettingError, kernels

NATIVE = [f"native:{name}" for name in kernels.instruction_sets()]
SCALE = torch.tensor(0.37)


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def random_graph(generator, sources, rows, edges, index_type=torch.int32):
    """Random CSR with isolated nodes and multiple edges, and edge numbers in random order."""
    if not sources or not rows:
        edges = 0
    destination = torch.randint(max(rows, 1), (edges,), generator=generator)
    counts = torch.bincount(destination, minlength=rows)[:rows]
    indptr = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    indices = torch.randint(max(sources, 1), (edges,), generator=generator)
    edge_ids = torch.randperm(edges, generator=generator)
    return indptr.to(index_type), indices.to(index_type), edge_ids.to(index_type)


def random_bytes(generator, *shape):
    return torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)


def whole(generator, *shape):
    """Small integers in floating point, of which sums of products are exact in any order."""
    return torch.randint(-9, 10, shape, generator=generator).float()


def of_rows(indptr):
    return torch.arange(len(indptr) - 1).repeat_interleave(indptr.diff().long())


def calls(generator, sources, rows, edges, heads, depth, index_type):
    """Calls of every operator with every type of operand, none of which rounds before its scale."""
    indptr, indices, edge_ids = random_graph(generator, sources, rows, edges, index_type)
    edges = len(indices)
    width = heads * depth
    x8, x32 = random_bytes(generator, sources, width), whole(generator, sources, width)
    e8, e32 = random_bytes(generator, edges, heads), whole(generator, edges, heads)
    v8, v32 = random_bytes(generator, rows, heads, depth), whole(generator, rows, heads, depth)
    row_scale = torch.rand(rows, generator=generator)
    u8, u32 = (x.view(sources, heads, depth) for x in (x8, x32))
    a8, a32 = random_bytes(generator, sources, heads), whole(generator, sources, heads)
    b8, b32 = random_bytes(generator, rows, heads), whole(generator, rows, heads)
    graph = indptr, indices
    scaled, ordered = {"scale": SCALE}, {"edge_ids": edge_ids}
    return [
        (kernels.spmm_copy_u, (*graph, x8), scaled),
        (kernels.spmm_copy_u, (*graph, x8), scaled | {"row_scale": row_scale}),
        (kernels.spmm_copy_u, (*graph, x32), {}),
        (kernels.spmm_copy_u, (*graph, x32), {"row_scale": row_scale}),
        (kernels.spmm_u_mul_e, (*graph, u8, e8), scaled),
        (kernels.spmm_u_mul_e, (*graph, u8, e8), scaled | ordered),
        (kernels.spmm_u_mul_e, (*graph, u8, e32), scaled | ordered),
        (kernels.spmm_u_mul_e, (*graph, u32, e8), scaled),
        (kernels.spmm_u_mul_e, (*graph, u32, e32), ordered),
        (kernels.sddmm_u_dot_v, (*graph, u8, v8), scaled | ordered),
        (kernels.sddmm_u_dot_v, (*graph, u8, v8), scaled),
        (kernels.sddmm_u_dot_v, (*graph, u32, v32), ordered),
        (kernels.sddmm_u_add_v, (*graph, a8, b8), {"u_scale": SCALE, "v_scale": 2 * SCALE}),
        (kernels.sddmm_u_add_v, (*graph, a8, b32), {"u_scale": SCALE} | ordered),
        (kernels.sddmm_u_add_v, (*graph, a32, b8), {"v_scale": SCALE}),
        (kernels.sddmm_u_add_v, (*graph, a32, b32), ordered),
        (kernels.edge_sum, (indptr, e8), scaled),
        (kernels.edge_sum, (indptr, e8), scaled | ordered),
        (kernels.edge_sum, (indptr, e32), ordered),
    ]


def run(call, implementation):
    function, arguments, options = call
    result = function(*arguments, **options, implementation=implementation)
    return result if isinstance(result, tuple) else (result,)


shapes = {
    "seed": st.integers(0, 2**31),
    "sources": st.integers(0, 40),
    "rows": st.integers(0, 30),
    "edges": st.integers(0, 300),
    "heads": st.sampled_from([1, 2, 3, 4, 8, 17]),
    "index_type": st.sampled_from([torch.int32, torch.int64]),
    "threads": st.sampled_from([1, 2]),
    "implementation": st.sampled_from(NATIVE or ["native"]),
}


@pytest.mark.skipif(not NATIVE, reason="the native kernels are not built")
@settings(max_examples=200, deadline=None)
@given(
    case=st.fixed_dictionaries(
        shapes | {"depth": st.sampled_from([0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 40, 64, 100, 130, 257])}
    )
)
def test_native_equals_the_reference(case):
    generator = torch.Generator().manual_seed(case.pop("seed"))
    threads, implementation = case.pop("threads"), case.pop("implementation")
    torch.set_num_threads(1)
    every_call = calls(generator, **case)
    reference = [run(call, "reference") for call in every_call]
    torch.set_num_threads(threads)
    for call, expected in zip(every_call, reference, strict=True):
        for ours, theirs in zip(run(call, implementation), expected, strict=True):
            assert ours.dtype is theirs.dtype
            assert torch.equal(ours, theirs), call[0].__name__


def dense_incidence(indptr, indices, edge_ids, sources):
    """The matrices rows x edges of destinations and sources x edges of sources."""
    edges = len(indices)
    ends = torch.zeros(len(indptr) - 1, edges, dtype=torch.float64)
    ends[of_rows(indptr), edge_ids.long()] = 1
    starts = torch.zeros(sources, edges, dtype=torch.float64)
    starts[indices.long(), edge_ids.long()] = 1
    return ends, starts


@pytest.mark.parametrize("implementation", ["reference", *NATIVE])
def test_operators_are_products_with_incidence_matrices(implementation):
    generator = torch.Generator().manual_seed(1)
    indptr, indices, edge_ids = random_graph(generator, 11, 9, 60)
    ends, starts = dense_incidence(indptr, indices, edge_ids, 11)
    x, v = random_bytes(generator, 11, 3, 5), random_bytes(generator, 9, 3, 5)
    e = random_bytes(generator, 60, 3)
    one = torch.tensor(1.0)
    options = {"implementation": implementation, "edge_ids": edge_ids}
    at_edges = torch.einsum("ne,nhd->ehd", starts, x.double())

    out, largest = kernels.spmm_copy_u(indptr, indices, x[:, 0], scale=one, implementation=implementation)
    assert torch.equal(out.double(), ends @ at_edges[:, 0])
    assert largest == out.abs().max()
    out = kernels.spmm_u_mul_e(indptr, indices, x, e, scale=one, **options)
    assert torch.equal(out.double(), torch.einsum("re,ehd,eh->rhd", ends, at_edges, e.double()))
    out = kernels.sddmm_u_dot_v(indptr, indices, x, v, scale=one, **options)
    assert torch.equal(out.double(), torch.einsum("ehd,re,rhd->eh", at_edges, ends, v.double()))
    out = kernels.sddmm_u_add_v(indptr, indices, x[..., 0], v[..., 0], u_scale=one, v_scale=one, **options)
    assert torch.equal(out.double(), at_edges[..., 0] + ends.T @ v[..., 0].double())
    out = kernels.edge_sum(indptr, e, scale=one, **options)
    assert torch.equal(out.double(), ends @ e.double())


def star(leaves):
    """One node with in-edges from itself, `leaves` times over, beside one without any."""
    return torch.tensor([0, leaves, leaves], dtype=torch.int32), torch.zeros(leaves, dtype=torch.int32)


@pytest.mark.parametrize("implementation", ["reference", *NATIVE])
@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("leaves", [255, 256, 257, 513])
def test_sixteen_bit_sums_do_not_overflow(implementation, value, leaves):
    indptr, indices = star(leaves)
    x = torch.full((1, 67), value, dtype=torch.int8)
    out, largest = kernels.spmm_copy_u(
        indptr, indices, x, scale=torch.tensor(1.0), implementation=implementation
    )
    assert (out[0] == value * leaves).all()
    assert (out[1] == 0).all()
    assert largest == abs(value * leaves)


@pytest.mark.parametrize("implementation", ["reference", *NATIVE])
@pytest.mark.parametrize("value", [-128, 127])
def test_sums_of_products_do_not_overflow(implementation, value):
    terms = 140_001
    one = torch.tensor(1.0)
    expected = float(value * value * terms)
    indptr, indices = star(terms)
    x = torch.full((1, 1, 3), value, dtype=torch.int8)
    e = torch.full((terms, 1), value, dtype=torch.int8)
    out = kernels.spmm_u_mul_e(indptr, indices, x, e, scale=one, implementation=implementation)
    assert torch.equal(out[0, 0], torch.full((3,), expected))
    long = torch.full((2, 1, terms), value, dtype=torch.int8)
    out = kernels.sddmm_u_dot_v(*star(1), long[:1], long, scale=one, implementation=implementation)
    assert torch.equal(out, torch.tensor([[expected]]))


@pytest.mark.skipif(not NATIVE, reason="the native kernels are not built")
@pytest.mark.parametrize("implementation", NATIVE)
def test_sums_of_features_do_not_overflow(implementation):
    leaves = 2**24 + 2**20
    x = torch.full((1, 3), -128, dtype=torch.int8)
    out, _ = kernels.spmm_copy_u(*star(leaves), x, scale=torch.tensor(1.0), implementation=implementation)
    assert torch.equal(out[0], torch.full((3,), -128.0 * leaves))


@pytest.mark.skipif(not NATIVE, reason="the native kernels are not built")
@pytest.mark.parametrize("implementation", NATIVE)
@pytest.mark.parametrize("width", [256, 264, 257])
def test_a_sum_too_large_for_a_cache_is_that_of_the_reference(implementation, width):
    generator = torch.Generator().manual_seed(7)
    indptr, indices, _ = random_graph(generator, 40, 4200, 6000)
    for x, scale in ((random_bytes(generator, 40, width), SCALE), (whole(generator, 40, width), None)):
        ours = kernels.spmm_copy_u(indptr, indices, x, scale=scale, implementation=implementation)
        expected = kernels.spmm_copy_u(indptr, indices, x, scale=scale, implementation="reference")
        assert torch.equal(ours[0], expected[0])
        assert torch.equal(ours[1], expected[1])


@pytest.mark.parametrize("implementation", NATIVE)
def test_the_number_of_threads_does_not_change_a_bit(implementation):
    generator = torch.Generator().manual_seed(5)
    indptr, indices, edge_ids = random_graph(generator, 300, 500, 20_000)
    x, v = torch.randn(300, 4, 10, generator=generator), torch.randn(500, 4, 10, generator=generator)
    e = torch.randn(20_000, 4, generator=generator)
    operations = [
        lambda: kernels.spmm_copy_u(indptr, indices, x.flatten(1), implementation=implementation),
        lambda: [
            kernels.spmm_u_mul_e(indptr, indices, x, e, edge_ids=edge_ids, implementation=implementation)
        ],
        lambda: [kernels.sddmm_u_dot_v(indptr, indices, x, v, implementation=implementation)],
        lambda: [kernels.edge_sum(indptr, e, implementation=implementation)],
        lambda: [
            kernels.edge_attention(indptr, indices, x[..., 0], v[..., 0], implementation=implementation)
        ],
    ]
    for operation in operations:
        torch.set_num_threads(1)
        alone = operation()
        for threads in (2, 3, 5):
            torch.set_num_threads(threads)
            for ours, expected in zip(operation(), alone, strict=True):
                assert torch.equal(ours, expected)


@pytest.mark.parametrize("implementation", ["reference", *NATIVE])
@pytest.mark.parametrize("width", [1, 7, 33, 130])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_place(implementation, width, bad):
    indptr, indices = torch.tensor([0, 1, 2, 4]), torch.tensor([0, 1, 2, 0])
    x = torch.ones(3, width)
    x[1] = bad
    out, largest = kernels.spmm_copy_u(indptr, indices, x, implementation=implementation)
    assert out.isfinite().all(1).tolist() == [True, False, True]
    torch.testing.assert_close(largest, torch.tensor(bad), equal_nan=True)
    u, e = x[:, None], torch.ones(4, 1)
    out = kernels.spmm_u_mul_e(indptr, indices, u, e, implementation=implementation)
    assert out.isfinite().all(2)[:, 0].tolist() == [True, False, True]
    v = torch.ones(3, 1, width)
    out = kernels.sddmm_u_dot_v(indptr, indices, u, v, implementation=implementation)
    assert out.isfinite()[:, 0].tolist() == [True, False, True, True]
    out = kernels.sddmm_u_dot_v(indptr, indices, v, u, implementation=implementation)
    assert out.isfinite()[:, 0].tolist() == [True, False, True, True]


@pytest.mark.parametrize("implementation", ["reference", *NATIVE])
def test_views_are_taken_as_they_are(implementation):
    generator = torch.Generator().manual_seed(8)
    indptr, indices, _ = random_graph(generator, 6, 5, 20, torch.int64)
    x = random_bytes(generator, 14, 6).mT[:, ::2]
    wide = torch.stack([indices, indices], 1)[:, 0]
    ours = kernels.spmm_copy_u(indptr, wide, x, scale=SCALE, implementation=implementation)
    expected = kernels.spmm_copy_u(indptr, indices, x.contiguous(), scale=SCALE, implementation="reference")
    for mine, theirs in zip(ours, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_double_precision_goes_to_the_reference():
    indptr, indices = star(3)
    x = torch.full((1, 2), 0.1, dtype=torch.float64)
    out, largest = kernels.spmm_copy_u(indptr, indices, x)
    assert out.dtype is largest.dtype is torch.float64
    torch.testing.assert_close(out[0], 3 * x[0])
    if NATIVE:
        with pytest.raises(SettingError, match="float64"):
            kernels.spmm_copy_u(indptr, indices, x, implementation="native")


attention_cases = st.fixed_dictionaries(
    shapes | {"slope": st.sampled_from([0.0, 0.2, 1.0]), "spread": st.sampled_from([0.1, 3.0, 1e4])}
)


@pytest.mark.skipif(not NATIVE, reason="the native kernels are not built")
@settings(max_examples=200, deadline=None)
@given(case=attention_cases)
def test_native_attention_agrees_with_the_reference(case):
    generator = torch.Generator().manual_seed(case["seed"])
    torch.set_num_threads(1)
    graph = random_graph(generator, case["sources"], case["rows"], case["edges"], case["index_type"])[:2]
    u = case["spread"] * torch.randn(case["sources"], case["heads"], generator=generator)
    v = case["spread"] * torch.randn(case["rows"], case["heads"], generator=generator)
    expected = kernels.edge_attention(*graph, u, v, slope=case["slope"], implementation="reference")
    gradient = torch.randn(expected.shape, generator=generator)

    def backward(implementation):
        return kernels.edge_attention_backward(
            *graph, u, v, expected, gradient, slope=case["slope"], implementation=implementation
        )

    wanted = backward("reference")
    implementation = case["implementation"]
    torch.set_num_threads(case["threads"])
    ours = kernels.edge_attention(*graph, u, v, slope=case["slope"], implementation=implementation)
    torch.testing.assert_close(ours, expected, rtol=2e-6, atol=1e-30)
    for mine, theirs in zip(backward(implementation), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["reference", *NATIVE])
def test_attention_of_a_destination_sums_to_one(implementation):
    generator = torch.Generator().manual_seed(9)
    indptr, indices, _ = random_graph(generator, 20, 30, 400)
    u, v = torch.randn(20, 3, generator=generator), torch.randn(30, 3, generator=generator)
    attention = kernels.edge_attention(indptr, indices, u, v, implementation=implementation)
    sums = kernels.edge_sum(indptr, attention, implementation=implementation)
    expected = (indptr.diff() > 0).float()[:, None].expand(30, 3)
    torch.testing.assert_close(sums, expected)


@pytest.mark.parametrize("implementation", ["reference", *NATIVE])
def test_attention_is_stable_and_keeps_what_is_not_finite(implementation):
    indptr, indices = torch.tensor([0, 2, 4, 6, 8]), torch.tensor([0, 1, 0, 2, 0, 3, 0, 4])
    u = torch.tensor([3e4, 3e4, -torch.inf, torch.inf, torch.nan])[:, None]
    attention = kernels.edge_attention(indptr, indices, u, torch.zeros(4, 1), implementation=implementation)
    assert attention[:4, 0].tolist() == [0.5, 0.5, 1.0, 0.0]
    assert attention[4:].isnan().all()


def test_gradients_of_attention_are_those_of_autograd():
    generator = torch.Generator().manual_seed(10)
    indptr, indices, _ = random_graph(generator, 12, 10, 70)
    order = torch.argsort(indices, stable=True).int()
    reversed_indptr = torch.cat([torch.zeros(1), torch.bincount(indices, minlength=12).cumsum(0)]).int()
    u = torch.randn(12, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    v = torch.randn(10, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    score = torch.nn.functional.leaky_relu(u[indices] + v[of_rows(indptr)], 0.2)
    parts = [torch.softmax(part, 0) for part in score.split(indptr.diff().tolist())]
    attention = torch.cat(parts)
    gradient = torch.randn(attention.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(attention, (u, v), gradient)
    leaves = u.detach(), v.detach()
    ours = kernels.edge_attention(indptr, indices, *leaves)
    torch.testing.assert_close(ours, attention.detach())
    d_score, d_v = kernels.edge_attention_backward(indptr, indices, *leaves, ours, gradient)
    d_u = kernels.edge_sum(reversed_indptr, d_score, edge_ids=order)
    torch.testing.assert_close((d_u, d_v), expected)


def _arguments(**changes):
    arguments = {
        "indptr": torch.tensor([0, 1, 3]),
        "indices": torch.tensor([2, 0, 1]),
        "x": torch.ones(3, 2, 4),
        "e": torch.ones(3, 2),
    }
    return arguments | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.ones(3, 4)}, r"x of shape \(n, H, D\)"),
        ({"e": torch.ones(3, 5)}, r"e of shape \(E, H\), with rows = 2, E = 3, n = 3, H = 2"),
        ({"e": torch.ones(4, 2)}, r"e of shape \(4, 2\)"),
        ({"x": torch.ones(3, 2, 4, dtype=torch.float64)}, "one floating-point type"),
        ({"x": torch.ones(3, 2, 4, dtype=torch.int32)}, "one floating-point type"),
        ({"x": torch.ones(3, 2, 4, dtype=torch.int8)}, "int8 values without scale"),
        ({"scale": SCALE}, "Leave scale out"),
        ({"e": torch.ones(3, 2, dtype=torch.int8), "scale": torch.ones(1)}, "0-dimensional"),
        ({"indices": torch.tensor([2, 0, 1], dtype=torch.int32)}, "int32 or torch.int64 for all"),
        ({"indptr": torch.tensor([0.0, 1.0, 3.0])}, "int32 or torch.int64 for all"),
        ({"indptr": torch.empty(0, dtype=torch.long)}, "one entry more"),
        ({"indices": torch.tensor([[2, 0, 1]])}, "1-D tensors"),
        ({"indptr": torch.tensor([0, 1, 2])}, "ends at 2"),
        ({"indptr": torch.tensor([1, 1, 3])}, "does not start at 0"),
        ({"indptr": torch.tensor([0, 4, 3])}, "never falls"),
        ({"indices": torch.tensor([3, 0, 1])}, "as high as 3"),
        ({"indices": torch.tensor([-1, 0, 1])}, "negative"),
        ({"edge_ids": torch.tensor([0, 1])}, "2 edge_ids"),
        ({"edge_ids": torch.tensor([0, 1, 1])}, "name one twice"),
        ({"edge_ids": torch.tensor([0, 1, 3])}, "each of the numbers from 0 to 2 once"),
        ({"e": torch.ones(3, 2, device="meta")}, "one device"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(SettingError, match=message):
        kernels.spmm_u_mul_e(**_arguments(**changes))


def test_an_index_tensor_may_play_two_parts():
    indptr = torch.tensor([0, 1, 2])
    same = torch.tensor([0, 1])
    kernels.spmm_u_mul_e(indptr, same, torch.ones(2, 1, 1), torch.ones(2, 1), edge_ids=same)
    kernels.spmm_u_mul_e(indptr, same, torch.ones(2, 1, 1), torch.ones(2, 1), edge_ids=same)


def test_dots_need_one_type():
    u, v = torch.ones(3, 1, 4), torch.ones(2, 1, 4, dtype=torch.int8)
    with pytest.raises(SettingError, match="one type for both"):
        kernels.sddmm_u_dot_v(torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1]), u, v, scale=SCALE)


def test_attention_refuses_quantised_scores():
    u, v = torch.ones(3, 1, dtype=torch.int8), torch.ones(2, 1)
    with pytest.raises(SettingError, match="are not quantised"):
        kernels.edge_attention(torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1]), u, v)
