"""Sparse layers against the masked dense layer: outputs, gradients, state, any pattern and shape."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slr_prune import BlockSparseLinear, GatheredLayer, SparseLayer, SparseLinear, get_structure
from tenfold import SettingError, kernels

SEEDS = st.integers(0, 10_000)
SIZES = st.integers(1, 40)
KEPT = st.sampled_from([0.0, 0.05, 0.5, 1.0])
CONVOLUTIONS = [(nn.Conv1d, (9,)), (nn.Conv2d, (7, 6)), (nn.Conv3d, (5, 4, 4))]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked_linear(
    in_features: int, out_features: int, kept: float, seed: int, bias: bool = True
) -> nn.Linear:
    generator = seeded(seed)
    layer = nn.Linear(in_features, out_features, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
        layer.weight.mul_(torch.rand(layer.weight.shape, generator=generator) < kept)
    return layer


def sliced(layer: nn.Module, seed: int) -> nn.Module:
    """Draw a layer's parameters; set some of its rows and input channels to zero, all beyond the 16th."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
        for dim in (0, 1):
            kept = torch.rand(layer.weight.shape[dim], generator=generator) < 0.6
            kept[16:] = False
            layer.weight.mul_(kept.view([-1 if each == dim else 1 for each in range(layer.weight.dim())]))
    return layer


def assert_same(sparse: SparseLayer, dense: nn.Module, x: Tensor) -> None:
    """Same output; same gradients of input and bias, and of the weight at the kept places."""
    x = x.detach()
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [sparse(inputs[0]), dense(inputs[1])]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    direction = torch.randn(outputs[1].shape, generator=seeded(0), dtype=x.dtype)
    for layer, output in zip((sparse, dense), outputs, strict=True):
        layer.zero_grad()
        (output * direction).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sparse.kept.grad, sparse.entries(dense.weight.grad), rtol=1e-5, atol=1e-4)
    if dense.bias is not None:
        torch.testing.assert_close(sparse.bias.grad, dense.bias.grad, rtol=1e-5, atol=1e-4)
    assert torch.equal(sparse.weight, dense.weight)


@given(SIZES, SIZES, st.integers(0, 5), KEPT, st.booleans(), SEEDS)
@settings(max_examples=40, deadline=None)
def test_csr(in_features: int, out_features: int, batch: int, kept: float, bias: bool, seed: int) -> None:
    dense = masked_linear(in_features, out_features, kept, seed, bias)
    assert_same(
        SparseLinear.from_dense(dense), dense, torch.randn(batch, in_features, generator=seeded(seed))
    )


