import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tango_gnn import Graph, Policy, nn, ops, quantize
from tenfold import kernels

NEAREST = Policy(rounding="nearest")


@pytest.fixture
def quantised(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the tensors that are quantised meanwhile."""
    shapes: list[tuple[int, ...]] = []
    genuine = kernels.quantize

    def counted(x: torch.Tensor, *arguments: object, **keywords: object) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return genuine(x, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(kernels, "quantize", counted)
    return shapes


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the tensors whose largest magnitude is looked for meanwhile."""
    shapes: list[tuple[int, ...]] = []
    genuine = kernels.absmax

    def counted(x: torch.Tensor, **keywords: torch.Tensor | None) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return genuine(x, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(kernels, "absmax", counted)
    return shapes


def ring(nodes: int) -> Graph:
    return Graph.from_edges(torch.arange(nodes), (torch.arange(nodes) + 1) % nodes)


def test_a_tensor_is_quantised_once_for_all_operators_and_steps(quantised: list) -> None:
    x = torch.randn(5, 8)
    layer = nn.SAGEConv(8, 8, "mean", policy=NEAREST)
    for _ in range(3):
        layer(ring(5), x).sum().backward()
    assert quantised.count((5, 8)) == 1 + 3 * (1 + 2)  # x; in each step the sums, and two gradients

    quantised.clear()
    layer.policy = Policy(rounding="nearest", reuse=False)
    layer(ring(5), x).sum().backward()
    # x for two operators and one of its gradients, the sums twice, and two gradients.
    assert quantised.count((5, 8)) == 2 + 1 + 2 + 2


def test_a_tensor_that_was_changed_is_quantised_anew(quantised: list) -> None:
    x = torch.ones(2, 3)
    assert quantize(x, NEAREST) is quantize(x, NEAREST)
    assert quantize(x.view(3, 2), NEAREST).values.shape == (3, 2)
    x.mul_(2)
    assert torch.equal(quantize(x, NEAREST).dequantize(), x)
    assert quantize(x, Policy(bits=4, rounding="nearest")).levels == 7
    scales = torch.tensor([1.0, 2.0])
    assert quantize(x, NEAREST, row_scale=scales) is quantize(x, NEAREST, row_scale=scales)
    torch.testing.assert_close(
        quantize(x, NEAREST, row_scale=scales).dequantize(), x * scales[:, None], rtol=0, atol=4 / 127 / 2
    )
    assert len(quantised) == 5


def test_one_norm_is_remembered_at_a_time(quantised: list) -> None:
    x = torch.randn(4, 3)
    norms = torch.ones(4), torch.full((4,), 2.0)
    values = [quantize(x, NEAREST, row_scale=norms[i]).dequantize() for i in (0, 0, 1, 1, 0)]
    assert len(quantised) == 3
    torch.testing.assert_close(values[2], 2 * values[0])
    assert torch.equal(values[4], values[0])


def test_scales_come_from_the_operators_that_made_the_tensors(searched: list) -> None:
    graph = ring(7)
    x = torch.randn(7, 4, requires_grad=True)
    hidden = ops.linear(x, torch.randn(5, 4), policy=NEAREST)
    sums = ops.copy_u_sum(graph, hidden, policy=NEAREST)
    again = ops.linear(sums, torch.randn(6, 5), policy=NEAREST)
    again.square().sum().backward()
    # Only x, the two weights and the first gradient have to be searched.
    assert sorted(searched) == sorted([(7, 4), (5, 4), (6, 5), (7, 6)])


def test_a_view_shares_what_is_known_of_its_base(searched: list) -> None:
    y = ops.linear(torch.randn(6, 3), torch.randn(8, 3, requires_grad=True), policy=NEAREST)
    searched.clear()
    ops.u_mul_e_sum(ring(6), y.unflatten(-1, (2, 4)), torch.ones(6, 2), policy=NEAREST)
    assert searched == []


def test_remembered_scales_are_the_largest_magnitudes() -> None:
    y = ops.linear(torch.randn(6, 3), torch.randn(8, 3), torch.randn(8), policy=NEAREST, relu=True)
    assert quantize(y, NEAREST).scale * 127 == pytest.approx(float(y.abs().max()))


def test_data_is_rounded_to_the_nearest_and_activations_at_random() -> None:
    x = torch.full((50, 10), 0.3)
    x[0, 0] = 1.0
    data, activation = quantize(x, Policy()), quantize(x.clone().requires_grad_(), Policy())
    assert len(data.values.unique()) == 2
    assert len(activation.values.unique()) == 3


def test_what_is_kept_for_the_gradient_is_int8_and_bits() -> None:
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    graph = ring(100)
    layer = nn.GraphConv(64, 64, activation=torch.relu)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(graph, torch.randn(100, 64, requires_grad=True))
    bytes_of_nodes = sorted(tensor.nbytes for tensor in kept if tensor.nbytes > 100)
    assert bytes_of_nodes == [100 * 64 // 8, 64 * 64, 100 * 64]  # where the ReLU passes, the weight, the sums


def test_a_seed_gives_the_same_step_again_and_another_does_not() -> None:
    graph, x, weight = ring(20), torch.randn(20, 8), torch.randn(4, 8)

    def gradient(seed: int) -> torch.Tensor:
        policy = Policy(generator=torch.Generator().manual_seed(seed))
        w = weight.clone().requires_grad_()
        ops.copy_u_sum(graph, ops.linear(x, w, policy=policy), policy=policy).square().sum().backward()
        assert w.grad is not None
        return w.grad

    assert torch.equal(gradient(0), gradient(0))
    assert not torch.equal(gradient(0), gradient(1))
