import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from spectral_dp import (
    DCTLowPass,
    FFTLowPass,
    Projection,
    SpectralConv2d,
    SpectralDPOptimizer,
    SpectralPrivacyEngine,
    convert_to_spectral_conv,
    to_spectral_conv,
)
from spectral_dp._mechanism import Order
from spectral_dp._samplers import spectral_conv_grad_sample, spectral_conv_norm_sample
from spectral_dp.audit import check_clipping, single_step_audit
from tenfold import SettingError

SMALL = st.integers(1, 3)


def layer_and_input(
    inputs: int, outputs: int, kernel: tuple[int, int], padding: int, bias: bool
) -> tuple[nn.Conv2d, SpectralConv2d, Tensor]:
    image = (kernel[0] + 2, kernel[1] + 1)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=bias).double()
    x = torch.randn(3, inputs, *image, dtype=torch.float64, requires_grad=True)
    return conv, to_spectral_conv(conv, image), x


LAYERS = given(
    inputs=SMALL, outputs=SMALL, kernel=st.tuples(SMALL, SMALL), padding=st.integers(0, 2), bias=st.booleans()
)


@settings(max_examples=40, deadline=None)
@LAYERS
def test_it_is_a_convolution_whose_weight_has_the_gradient_of_every_lag(
    inputs: int, outputs: int, kernel: tuple[int, int], padding: int, bias: bool
) -> None:
    conv, spectral, x = layer_and_input(inputs, outputs, kernel, padding, bias)
    y = spectral(x)
    torch.testing.assert_close(y, conv(x))
    d = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, spectral.weight), d)
    expected = torch.autograd.grad(conv(x), (x, conv.weight), d)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1][..., : kernel[0], : kernel[1]], expected[1])

    padded = nn.functional.pad(x.detach(), (padding,) * 4)
    lags = [padded.shape[2 + axis] + y.shape[2 + axis] - 1 for axis in (0, 1)]
    assert spectral.lags == tuple(lags)
    for row in range(1 - y.shape[2], padded.shape[2]):
        for column in range(1 - y.shape[3], padded.shape[3]):
            total = torch.zeros(outputs, inputs, dtype=torch.float64)
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    if 0 <= i + row < padded.shape[2] and 0 <= j + column < padded.shape[3]:
                        total += torch.einsum("no,ni->oi", d[..., i, j], padded[..., i + row, j + column])
            torch.testing.assert_close(found[1][:, :, row % lags[0], column % lags[1]], total)


@settings(max_examples=60, deadline=None)
@given(
    inputs=SMALL,
    outputs=SMALL,
    kernel=st.tuples(SMALL, SMALL),
    padding=st.integers(0, 2),
    bias=st.booleans(),
    kind=st.sampled_from(["none", "fft", "dct"]),
    ratio=st.floats(0.1, 1),
)
def test_norms_are_those_of_materialised_gradients(
    inputs: int, outputs: int, kernel: tuple[int, int], padding: int, bias: bool, kind: str, ratio: float
) -> None:
    _, layer, x = layer_and_input(inputs, outputs, kernel, padding, bias)
    y = layer(x)
    d = torch.randn_like(y)
    gradients = spectral_conv_grad_sample(layer, [x.detach()], d)
    for sample in range(len(x)):
        alone = torch.autograd.grad(
            y, list(layer.parameters()), d * (torch.arange(3) == sample).view(3, 1, 1, 1), retain_graph=True
        )
        for p, expected in zip(layer.parameters(), alone, strict=True):
            torch.testing.assert_close(gradients[p][sample], expected)

    projection = {
        "none": None,
        "fft": FFTLowPass(ratio, layer.lags),
        "dct": DCTLowPass(ratio, layer.lags),
    }[kind]
    norms = spectral_conv_norm_sample(layer, [x.detach()], d, projection)
    filtered = gradients[layer.weight] if projection is None else projection(gradients[layer.weight])
    torch.testing.assert_close(norms[layer.weight], filtered.flatten(1).norm(dim=1), rtol=1e-5, atol=1e-9)
    if layer.bias is not None:
        torch.testing.assert_close(norms[layer.bias], gradients[layer.bias].norm(dim=1))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(108, 4))


@pytest.mark.parametrize("order", ["filter-clip-noise", "clip-noise-filter"])
def test_both_modes_of_the_engine_take_it_alike(order: str) -> None:
    x, y = torch.randn(20, 1, 6, 6), torch.randint(4, (20,))
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=20)
    ends = []
    for mode in ("hooks", "ghost"):
        model = convert_to_spectral_conv(net(), {"0": (6, 6)})
        made = SpectralPrivacyEngine(not_private=True).make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.2),
            data_loader=data,
            noise_multiplier=0.5,
            max_grad_norm=0.3,
            spectrum={"0": FFTLowPass(0.5)},
            order=order,
            noise_generator=torch.Generator().manual_seed(1),
            grad_sample_mode=mode,
        )
        criterion = made[2] if mode == "ghost" else nn.CrossEntropyLoss()
        for _ in range(3):
            made[1].zero_grad()
            criterion(made[0](x), y).backward()
            made[1].step()
        ends.append(model)
    parts = [nn.utils.parameters_to_vector(p.detach() for p in model.parameters()) for model in ends]
    torch.testing.assert_close(parts[0], parts[1], rtol=1e-4, atol=1e-5)
    change = (ends[0][0].weight - convert_to_spectral_conv(net(), {"0": (6, 6)})[0].weight).detach()
    assert change.shape == (3, 1, 13, 13)
    torch.testing.assert_close(FFTLowPass(0.5, (13, 13))(change), change, rtol=0, atol=1e-5)


