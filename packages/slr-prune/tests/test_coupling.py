"""Groups of coupled channels: what belongs together, what must stay, and the projection on them."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_pruning
import torchvision
from torch import Tensor, nn

from slr_prune import ADMMPruner, GradualPruner, OneShotPruner, Pruner, SLRPruner
from slr_prune._coupling import ChannelGroup, channel_groups
from slr_prune._units import prunable_layers
from tenfold import SettingError, UnknownNameError

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels)
    for tensor in (layer.weight.data, layer.bias.data, layer.running_mean):
        assert tensor is not None
        tensor.normal_()
    assert layer.running_var is not None
    layer.running_var.uniform_(0.5, 2.0)
    return layer


class Residual(nn.Module):
    """A stem, one residual block and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn = norm(6)
        self.conv1 = nn.Conv2d(6, 5, 3, padding=1)
        self.bn1 = norm(5)
        self.conv2 = nn.Conv2d(5, 6, 3, padding=1)
        self.bn2 = norm(6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))


def groups_of(
    model: nn.Module, inputs: Any = IMAGE, heads: dict[str, int] | None = None
) -> list[ChannelGroup]:
    return channel_groups(model, inputs, prunable_layers(model), heads or {})


def written(group: ChannelGroup) -> set[str]:
    return {part.tensor for part in group.slices if part.writes}


def read(group: ChannelGroup) -> set[str]:
    return {part.tensor for part in group.slices if not part.writes and "running" not in part.tensor}


def test_a_residual_connection_couples_all_that_it_adds() -> None:
    stream, inner = groups_of(Residual())
    assert stream.layers == ("stem", "conv2")
    assert written(stream) == {
        *("stem.weight", "bn.weight", "bn.bias"),
        *("conv2.weight", "conv2.bias", "bn2.weight", "bn2.bias"),
    }
    assert read(stream) == {"conv1.weight", "fc.weight"}
    assert (inner.layers, inner.size) == (("conv1",), 5)
    assert written(inner) == {"conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"}
    assert read(inner) == {"conv2.weight"}


def test_flattened_channels_own_all_their_positions() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))
    (group,) = groups_of(model)
    (columns,) = [part for part in group.slices if part.tensor == "3.weight"]
    assert (columns.dim, columns.writes) == (1, False)
    for channel in range(4):
        assert columns.entries[columns.channels == channel].tolist() == list(
            range(64 * channel, 64 * (channel + 1))
        )


