"""Smaller models compute what the masked ones do."""

import copy
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slr_prune import DeviationError, OneShotPruner, remove_channels
from tenfold import SettingError

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def disturb(model: nn.Module, seed: int = 0) -> None:
    """Let batch normalisation shift and scale, as after training."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2.0)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class Random(nn.Module):
    """A network drawn from a seed: convolutions, sums, products, concatenations, gates, pooling."""

    def __init__(self, seed: int, steps: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        draw = torch.Generator().manual_seed(seed)
        self.plan: list[tuple[str, list[int]]] = []
        self.layers = nn.ModuleList()
        widths = [3]

        def pick(below: int) -> int:
            return int(torch.randint(below, (), generator=draw))

        for _ in range(steps):
            one = pick(len(widths))
            kind = ("conv", "conv", "bn", "depthwise", "add", "mul", "cat", "gate", "relu")[pick(9)]
            alike = [index for index, width in enumerate(widths) if width == widths[one]]
            other = alike[pick(len(alike))]
            width, layer = widths[one], nn.Module()
            if kind == "conv":
                width = (4, 6)[pick(2)]
                layer = nn.Conv2d(widths[one], width, 3, padding=1, bias=bool(pick(2)))
            elif kind == "bn":
                layer = nn.BatchNorm2d(width)
            elif kind == "depthwise":
                layer = nn.Conv2d(width, width, 3, padding=1, groups=width)
            elif kind == "gate":
                layer = nn.Conv2d(width, width, 1)
            elif kind == "cat":
                other = pick(len(widths))
                width += widths[other]
            self.layers.append(layer)
            self.plan.append((kind, [one, other]))
            widths.append(width)
        self.head = nn.Linear(4 * widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer, (kind, (one, other)) in zip(self.layers, self.plan, strict=True):
            a, b = values[one], values[other]
            if kind in ("conv", "bn", "depthwise"):
                values.append(layer(a))
            elif kind == "gate":
                values.append(a * layer(a.mean((2, 3), keepdim=True)).sigmoid())
            else:
                values.append(
                    {
                        "add": a + b if a.shape == b.shape else a,
                        "mul": a * b if a.shape == b.shape else a,
                        "cat": torch.cat([a, b], 1),
                        "relu": a.relu(),
                    }[kind]
                )
        return self.head(nn.functional.adaptive_avg_pool2d(values[-1], 2).flatten(1))


@given(st.integers(0, 100_000), st.integers(2, 12), st.sampled_from([0.3, 0.6]))
@settings(max_examples=60, deadline=None)
def test_random_networks_compute_the_same_without_their_zero_channels(
    seed: int, steps: int, sparsity: float
) -> None:
    model = Random(seed, steps).double().eval()
    disturb(model, seed)
    inputs = IMAGE.double()
    try:
        pruner = OneShotPruner(model, sparsity, structure="filter", example_inputs=inputs)
    except SettingError:
        reject()  # all channels are mixed or go out
    pruner.finalize()
    smaller = remove_channels(model, inputs)
    other = torch.randn(3, 3, 6, 10, dtype=torch.float64)
    torch.testing.assert_close(smaller(other), model(other), rtol=1e-9, atol=1e-9)
    removed = sum(unit.group.size - max(1, round(unit.group.size * (1 - sparsity))) for unit in pruner.units)
    assert (parameters(smaller) < parameters(model)) == (removed > 0)


MODELS: dict[str, Any] = {
    "resnet18": torchvision.models.resnet18,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "mobilenet_v3_small": torchvision.models.mobilenet_v3_small,
    "shufflenet_v2_x0_5": torchvision.models.shufflenet_v2_x0_5,
    "regnet_y_400mf": torchvision.models.regnet_y_400mf,
    "googlenet": lambda: torchvision.models.googlenet(init_weights=False),
    "swin_t": torchvision.models.swin_t,
}


@pytest.mark.parametrize("name", MODELS)
def test_torchvision_models_get_smaller_and_compute_the_same(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    disturb(model)
    inputs = torch.randn(2, 3, 64, 64)
    OneShotPruner(model, 0.5, structure="filter", example_inputs=inputs).finalize()
    smaller = remove_channels(model, inputs)
    assert parameters(smaller) < 0.72 * parameters(model)
    with torch.no_grad():
        one, other = model.double()(inputs.double()), smaller.double()(inputs.double())
    torch.testing.assert_close(other, one, rtol=0, atol=1e-5 * one.abs().max().item())


def block() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 6, 2), nn.Flatten(), nn.Linear(150, 2),
    )  # fmt: skip
    disturb(model)
    return model


def test_layers_declare_their_new_sizes() -> None:
    model = block()
    OneShotPruner(model, 0.5, structure="filter", example_inputs=IMAGE).finalize()
    smaller: Any = remove_channels(model, IMAGE)
    assert (smaller[0].out_channels, smaller[1].num_features) == (4, 4)
    assert (smaller[3].in_channels, smaller[3].out_channels, smaller[3].groups) == (4, 4, 4)
    assert (smaller[4].in_channels, smaller[4].out_channels) == (4, 6)
    assert smaller[1].running_mean.shape == (4,)
    assert "Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), groups=4)" in repr(smaller)


def test_the_masked_model_is_left_alone_and_the_smaller_one_trains() -> None:
    model = block()
    OneShotPruner(model, 0.5, structure="filter", example_inputs=IMAGE).finalize()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    smaller: Any = remove_channels(model, IMAGE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert smaller.training
    assert not smaller[0].weight.requires_grad
    smaller(IMAGE).sum().backward()
    assert smaller[4].weight.grad.shape == (4, 6, 2, 2)


def test_gradients_are_those_of_the_masked_model() -> None:
    model = block().double().eval()
    OneShotPruner(model, 0.5, structure="filter", example_inputs=IMAGE.double()).finalize()
    smaller: Any = remove_channels(model, IMAGE.double())
    model(IMAGE.double()).square().sum().backward()
    smaller(IMAGE.double()).square().sum().backward()
    kept = model[1].weight != 0
    torch.testing.assert_close(smaller[1].weight.grad, model[1].weight.grad[kept])
    torch.testing.assert_close(smaller[4].weight.grad, model[4].weight.grad[kept])


def test_a_group_that_is_zero_altogether_keeps_one_channel() -> None:
    model = block()
    with torch.no_grad():
        for tensor in (model[0].weight, model[1].weight, model[1].bias, model[3].weight, model[3].bias):
            tensor.zero_()
    smaller: Any = remove_channels(model, IMAGE)
    assert smaller[0].out_channels == 1
    torch.testing.assert_close(smaller(IMAGE), model(IMAGE))


def test_a_filter_that_batch_normalisation_revives_stays() -> None:
    model = block()
    with torch.no_grad():
        model[0].weight[:4] = 0
    smaller: Any = remove_channels(model, IMAGE)
    assert smaller[0].out_channels == 8


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.all_head_size = 8
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).view(*x.shape[:2], self.num_heads, self.all_head_size // self.num_heads).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(*x.shape[:2], self.all_head_size))


def test_attention_modules_learn_how_many_heads_are_left() -> None:
    torch.manual_seed(0)
    model, x = Attention(), torch.randn(3, 5, 8)
    OneShotPruner(model, 0.5, structure="filter", example_inputs=x).finalize()
    smaller: Any = remove_channels(model, x)
    assert (smaller.num_heads, smaller.all_head_size, smaller.q.out_features) == (2, 4, 4)
    torch.testing.assert_close(smaller(x), model(x))


class Stubborn(nn.Module):
    """Reshapes to a size that it keeps for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).view(-1, 6))


def test_a_module_that_keeps_sizes_of_its_own_is_named() -> None:
    model, x = Stubborn(), torch.randn(2, 4)
    OneShotPruner(model, 0.5, structure="filter", example_inputs=x).finalize()
    with pytest.raises(
        SettingError, match=r"Stubborn that does not run without its zero channels.*ignored_layers"
    ):
        remove_channels(model, x)


class Counting(nn.Module):
    """Scales by the number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x / x.shape[1])


def test_a_model_that_would_compute_something_else_is_refused() -> None:
    torch.manual_seed(0)
    model, x = Counting(), torch.randn(2, 4)
    OneShotPruner(model, 0.5, structure="filter", example_inputs=x).finalize()
    with pytest.raises(DeviationError, match="off by"):
        remove_channels(model, x)