IMAGE, KERNEL, LAGS, BOUND = 3, 2, 4, 0.5
ORDERS: list[Order] = ["filter-clip-noise", "clip-noise-filter"]


@torch.enable_grad()
def release(samples: Tensor, draws: int, noise: float, projection: Projection, order: Order) -> Tensor:
    """Return what the layer's optimizer releases, of shape (draws, LAGS**2), from rows of (image, gradient).

    Output channels are noised and filtered apart: each is a draw. The samples reach the first, whose
    clipped sum is then that of all.
    """
    x = samples[:, : IMAGE**2].reshape(-1, 1, IMAGE, IMAGE)
    d = samples[:, IMAGE**2 : IMAGE**2 + KERNEL**2].reshape(-1, KERNEL, KERNEL)
    layer = SpectralConv2d(1, draws, (KERNEL, KERNEL), (IMAGE, IMAGE), bias=False)
    optimizer = SpectralDPOptimizer(
        torch.optim.SGD(layer.parameters(), lr=1.0),
        noise_multiplier=noise,
        max_grad_norm=BOUND,
        expected_batch_size=None,
        loss_reduction="sum",
        projections={layer.weight: projection},
        order=order,
    )
    (GradSampleModule(layer, loss_reduction="sum")(x)[:, 0] * d).sum().backward()
    optimizer.clip_and_accumulate()
    layer.weight.summed_grad = layer.weight.summed_grad.view(draws, -1)[0].repeat(draws)
    optimizer.add_noise()
    assert layer.weight.grad is not None
    return layer.weight.grad.flatten(1)


def canaries() -> dict[str, Tensor]:
    """Images and gradients that are constant, alternating and slow waves."""
    t = torch.arange(4.0)
    waves = {
        "constant": torch.ones(4),
        "Nyquist": (-1) ** t,
        "cosine": (torch.pi * t / 2).cos(),
        "sine": (torch.pi * t / 2).sin(),
    }
    return {
        name: torch.cat(
            [
                torch.outer(w[:IMAGE], w[:IMAGE]).flatten(),
                torch.outer(w[:KERNEL], w[:KERNEL]).flatten(),
                torch.zeros(3),
            ]
        )
        for name, w in waves.items()
    }


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_a_step_on_all_lags_is_as_private_as_claimed(ratio: float, order: Order) -> None:
    projection = FFTLowPass(ratio, (LAGS, LAGS))
    found = single_step_audit(
        lambda samples, draws: release(samples, draws, 1.0, projection, order),
        dimension=LAGS**2,
        max_grad_norm=BOUND,
        noise_multiplier=1.0,
        canaries=canaries()
        if ratio == 1
        else {name: c for name, c in canaries().items() if name != "Nyquist"},
        subspace=torch.kron(*projection.bases()).T,
        batch=3,
    )
    assert found.dimension == projection.rank == (16 if ratio == 1 else 9)
    assert found.mu == pytest.approx(1, rel=0.02)
    assert found.findings() == []
    if ratio == 1:  # a huge image takes all of the bound
        assert max(canary.norm for canary in found.canaries) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("order", ORDERS)
def test_no_image_contributes_more_than_the_bound(order: Order) -> None:
    projection = FFTLowPass(0.5, (LAGS, LAGS))
    found = check_clipping(
        lambda samples: release(samples, 1, 0.0, projection, order)[0],
        dimension=LAGS**2,
        max_grad_norm=BOUND,
    )
    assert found.findings() == []
    if order == "filter-clip-noise":
        assert found.worst == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_the_kernel_has_the_filtered_noise_of_its_lags(ratio: float) -> None:
    projection, draws = FFTLowPass(ratio, (LAGS, LAGS)), 50_000
    noise = release(torch.zeros(1, LAGS**2), draws, 1.0, projection, "filter-clip-noise")
    kernel = noise.view(draws, LAGS, LAGS)[:, :KERNEL, :KERNEL].flatten(1)
    filters = projection(torch.eye(LAGS**2)).view(LAGS, LAGS, LAGS, LAGS)
    expected = filters[:KERNEL, :KERNEL, :KERNEL, :KERNEL].reshape(KERNEL**2, KERNEL**2)
    torch.testing.assert_close(kernel.T @ kernel / draws / BOUND**2, expected, rtol=0, atol=0.04)


def test_empty_batches_have_no_gradient() -> None:
    layer = SpectralConv2d(1, 2, (3, 3), (5, 5))
    layer(torch.zeros(0, 1, 5, 5)).sum().backward()
    assert not layer.weight.grad.any()
    assert spectral_conv_grad_sample(layer, [torch.zeros(0, 1, 5, 5)], torch.zeros(0, 2, 3, 3))[
        layer.weight
    ].shape == (0, *layer.weight.shape)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 2, 3, stride=2),
        nn.Conv2d(2, 2, 3, groups=2),
        nn.Conv2d(2, 2, 3, dilation=2),
        nn.Conv2d(2, 2, 3, padding="same"),
    ],
)
def test_what_it_cannot_be_is_refused_and_nothing_is_replaced(conv: nn.Conv2d) -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), conv)
    with pytest.raises(SettingError, match="without strides"):
        convert_to_spectral_conv(model, {"0": (6, 6), "1": (6, 6)})
    assert type(model[0]) is nn.Conv2d


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(SettingError, match="padded image"):
        SpectralConv2d(1, 1, (5, 5), (4, 4))
    with pytest.raises(SettingError, match=r"shape \(samples, 1, 5, 5\)"):
        SpectralConv2d(1, 1, (3, 3), (5, 5))(torch.zeros(2, 1, 6, 6))
    with pytest.raises(SettingError, match="'1' names Tanh"):
        convert_to_spectral_conv(net(), {"1": (6, 6)})