@given(SIZES, SIZES, st.integers(0, 5), st.tuples(SIZES, SIZES), KEPT, st.booleans(), SEEDS)
@settings(max_examples=40, deadline=None)
def test_bsr_of_any_block_size(  # type: ignore[no-untyped-def]
    in_features: int, out_features: int, batch: int, block, kept: float, bias: bool, seed: int
) -> None:
    dense = masked_linear(in_features, out_features, 1.0, seed, bias)
    if kept:
        structure = get_structure(f"block:{block[0]}x{block[1]}")
        with torch.no_grad():
            dense.weight.mul_(structure(dense.weight, min(1 - kept, 0.95) or 0.01))
    else:
        nn.init.zeros_(dense.weight)
    sparse = BlockSparseLinear.from_dense(dense, block)
    assert len(sparse.values) <= -(-in_features // block[1]) * -(-out_features // block[0])
    if not kept:
        assert len(sparse.values) == 0
    x = torch.randn(batch, in_features, generator=seeded(seed))
    assert_same(sparse, dense, x)


@given(SIZES, SIZES, st.booleans(), SEEDS)
@settings(max_examples=30, deadline=None)
def test_gathered_linear(in_features: int, out_features: int, bias: bool, seed: int) -> None:
    dense = sliced(nn.Linear(in_features, out_features, bias=bias), seed)
    sparse = GatheredLayer.from_dense(dense)
    assert sparse.kept.numel() == max(1, int(dense.weight.count_nonzero()))
    assert_same(sparse, dense, torch.randn(3, in_features, generator=seeded(seed)))


@pytest.mark.parametrize(("kind", "size"), CONVOLUTIONS)
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@given(st.integers(1, 6), st.integers(1, 6), st.booleans(), SEEDS)
@settings(max_examples=8, deadline=None)
def test_gathered_convolution(  # type: ignore[no-untyped-def]
    kind, size, padding_mode: str, in_channels: int, out_channels: int, bias: bool, seed: int
) -> None:
    dense = sliced(
        kind(in_channels, out_channels, 3, 2, padding=1, bias=bias, padding_mode=padding_mode), seed
    )
    sparse = GatheredLayer.from_dense(dense)
    x = torch.randn(2, in_channels, *size, generator=seeded(seed))
    assert_same(sparse, dense, x)
    torch.testing.assert_close(sparse(x[0]), dense(x[0]))


def each_form(dtype: torch.dtype = torch.float32) -> list[tuple[SparseLayer, nn.Linear]]:
    dense = sliced(nn.Linear(37, 21, dtype=dtype), 3)
    return [
        (make(dense), dense)
        for make in (SparseLinear.from_dense, BlockSparseLinear.from_dense, GatheredLayer.from_dense)
    ]


@pytest.mark.parametrize("shape", [(37,), (2, 3, 37), (0, 37), (2, 0, 37), (1, 2, 3, 37)])
def test_any_number_of_leading_dimensions(shape: tuple[int, ...]) -> None:
    for sparse, dense in each_form():
        assert_same(sparse, dense, torch.randn(shape, generator=seeded(1)))


def test_inputs_that_are_not_contiguous() -> None:
    wide = torch.randn(37, 2, 10, generator=seeded(1))
    for sparse, dense in each_form():
        for x in (wide[:, 0].T, wide.permute(2, 1, 0), wide[:, 1, ::2].T):
            torch.testing.assert_close(sparse(x), dense(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", ["reference", "native", "native:portable"])
def test_every_kernel_implementation(implementation: str) -> None:
    if implementation != "reference" and not kernels.instruction_sets():
        pytest.skip("the native kernels are not built")
    x = torch.randn(4, 37, generator=seeded(1))
    for sparse, dense in each_form():
        with kernels.use(implementation):
            assert_same(sparse, dense, x)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 0.1), (torch.float16, 0.02)]
)
def test_other_float_types(dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randn(4, 37, generator=seeded(1), dtype=torch.float64).to(dtype)
    for sparse, dense in each_form(dtype):
        assert sparse.kept.dtype == dtype
        torch.testing.assert_close(sparse(x), dense(x), rtol=tolerance, atol=tolerance)


def test_a_type_other_than_the_weights_is_refused() -> None:
    for sparse, _ in each_form()[:2]:
        with pytest.raises(SettingError, match=r"torch\.float32 and dense of torch\.float64"):
            sparse(torch.randn(4, 37, dtype=torch.float64))


def test_conversion_of_a_sparse_layer_keeps_its_indices_integers() -> None:
    x = torch.randn(4, 37, generator=seeded(1), dtype=torch.float64)
    for sparse, dense in each_form():
        torch.testing.assert_close(sparse.double()(x), copy.deepcopy(dense).double()(x))


@pytest.mark.parametrize("shape", [(), (36,), (4, 38), (37, 4)])
def test_inputs_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    for sparse, _ in each_form():
        with pytest.raises(SettingError, match="37"):
            sparse(torch.zeros(shape))


def test_copies_pickles_and_state_dicts() -> None:
    x = torch.randn(4, 37, generator=seeded(1))
    for sparse, dense in each_form():
        expected = sparse(x)
        assert torch.equal(copy.deepcopy(sparse)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(sparse))(x), expected)
        other = copy.deepcopy(sparse)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        other.load_state_dict(sparse.state_dict())
        assert torch.equal(other(x), expected)
        assert torch.equal(sparse.to_dense().weight, dense.weight)
        torch.testing.assert_close(sparse.to_dense()(x), dense(x))


