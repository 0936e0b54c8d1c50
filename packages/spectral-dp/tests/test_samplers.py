from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from spectral_dp import (
    BlockCirculantLinear,
    DCTLowPass,
    FFTLowPass,
    Projection,
    PublicSubspace,
    SpectralGhostModule,
    _samplers,
)
from spectral_dp._samplers import NORM_SAMPLERS, fibres

SIZES = st.integers(1, 6)
KINDS = st.sampled_from(["none", "fft", "dct", "subspace"])


def per_sample_gradients(layer: nn.Module, x: Tensor, d: Tensor) -> dict[str, Tensor]:
    """By torch.func: a reference that shares nothing with the samplers."""

    def loss(parameters: dict[str, Tensor], sample: Tensor, direction: Tensor) -> Tensor:
        return (functional_call(layer, parameters, (sample[None],))[0] * direction).sum()

    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    return vmap(grad(loss), (None, 0, 0))(parameters, x, d)


def projection_of(kind: str, fibre: tuple[int, ...], ratio: float) -> Projection | None:
    if kind == "subspace":
        size = torch.Size(fibre).numel()
        rows = torch.linalg.qr(torch.randn(size, max(1, round(ratio * size)), dtype=torch.float64))[0].T
        return PublicSubspace(rows, "fixed")
    return {"none": None, "fft": FFTLowPass(ratio, fibre), "dct": DCTLowPass(ratio, fibre)}[kind]


def check(layer: nn.Module, x: Tensor, kind: str, ratio: float, fibre: int = 0) -> None:
    layer = layer.double()
    x = x.double()
    d = torch.randn_like(layer(x))
    shapes = fibres(layer)
    projection = projection_of(kind, shapes[fibre % len(shapes)], ratio)
    norms = NORM_SAMPLERS[type(layer)](layer, [x], d, projection)
    gradients = per_sample_gradients(layer, x, d)
    assert set(norms) == set(layer.parameters())
    for name, parameter in layer.named_parameters():
        expected = gradients[name]
        if name == "weight" and projection is not None:
            expected = projection(expected)
        torch.testing.assert_close(norms[parameter], expected.flatten(1).norm(dim=1), rtol=1e-5, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    inputs=SIZES,
    outputs=SIZES,
    positions=st.lists(SIZES, max_size=2),
    bias=st.booleans(),
    kind=KINDS,
    ratio=st.floats(0.1, 1),
    seed=st.integers(0, 9),
)
def test_linear_norms_are_those_of_materialised_gradients(
    inputs: int, outputs: int, positions: list[int], bias: bool, kind: str, ratio: float, seed: int
) -> None:
    torch.manual_seed(seed)
    check(nn.Linear(inputs, outputs, bias), torch.randn(3, *positions, inputs), kind, ratio)


@settings(max_examples=60, deadline=None)
@given(
    inputs=SIZES,
    outputs=SIZES,
    block=SIZES,
    positions=st.lists(SIZES, max_size=1),
    kind=KINDS,
    ratio=st.floats(0.1, 1),
    seed=st.integers(0, 9),
)
def test_circulant_norms_are_those_of_materialised_gradients(
    inputs: int, outputs: int, block: int, positions: list[int], kind: str, ratio: float, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = BlockCirculantLinear(inputs, outputs, min(block, max(inputs, outputs)))
    check(layer, torch.randn(3, *positions, inputs), kind, ratio)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), axes=st.integers(1, 2), kind=KINDS, ratio=st.floats(0.1, 1), seed=st.integers(0, 9))
def test_convolution_norms_are_those_of_materialised_gradients(
    data: st.DataObject, axes: int, kind: str, ratio: float, seed: int
) -> None:
    torch.manual_seed(seed)
    groups = data.draw(st.integers(1, 2))
    kernel = tuple(data.draw(st.integers(1, 3)) for _ in range(axes))
    padding = data.draw(st.sampled_from(["same", "valid", 0, 1, 2]))
    stride = 1 if padding == "same" else data.draw(st.integers(1, 2))
    layer = [nn.Conv1d, nn.Conv2d][axes - 1](
        groups * data.draw(st.integers(1, 2)),
        groups * data.draw(st.integers(1, 12)),
        kernel,
        stride=stride,
        padding=padding,
        dilation=data.draw(st.integers(1, 2)),
        groups=groups,
        bias=data.draw(st.booleans()),
    )
    image = [data.draw(st.integers(5, 7)) for _ in range(axes)]
    check(layer, torch.randn(2, layer.in_channels, *image), kind, ratio, data.draw(st.integers(0, 1)))