class Branches(nn.Module):
    """Concatenation, a depthwise convolution with a multiplier, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Conv2d(3, 2, 1)
        self.depthwise = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.gate = nn.Linear(12, 12)
        self.out = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(torch.cat([self.a(x), self.b(x)], 1).relu())
        gate = self.gate(x.mean((2, 3))).sigmoid()
        return self.out(x * gate[:, :, None, None])


def test_concatenation_depthwise_multiplier_and_gate() -> None:
    a, b = groups_of(Branches())
    for group, layer, size in ((a, "a", 4), (b, "b", 2)):
        assert (group.size, group.layers) == (size, (layer, "depthwise", "gate"))
        (rows,) = [part for part in group.slices if part.tensor == "depthwise.weight"]
        assert len(rows.entries) == 2 * size
    (rows,) = [part for part in b.slices if part.tensor == "depthwise.weight"]
    assert rows.entries.tolist() == [8, 9, 10, 11]
    assert rows.channels.tolist() == [0, 0, 1, 1]


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


class Attention(nn.Module):
    """Self-attention with separate projections, by torch's operator or by hand."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(*x.shape[:2], -1, 2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attend = F.scaled_dot_product_attention if self.fused else by_hand
        return self.o(attend(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("fused", [True, False])
def test_attention_heads_go_whole(fused: bool) -> None:
    (group,) = groups_of(Attention(fused), torch.randn(3, 5, 8))
    assert (group.size, group.layers) == (4, ("q", "k", "v"))
    assert read(group) == {"o.weight"}
    (rows,) = [part for part in group.slices if part.tensor == "k.weight"]
    assert [rows.entries[rows.channels == head].tolist() for head in range(4)] == [
        [0, 1], [2, 3], [4, 5], [6, 7]
    ]  # fmt: skip


def test_declared_heads_couple_rows() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    (group,) = groups_of(model, torch.randn(1, 3), {"0": 4})
    assert group.size == 4
    pruner = OneShotPruner(
        model, 0.5, structure="filter", example_inputs=torch.randn(1, 3), num_heads={"0": 4}
    )
    pruner.finalize()
    assert (model[0].weight == 0).all(1).view(4, 2).all(1).sum() == 2


class Shared(nn.Module):
    """One layer called twice, a tied decoder, and an output that is a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.inner = nn.Linear(6, 7)
        self.back = nn.Linear(7, 6)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.embed(tokens)
        for _ in range(2):
            x = x + self.back(self.inner(x).relu())
        return {"logits": x @ self.embed.weight.T}


def test_shared_layers_and_tied_weights() -> None:
    stream, inner = sorted(
        groups_of(Shared(), {"tokens": torch.arange(5)[None]}), key=lambda group: group.size
    )
    assert stream.layers == ("back",)
    assert written(stream) == {"embed.weight", "back.weight", "back.bias"}
    assert (inner.size, inner.layers) == (7, ("inner",))


class Fixed(nn.Module):
    """A first layer whose channels `use` mixes in one way or another."""

    def __init__(self, use: Any, features: int = 6) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.scale = nn.Parameter(torch.ones(6))
        self.last = nn.Linear(features, 2)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.use(self, self.first(x)))


@pytest.mark.parametrize(
    "use",
    [
        lambda model, x: model.norm(x),
        lambda model, x: x.sigmoid(),
        lambda model, x: x.softmax(-1),
        lambda model, x: x + 1,
        lambda model, x: x + torch.ones(6),
        lambda model, x: x.roll(1, -1),
        lambda model, x: torch.cat([x[:, :3], x[:, 3:]], 1),
        lambda model, x: torch.cat([*x.chunk(2, 1)], 1),
        lambda model, x: x[:, torch.arange(6)],
        lambda model, x: x.flip(1),
        lambda model, x: x - x.mean(1, keepdim=True),
        lambda model, x: x.masked_fill(x < 0, 1.0),
        lambda model, x: F.pad(x, (1, 0))[:, 1:],
    ],
)
def test_channels_that_are_mixed_or_not_zero_must_stay(use: Any) -> None:
    assert groups_of(Fixed(use), torch.randn(3, 4)) == []


@pytest.mark.parametrize(
    "use",
    [
        lambda model, x: x.sigmoid() * x,
        lambda model, x: F.gelu(x) * 2 - x / 3,
        lambda model, x: x * model.scale,
        lambda model, x: x.pow(2),
        lambda model, x: x.relu_().tanh(),
        lambda model, x: x.unsqueeze(1).expand(-1, 4, -1).sum(1),
        lambda model, x: x.view(-1, 1, 6).permute(0, 2, 1).squeeze(2),
    ],
)
def test_channels_that_stay_zero_may_go(use: Any) -> None:
    (group,) = groups_of(Fixed(use), torch.randn(3, 4))
    assert group.size == 6


def test_memory_in_channels_last_order_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    (group,) = groups_of(model)
    (again,) = groups_of(
        model.to(memory_format=torch.channels_last), IMAGE.to(memory_format=torch.channels_last)
    )
    assert [part.tensor for part in again.slices] == [part.tensor for part in group.slices]


def test_layers_that_the_run_does_not_use_are_left_alone() -> None:
    model = Residual()
    model.spare = nn.Conv2d(3, 5, 3)
    assert {layer for group in groups_of(model) for layer in group.layers} == {"stem", "conv1", "conv2"}


@pytest.mark.parametrize("build", [torchvision.models.resnet18, torchvision.models.mobilenet_v2])
def test_the_groups_are_those_of_torch_pruning(build: Any) -> None:
    model = build().eval()
    inputs = torch.randn(1, 3, 32, 32)
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=inputs)
    names = {module: name for name, module in model.named_modules()}
    for group in groups_of(model, inputs):
        layer = model.get_submodule(group.layers[0])
        theirs = graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, [0])
        layers = {names[item.dep.target.module] for item in theirs if item.dep.target.module in names}
        assert layers == {part.tensor.rpartition(".")[0] for part in group.slices}


def test_the_projection_is_the_best_of_all() -> None:
    model = Residual()
    pruner = OneShotPruner(model, 0.5, structure="filter", example_inputs=IMAGE)
    tensors = {name: torch.randn_like(weight) for name, weight in pruner.weights.items()}
    masks = pruner.project_masks(tensors)
    for group in groups_of(model):
        kept_norm = sum(
            (tensors[name] * masks[name]).square().sum().item() for name in sorted(written(group))
        )
        best = 0.0
        for kept in itertools.combinations(range(group.size), max(1, round(group.size / 2))):
            total = 0.0
            for name in sorted(written(group)):
                total += tensors[name][list(kept)].square().sum().item()
            best = max(best, total)
        assert kept_norm == pytest.approx(best, rel=1e-6)
        (rows,) = {
            tuple(masks[name].flatten(1).all(1).tolist())
            if masks[name].dim() > 1
            else tuple(masks[name].tolist())
            for name in written(group)
        }
        assert sum(rows) == max(1, round(group.size / 2))


def test_bn_filter_ranks_channels_by_gamma() -> None:
    model = Residual()
    OneShotPruner(model, 0.4, structure="bn-filter", example_inputs=IMAGE).finalize()
    dense = Residual()
    stream = dense.bn.weight.square() + dense.bn2.weight.square()
    for gamma, scores, kept in (
        (model.bn.weight, stream, 4),
        (model.bn2.weight, stream, 4),
        (model.bn1.weight, dense.bn1.weight.square(), 3),
    ):
        best = max(
            itertools.combinations(range(len(scores)), kept),
            key=lambda chosen: scores[list(chosen)].sum().item(),
        )
        assert gamma.nonzero().flatten().tolist() == list(best)
    assert torch.equal((model.conv1.weight != 0).flatten(1).any(1), model.bn1.weight != 0)


def test_the_zeros_silence_what_batch_normalisation_adds() -> None:
    model = Residual().eval()
    OneShotPruner(model, 0.5, structure="filter", example_inputs=IMAGE).finalize()
    seen: dict[str, Tensor] = {}
    for name in ("bn", "bn1", "bn2"):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output.detach().clone()})
        )
    model(IMAGE)
    assert ((seen["bn"] == 0).all((0, 2, 3)) & (seen["bn2"] == 0).all((0, 2, 3))).sum() == 3
    assert (seen["bn1"] == 0).all((0, 2, 3)).sum() == 3  # of 5; round(2.5) are kept


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (SLRPruner, {"rho": 0.01}),
        (ADMMPruner, {"rho": 0.01}),
        (OneShotPruner, {}),
        (GradualPruner, {"steps": 4, "every": 1}),
    ],
)
@pytest.mark.parametrize("structure", ["filter", "bn-filter"])
def test_every_method_trains_towards_coupled_channels(
    method: type[Pruner], settings: dict[str, Any], structure: str
) -> None:
    model = Residual()
    pruner = method(model, 0.5, structure=structure, example_inputs=IMAGE, **settings)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(4):
        loss = F.cross_entropy(model(IMAGE), torch.tensor([0, 1]))
        optimizer.zero_grad()
        (loss + pruner.penalty()).backward()
        optimizer.step()
        pruner.constrain()
        pruner.step(loss.item())
    pruner.finalize()
    for unit in pruner.units:
        (zero,) = {
            tuple((pruner.weights[name] == 0).flatten(1).all(1).tolist())
            if pruner.weights[name].dim() > 1
            else tuple((pruner.weights[name] == 0).tolist())
            for name in unit.parameters
        }
        assert sum(zero) == 3 if len(zero) == 6 else sum(zero) in (2, 3)


def test_state_of_coupled_channels_is_restored_in_the_middle() -> None:
    model = Residual()
    pruner = SLRPruner(model, 0.5, structure="filter", example_inputs=IMAGE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    pruner.step(1.0)
    again = SLRPruner(model, 0.5, structure="filter", example_inputs=IMAGE)
    again.load_state_dict(pruner.state_dict())
    for one in (pruner, again):
        one.step(0.5)
    assert again.s == pruner.s
    assert all(torch.equal(again.Z[name], pruner.Z[name]) for name in pruner.Z)


def test_targets_by_name_and_ignored_layers() -> None:
    model = Residual()
    (unit,) = OneShotPruner(model, {"conv1": 0.4}, structure="filter", example_inputs=IMAGE).units
    assert (unit.name, unit.sparsity) == ("conv1", 0.4)
    pruner = OneShotPruner(
        model, 0.5, structure="filter", example_inputs=IMAGE, ignored_layers=["conv2"], round_to=4
    )
    assert list(pruner.sparsity) == ["conv1"]
    pruner.finalize()
    assert (model.bn1.weight != 0).sum() == 4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sparsity": {"stem": 0.5, "conv2": 0.6}}, SettingError, "several sparsities.*stem: 0.5"),
        ({"sparsity": {"fc": 0.5}}, SettingError, "no channels in 'fc'"),
        ({"structure": "irregular"}, SettingError, "'irregular' with example_inputs.*filter"),
        ({"structure": "filer"}, UnknownNameError, "Did you mean 'filter'"),
        ({"round_to": 0}, SettingError, "round_to is 0"),
        ({"num_heads": {"conv1": 4}}, SettingError, "num_heads 4 for layer 'conv1', which has 5 rows"),
        ({"num_heads": {"conv9": 4}}, UnknownNameError, "conv9"),
        ({"example_inputs": torch.randn(2, 5, 8, 8)}, SettingError, "does not run on example_inputs"),
        (
            {"example_inputs": None, "round_to": 4},
            SettingError,
            "round_to or num_heads without example_inputs",
        ),
        (
            {"example_inputs": None, "structure": "bn-filter"},
            SettingError,
            "'bn-filter' without example_inputs",
        ),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    settings = {"sparsity": 0.5, "structure": "filter", "example_inputs": IMAGE, **arguments}
    with pytest.raises(error, match=message):
        OneShotPruner(Residual(), **settings)


def test_bn_filter_needs_batch_normalisation() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(SettingError, match="followed by batch normalisation"):
        OneShotPruner(model, 0.5, structure="bn-filter", example_inputs=torch.randn(1, 3))


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = Residual()
    model.bn.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups_of(model)
    assert model.training
    assert not model.bn.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