def test_the_original_layer_is_not_touched() -> None:
    for sparse, dense in each_form():
        before = copy.deepcopy(dense.state_dict())
        with torch.no_grad():
            for parameter in sparse.parameters():
                parameter.add_(1)
        for name, tensor in dense.state_dict().items():
            assert torch.equal(tensor, before[name])


def test_frozen_weights_stay_frozen() -> None:
    dense = masked_linear(37, 21, 0.2, 0)
    dense.weight.requires_grad_(False)
    for make in (SparseLinear.from_dense, BlockSparseLinear.from_dense, GatheredLayer.from_dense):
        sparse = make(dense)
        assert not sparse.kept.requires_grad
        assert sparse.bias.requires_grad
        assert not sparse.to_dense().weight.requires_grad


def test_the_whole_weight_is_differentiable() -> None:
    for sparse, dense in each_form():
        direction = torch.randn(dense.weight.shape, generator=seeded(2))
        sparse.zero_grad()
        (sparse.weight * direction).sum().backward()
        assert torch.equal(sparse.kept.grad, sparse.entries(direction))


def test_training_keeps_the_zeros_and_follows_masked_training() -> None:
    x, y = torch.randn(64, 37, generator=seeded(1)), torch.randn(64, 21, generator=seeded(2))
    for sparse, dense in each_form():
        masked = copy.deepcopy(dense)
        mask = sparse.weight != 0
        if isinstance(sparse, BlockSparseLinear):
            ones = copy.deepcopy(sparse)
            nn.init.ones_(ones.values)
            mask = ones.weight != 0
        optimizers = [torch.optim.Adam(model.parameters(), 0.01) for model in (sparse, masked)]
        for _ in range(5):
            for model, optimizer in zip((sparse, masked), optimizers, strict=True):
                optimizer.zero_grad()
                (model(x) - y).square().mean().backward()
                optimizer.step()
            with torch.no_grad():
                masked.weight.mul_(mask)
        torch.testing.assert_close(sparse.weight, masked.weight, rtol=1e-4, atol=1e-4)
        assert not torch.equal(sparse.weight, dense.weight)


def test_weights_are_loaded_where_they_fit() -> None:
    for sparse, dense in each_form():
        sparse.load_weight(2 * dense.weight)
        assert torch.equal(sparse.weight, 2 * dense.weight)
        with pytest.raises(SettingError, match="not zero where this layer keeps nothing"):
            sparse.load_weight(torch.ones(21, 37))
        with pytest.raises(SettingError, match=r"shape \(37, 21\); expected shape \(21, 37\)"):
            sparse.load_weight(torch.zeros(37, 21))
        assert torch.equal(sparse.weight, 2 * dense.weight)


def test_grouped_convolutions_are_refused() -> None:
    with pytest.raises(SettingError, match="4 groups"):
        GatheredLayer.from_dense(nn.Conv2d(8, 8, 3, groups=4))


def test_gathered_layers_export_with_an_open_batch() -> None:
    dense = sliced(nn.Conv2d(6, 8, 3), 1)
    sparse = GatheredLayer.from_dense(dense)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(sparse, (torch.randn(2, 6, 5, 5),), dynamic_shapes=shapes).module()
    x = torch.randn(7, 6, 5, 5, generator=seeded(1))
    torch.testing.assert_close(program(x), dense(x))


@pytest.mark.parametrize("kind", [SparseLinear, BlockSparseLinear])
def test_torch_compile_takes_them_in_one_graph(kind: type[SparseLayer]) -> None:
    dense = masked_linear(24, 16, 0.3, seed=0)
    sparse = kind.from_dense(dense)
    compiled = torch.compile(nn.Sequential(sparse, nn.ReLU()), backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 24, generator=seeded(1))
    torch.testing.assert_close(compiled(x), dense(x).relu())
    compiled(x).sum().backward()
    dense(x).relu().sum().backward()
    torch.testing.assert_close(sparse.kept.grad, sparse.entries(dense.weight.grad))