@settings(max_examples=30, deadline=None)
@given(inputs=SIZES, outputs=SIZES, block=SIZES, positions=st.lists(SIZES, max_size=2))
def test_circulant_per_sample_gradients_are_right(
    inputs: int, outputs: int, block: int, positions: list[int]
) -> None:
    layer = BlockCirculantLinear(inputs, outputs, min(block, max(inputs, outputs))).double()
    x = torch.randn(3, *positions, inputs, dtype=torch.float64)
    d = torch.randn_like(layer(x))
    ours = GradSampleModule.GRAD_SAMPLERS[BlockCirculantLinear](layer, [x], d)
    for name, expected in per_sample_gradients(layer, x, d).items():
        torch.testing.assert_close(ours[getattr(layer, name)], expected)


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.GroupNorm(2, 4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.Tanh(),
        BlockCirculantLinear(12, 5, 4),
    )


@pytest.mark.parametrize("batch", [5, 1, 0])
def test_a_model_without_filters_has_opacus_own_norms(batch: int) -> None:
    x, y = torch.randn(batch, 1, 8, 8), torch.randint(0, 5, (batch,))
    torch.manual_seed(0)
    norms = []
    plain = model()
    for wrap in (GradSampleModuleFastGradientClipping, SpectralGhostModule):
        options: dict[str, Any] = {} if wrap is GradSampleModuleFastGradientClipping else {"projections": {}}
        other = model()
        other.load_state_dict(plain.state_dict())
        ghost = wrap(other, loss_reduction="sum", **options)
        nn.functional.cross_entropy(ghost(x), y, reduction="sum").backward()
        norms.append(ghost.get_norm_sample())
    assert norms[0].shape == (batch,)
    torch.testing.assert_close(norms[1], norms[0], rtol=1e-5, atol=1e-6)


def test_opacus_own_samplers_are_left_alone() -> None:
    before = dict(GradSampleModuleFastGradientClipping.NORM_SAMPLERS)
    SpectralGhostModule(model(), projections={})
    assert dict(GradSampleModuleFastGradientClipping.NORM_SAMPLERS) == before
    assert nn.Conv2d not in before
    assert BlockCirculantLinear in before


def test_convolutions_do_not_form_gradients_when_gram_matrices_are_smaller() -> None:
    from spectral_dp._samplers import _outer_norms

    x = torch.zeros(1, 2, 4000).expand(64, 2, 4000)
    d = torch.ones(1, 2, 4000).expand(64, 2, 4000)
    # Gradients would take 64 * 4000 * 4000 * 4 bytes, 4 GB.
    with torch.profiler.profile(profile_memory=True) as profile:
        assert not _outer_norms(x, d, None).any()
    assert sum(max(0, event.self_cpu_memory_usage) for event in profile.events()) < 50e6


@pytest.mark.parametrize("projection", [None, DCTLowPass(0.5, (2, 3, 3)), FFTLowPass(0.7, (3, 3))])
@pytest.mark.parametrize("outputs", [4, 40])
def test_norms_of_a_few_convolved_samples_at_a_time_are_those_of_the_batch(
    monkeypatch: pytest.MonkeyPatch, projection: Projection | None, outputs: int
) -> None:
    layer = nn.Conv2d(4, outputs, 3, stride=2, groups=2)
    x = torch.randn(7, 4, 8, 8)
    d = torch.randn_like(layer(x))
    whole = NORM_SAMPLERS[nn.Conv2d](layer, [x], d, projection)
    for part in (1, 1000):
        monkeypatch.setattr(_samplers, "PART", part)
        norms = NORM_SAMPLERS[nn.Conv2d](layer, [x], d, projection)
        for parameter in layer.parameters():
            torch.testing.assert_close(norms[parameter], whole[parameter])


def test_memory_of_convolutions_norms_is_bounded() -> None:
    layer = nn.Conv2d(16, 16, 3, padding=1)
    x = torch.randn(128, 16, 28, 28)
    with torch.profiler.profile(profile_memory=True) as profile:
        NORM_SAMPLERS[nn.Conv2d](layer, [x], x, None)
    # The patches of the batch would take 9 times the memory of x, 58 MB.
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 4 * _samplers.PART
