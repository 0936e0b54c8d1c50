"""The operators against plain torch in float64, and their error against the bound of the rounding.

With |x - x^| <= s_x for every quantised operand (half of it to the nearest), an error of a sum of products is
at most the sum of s_x |y| + s_y |x| + s_x s_y over its terms.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tango_gnn import Graph, Policy, ops, quantize
from tenfold import SettingError, kernels

Tensors = tuple[torch.Tensor, ...]
NEAREST = Policy(rounding="nearest")
SLACK = 1e-4


@dataclass(frozen=True)
class Case:
    """An operator, plainly written, and the bounds of its result's and its gradients' errors.

    The bounds take the operands, the largest error of each, the gradient of the result and its error.
    """

    operator: Callable[..., torch.Tensor]
    plain: Callable[..., torch.Tensor]
    shapes: tuple[str, ...]
    bounds: Callable[..., Tensors]
    exact: frozenset[int] = frozenset()


def plain_linear(graph: Graph, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return x @ weight.T + bias


def linear_bounds(
    graph: Graph, operands: Tensors, steps: Tensors, dy: torch.Tensor, dy_step: float
) -> Tensors:
    x, weight, _ = (operand.abs() for operand in operands)
    dx, dw, _ = steps
    dy = dy.abs()
    ones = torch.ones_like
    return (
        dx * ones(x) @ weight.T + dw * x @ ones(weight).T + dx * dw * x.shape[1],
        dy_step * ones(dy) @ weight + dw * dy @ ones(weight) + dy_step * dw * dy.shape[1],
        dy_step * ones(dy).T @ x + dx * dy.T @ ones(x) + dy_step * dx * dy.shape[0],
        dy_step * ones(dy).sum(0),
    )


def plain_copy(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    z = x.new_zeros((graph.destinations, *x.shape[1:]))
    return z.index_add(0, graph.destination_of_edge, x[graph.indices])


def copy_bounds(graph: Graph, operands: Tensors, steps: Tensors, dz: torch.Tensor, dz_step: float) -> Tensors:
    return (
        steps[0] * graph.in_degrees[:, None].expand_as(dz),
        dz_step * graph.out_degrees[:, None].expand_as(operands[0]),
    )


def plain_mul(graph: Graph, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    z = x.new_zeros((graph.destinations, *x.shape[1:]))
    return z.index_add(0, graph.destination_of_edge, x[graph.indices] * e[:, :, None])


def mul_bounds(graph: Graph, operands: Tensors, steps: Tensors, dz: torch.Tensor, dz_step: float) -> Tensors:
    x, e = (operand.abs() for operand in operands)
    dx, de = steps
    x_at, dz_at = x[graph.indices], dz.abs()[graph.destination_of_edge]
    weight = e[:, :, None]
    forward = dx * weight + de * x_at + dx * de
    backward = dz_step * weight + de * dz_at + dz_step * de
    return (
        torch.zeros_like(dz).index_add(0, graph.destination_of_edge, forward),
        torch.zeros_like(x).index_add(0, graph.indices, backward),
        (dx * dz_at + dz_step * x_at + dx * dz_step).sum(2),
    )


def plain_dot(graph: Graph, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (u[graph.indices] * v[graph.destination_of_edge]).sum(2)


def dot_bounds(graph: Graph, operands: Tensors, steps: Tensors, de: torch.Tensor, de_step: float) -> Tensors:
    u, v = (operand.abs() for operand in operands)
    du, dv = steps
    u_at, v_at, de = u[graph.indices], v[graph.destination_of_edge], de.abs()[:, :, None]
    return (
        (du * v_at + dv * u_at + du * dv).sum(2),
        torch.zeros_like(u).index_add(0, graph.indices, dv * de + de_step * v_at + dv * de_step),
        torch.zeros_like(v).index_add(0, graph.destination_of_edge, du * de + de_step * u_at + du * de_step),
    )


def plain_add(graph: Graph, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return u[graph.indices] + v[graph.destination_of_edge]


def add_bounds(graph: Graph, operands: Tensors, steps: Tensors, de: torch.Tensor, de_step: float) -> Tensors:
    return (
        (steps[0] + steps[1]) * torch.ones_like(de),
        de_step * graph.out_degrees[:, None].expand_as(operands[0]),
        de_step * graph.in_degrees[:, None].expand_as(operands[1]),
    )


CASES = {
    "linear": Case(
        lambda graph, x, weight, bias, policy: ops.linear(x, weight, bias, policy=policy),
        plain_linear,
        ("n d", "o d", "o"),
        linear_bounds,
        exact=frozenset({2}),
    ),
    "copy_u_sum": Case(ops.copy_u_sum, plain_copy, ("s d",), copy_bounds),
    "u_mul_e_sum": Case(ops.u_mul_e_sum, plain_mul, ("s h d", "e h"), mul_bounds, exact=frozenset({1})),
    "u_mul_e_sum, int8 attention": Case(
        lambda *operands, policy: ops.u_mul_e_sum(*operands, policy=replace(policy, keep_attention=False)),
        plain_mul,
        ("s h d", "e h"),
        mul_bounds,
    ),
    "u_dot_v": Case(
        lambda *operands, policy: ops.u_dot_v(*operands, policy=replace(policy, keep_attention=False)),
        plain_dot,
        ("s h d", "t h d"),
        dot_bounds,
    ),
    "u_add_v": Case(
        lambda *operands, policy: ops.u_add_v(*operands, policy=replace(policy, keep_scores=False)),
        plain_add,
        ("s h", "t h"),
        add_bounds,
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
sizes = st.tuples(*(st.integers(1, most) for most in (6, 6, 3, 9, 5)), st.integers(0, 25))


def make(case: Case, size: tuple[int, ...], seed: int) -> tuple[Graph, Tensors]:
    generator = torch.Generator().manual_seed(seed)
    sources, destinations, heads, width, outputs, edges = size
    ends = (torch.randint(nodes, (edges,), generator=generator) for nodes in (sources, destinations))
    graph = Graph.from_edges(*ends, (sources, destinations))
    letters = {
        "s": sources,
        "t": destinations,
        "h": heads,
        "d": width,
        "o": outputs,
        "e": edges,
        "n": sources,
    }
    shapes = [[letters[letter] for letter in shape.split()] for shape in case.shapes]
    operands = tuple(
        (torch.randn(shape, generator=generator) * 10 ** float(torch.randn((), generator=generator)))
        for shape in shapes
    )
    return graph, operands


def run(operator: Callable[..., torch.Tensor], operands: Tensors, dy: torch.Tensor) -> Tensors:
    leaves = [operand.clone().requires_grad_() for operand in operands]
    y = operator(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))


def with_policy(case: Case, graph: Graph, policy: Policy) -> Callable[..., torch.Tensor]:
    return lambda *leaves: case.operator(graph, *leaves, policy=policy)


def gradient_like(case: Case, graph: Graph, operands: Tensors, seed: int) -> torch.Tensor:
    y = case.plain(graph, *operands)
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(seed + 1))


@every_case
@given(size=sizes, seed=st.integers(0, 2**32 - 1), rounding=st.sampled_from(["stochastic", "nearest"]))
@settings(max_examples=200, deadline=None)
def test_results_and_gradients_are_within_the_bound_of_the_rounding(
    case: Case, size: tuple[int, ...], seed: int, rounding: str
) -> None:
    graph, operands = make(case, size, seed)
    dy = gradient_like(case, graph, operands, seed)
    policy = Policy(rounding=rounding, generator=torch.Generator().manual_seed(seed))
    ours = run(with_policy(case, graph, policy), operands, dy)
    exact = run(lambda *leaves: case.plain(graph, *leaves), tuple(o.double() for o in operands), dy)

    def step(tensor: torch.Tensor) -> float:
        peak = float(tensor.abs().max()) if tensor.numel() else 0.0
        return peak / 127 * (0.5 if rounding == "nearest" else 1.0)

    steps = tuple(0.0 if i in case.exact else step(operand) for i, operand in enumerate(operands))
    bounds = case.bounds(graph, operands, steps, dy, step(dy))
    for found, expected, bound in zip(ours, exact, bounds, strict=True):
        size_of_terms = expected.abs().max() if expected.numel() else 0
        assert ((found - expected).abs() <= bound * (1 + SLACK) + SLACK * size_of_terms + 1e-6).all()


@every_case
@given(size=sizes, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_results_and_gradients_are_exactly_those_of_the_rounded_operands(
    case: Case, size: tuple[int, ...], seed: int
) -> None:
    graph, operands = make(case, size, seed)
    dy = gradient_like(case, graph, operands, seed)
    ours = run(with_policy(case, graph, NEAREST), operands, dy)

    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        return quantize(tensor, NEAREST).dequantize().double()

    integers = tuple(o.double() if i in case.exact else rounded(o) for i, o in enumerate(operands))
    expected = run(lambda *leaves: case.plain(graph, *leaves), integers, rounded(dy))
    for one, other in zip(ours, expected, strict=True):
        size_of_terms = max([float(t.abs().max()) for t in (*operands, dy, other) if t.numel()], default=0)
        torch.testing.assert_close(
            one.double(), other, rtol=1e-5, atol=1e-5 * max(size_of_terms, size_of_terms**2)
        )


@every_case
def test_without_a_policy_they_are_float32(case: Case) -> None:
    graph, operands = make(case, (6, 5, 3, 7, 4, 20), 0)
    dy = gradient_like(case, graph, operands, 0)
    ours = run(with_policy(case, graph, Policy.off()), operands, dy)
    expected = run(lambda *leaves: case.plain(graph, *leaves), tuple(o.double() for o in operands), dy)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-4)


@every_case
@pytest.mark.parametrize("implementation", [f"native:{name}" for name in kernels.instruction_sets()])
def test_every_implementation_computes_the_same(case: Case, implementation: str) -> None:
    graph, operands = make(case, (6, 5, 3, 9, 4, 25), 3)
    dy = gradient_like(case, graph, operands, 3)

    def under(name: str) -> Tensors:
        policy = Policy(generator=torch.Generator().manual_seed(0))
        with kernels.use(name):
            return run(with_policy(case, graph, policy), operands, dy)

    for one, other in zip(under(implementation), under("reference"), strict=True):
        torch.testing.assert_close(one, other)


@every_case
def test_zeros_give_zeros(case: Case) -> None:
    graph, operands = make(case, (6, 5, 3, 7, 4, 20), 0)
    zeros = tuple(torch.zeros_like(operand) for operand in operands)
    dy = gradient_like(case, graph, operands, 0)
    y, *gradients = run(with_policy(case, graph, Policy()), zeros, dy)
    assert not y.any()
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_case
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(case: Case, value: float) -> None:
    graph, (first, *others) = make(case, (6, 5, 3, 7, 4, 20), 0)
    first.view(-1)[0] = value
    with pytest.raises(SettingError, match="with NaN or infinite values"):
        case.operator(graph, first, *others, policy=Policy())


@every_case
def test_a_gradient_that_is_not_finite_makes_the_gradients_nan(case: Case) -> None:
    graph, operands = make(case, (6, 5, 3, 7, 4, 20), 0)
    dy = gradient_like(case, graph, operands, 0)
    dy.view(-1)[0] = float("nan")
    _, first, *_ = run(with_policy(case, graph, Policy()), operands, dy)
    assert first.isnan().any()


@every_case
def test_other_layouts_are_taken_and_other_types_refused(case: Case) -> None:
    graph, operands = make(case, (6, 5, 3, 7, 4, 20), 0)
    strided = tuple(torch.stack([operand, operand], -1)[..., 0] for operand in operands)
    assert not strided[0].is_contiguous()
    dy = gradient_like(case, graph, operands, 0)
    found = run(with_policy(case, graph, NEAREST), strided, torch.stack([dy, dy], -1)[..., 0])
    for one, other in zip(found, run(with_policy(case, graph, NEAREST), operands, dy), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(SettingError, match=r"torch\.float64"):
        case.operator(graph, *(operand.double() for operand in operands), policy=Policy())


@every_case
def test_shapes_that_do_not_fit_the_graph_are_refused(case: Case) -> None:
    graph, (first, *others) = make(case, (6, 5, 3, 7, 4, 20), 0)
    wrong = first[:, :-1] if case is CASES["linear"] else first[:-1]
    with pytest.raises(SettingError, match="shape"):
        case.operator(graph, wrong, *others, policy=Policy())


def test_norms_scale_sources_and_destinations_and_their_gradients() -> None:
    graph, (x,) = make(CASES["copy_u_sum"], (6, 5, 3, 7, 4, 20), 0)
    left, right = torch.rand(6) + 0.1, torch.rand(5) + 0.1
    dy = torch.randn(5, 7)
    for policy, tolerance in (
        (Policy.off(), 1e-5),
        (NEAREST, 0.05),
        (replace(NEAREST, keep_norms=False), 0.1),
    ):
        operator = partial(ops.copy_u_sum, graph, policy=policy, source_scale=left, destination_scale=right)
        found = run(operator, (x,), dy)
        expected = run(lambda x: plain_copy(graph, x * left[:, None]) * right[:, None], (x,), dy)
        for one, other in zip(found, expected, strict=True):
            assert (one - other).norm() <= tolerance * other.norm()
            assert (one - other).norm() > 0 or not policy.quantizes


@pytest.mark.parametrize("policy", [Policy.off(), NEAREST, replace(NEAREST, reuse=False)], ids=str)
def test_a_fused_relu_is_a_relu(policy: Policy) -> None:
    _, operands = make(CASES["linear"], (6, 5, 3, 7, 4, 20), 0)
    y = ops.linear(*operands, policy=policy)
    dy = torch.randn(y.shape)
    fused = run(lambda *leaves: ops.linear(*leaves, policy=policy, relu=True), operands, dy)
    apart = run(lambda *leaves: ops.linear(*leaves, policy=policy), operands, dy * (y > 0))
    torch.testing.assert_close(fused[0], y.relu())
    for one, other in zip(fused[1:], apart[1:], strict=True):
        torch.testing.assert_close(one, other)


def test_more_dimensions_are_more_rows_or_columns() -> None:
    graph, (x,) = make(CASES["copy_u_sum"], (6, 5, 3, 8, 4, 20), 0)
    deep = ops.copy_u_sum(graph, x.view(6, 2, 4), policy=NEAREST)
    torch.testing.assert_close(deep.view(5, 8), ops.copy_u_sum(graph, x, policy=NEAREST))
    weight = torch.randn(3, 4)
    rows = ops.linear(x.view(12, 4), weight, policy=NEAREST)
    torch.testing.assert_close(ops.linear(x.view(6, 2, 4), weight, policy=NEAREST).view(12, 3), rows)


@pytest.mark.parametrize("policy", [Policy.off(), NEAREST, replace(NEAREST, keep_scores=False)], ids=str)
def test_attention_is_a_softmax_of_the_scores(policy: Policy) -> None:
    graph, operands = make(CASES["u_add_v"], (6, 5, 3, 7, 4, 20), 0)
    operands = tuple(operand / operand.abs().max() for operand in operands)

    def plain(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.nn.functional.leaky_relu(plain_add(graph, u, v), 0.2).exp()
        total = torch.zeros(5, 3, dtype=scores.dtype).index_add(0, graph.destination_of_edge, scores)
        return scores / total[graph.destination_of_edge]

    dy = torch.randn(20, 3)
    found = run(lambda u, v: ops.edge_attention(graph, u, v, policy=policy), operands, dy)
    expected = run(plain, operands, dy)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= (0.1 if not policy.keep_scores else 1e-5) * other.norm()
    scores = plain_add(graph, *operands)
    found = run(lambda scores: ops.edge_softmax(graph, scores), (scores,), dy)
    expected = run(lambda scores: plain_softmax(graph, scores), (scores,), dy)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "policy",
    [
        Policy.off(),
        NEAREST,
        replace(NEAREST, keep_scores=False),
        replace(NEAREST, keep_attention=False),
        replace(NEAREST, reuse=False),
    ],
    ids=str,
)
def test_attention_need_not_be_kept_for_its_sum(policy: Policy) -> None:
    graph, (x, _) = make(CASES["u_mul_e_sum"], (6, 5, 3, 7, 4, 20), 0)
    _, scores = make(CASES["u_add_v"], (6, 5, 3, 7, 4, 20), 0)

    def apart(x: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        a = ops.edge_attention(graph, u, v, policy=policy)
        return ops.u_mul_e_sum(graph, x, a, policy=policy)

    dy = torch.randn(5, 3, 7)
    in_one = partial(ops.attention_sum, graph, policy=policy)
    for one, other in zip(run(in_one, (x, *scores), dy), run(apart, (x, *scores), dy), strict=True):
        assert torch.equal(one, other)


def plain_softmax(graph: Graph, scores: torch.Tensor) -> torch.Tensor:
    rows = [scores[graph.indptr[i] : graph.indptr[i + 1]].softmax(0) for i in range(graph.destinations)]
    return torch.cat(rows)


def test_values_of_edges_are_summed() -> None:
    graph, (_, e) = make(CASES["u_mul_e_sum"], (6, 5, 3, 7, 4, 20), 0)
    dy = torch.randn(5, 3)
    found = run(lambda e: ops.copy_e_sum(graph, e), (e,), dy)
    expected = run(lambda e: torch.zeros(5, 3).index_add(0, graph.destination_of_edge, e), (e,), dy)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_more_than_int32_holds_is_summed_in_parts() -> None:
    rows = 140_000
    x = torch.ones(rows, 1).requires_grad_()
    weight = torch.ones(1, 1).requires_grad_()
    ops.linear(x, weight, policy=NEAREST).backward(torch.ones(rows, 1))
    assert weight.grad is not None
    assert float(weight.grad) == pytest.approx(rows, rel=1e-6)
    star = Graph.from_edges(torch.arange(rows), torch.zeros(rows, dtype=torch.int64), (rows, 1))
    policy = replace(NEAREST, keep_attention=False)
    total = ops.u_mul_e_sum(star, torch.ones(rows, 1, 1), torch.ones(rows, 1), policy=policy)
    assert float(total) == pytest.approx(rows, rel=1e-6)


@pytest.mark.parametrize("policy", [Policy.off(), NEAREST, replace(NEAREST, reuse=False)], ids=str)
def test_features_are_scored_head_by_head(policy: Policy) -> None:
    f = torch.randn(5000, 3, 7)
    vectors = torch.randn(2, 3, 7)
    dy = torch.randn(5000, 2, 3)
    found = run(lambda f, vectors: ops.head_dot(f, vectors, policy=policy), (f, vectors), dy)
    expected = run(lambda f, vectors: torch.einsum("nhd,khd->nkh", f, vectors), (f, vectors), dy)
    for one, other in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    step = float(f.abs().max()) / 254 if policy.quantizes else 0
    assert ((found[2] - expected[2]).abs() <= step * dy.abs().sum(0)[:, :, None] + 1e-3).all()
    with pytest.raises(SettingError, match="the same heads and width"):
        ops.head_dot(f, vectors[:, :2], policy=policy)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("policy", [Policy.off(), NEAREST, replace(NEAREST, reuse=False)], ids=str)
def test_a_convolution_is_a_linear_layer_of_a_sum(policy: Policy, relu: bool) -> None:
    graph, (x,) = make(CASES["copy_u_sum"], (40, 30, 1, 9, 1, 25), 0)
    _, (_, weight, bias) = make(CASES["linear"], (40, 30, 1, 9, 7, 25), 0)
    scales = {"source_scale": torch.rand(40) + 0.1, "destination_scale": torch.rand(30) + 0.1}

    def apart(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        z = ops.copy_u_sum(graph, x, policy=policy, **scales)
        return ops.linear(z, weight, bias, policy=policy, relu=relu)

    dy = torch.randn(30, 7)
    at_once = partial(ops.convolution, graph, policy=policy, relu=relu, **scales)
    found, expected = run(at_once, (x, weight, bias), dy), run(apart, (x, weight, bias), dy)
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(one, other)
    # The norm of destinations is applied before or after the rounding of the gradient.
    assert (found[1] - expected[1]).norm() <= 0.02 * expected[1].norm()
