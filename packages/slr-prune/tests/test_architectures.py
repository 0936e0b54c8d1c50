"""The mixer, the text encoder and torchvision's classifiers: shapes, seeds, bad input, pruning."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slr_prune import SLRPruner
from slr_prune._encoder import text_encoder
from slr_prune._mixer import Mixer, MixerBlock
from slr_prune._vision import vision_model
from tenfold import DataError, MissingExtraError, SettingError, UnknownNameError


def pruned_share(model: nn.Module, sparsity: float) -> float:
    pruner = SLRPruner(model, sparsity)
    pruner.finalize()
    weights = list(pruner.weights.values())
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (28, 1)])
def test_the_mixer_classifies_and_is_pruned(size: int, channels: int) -> None:
    model = Mixer(10, image_size=size, image_channels=channels)
    assert 0.4e6 < sum(p.numel() for p in model.parameters()) < 0.6e6
    assert model(torch.rand(3, channels, size, size)).shape == (3, 10)
    assert pruned_share(model, 0.9) == pytest.approx(0.9, abs=1e-3)


def test_a_mixer_block_is_the_papers_equation() -> None:
    torch.manual_seed(0)
    block, x = MixerBlock(4, 6, 5, 7), torch.randn(2, 4, 6)
    rows = block.norm1(x)
    columns = [block.patch2(nn.functional.gelu(block.patch1(rows[:, :, c]))) for c in range(6)]
    u = x + torch.stack(columns, 2)
    patches = [block.channel2(nn.functional.gelu(block.channel1(block.norm2(u[:, s])))) for s in range(4)]
    torch.testing.assert_close(block(x), u + torch.stack(patches, 1))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"depth": 0}, "depth is 0"), ({"patch_size": 5}, "patches of 5 in images of 32")],
)
def test_impossible_mixers_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Mixer(**sizes)


def test_the_text_encoder_classifies_learns_and_is_pruned() -> None:
    pytest.importorskip("transformers")
    before = torch.get_rng_state()
    model, again, other = (text_encoder(3, vocabulary=50, length=12, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    first, second, third = (m.state_dict()["classifier.weight"] for m in (model, again, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    tokens = torch.randint(50, (4, 12), generator=torch.Generator().manual_seed(0))
    output = model(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=torch.tensor([0, 1, 2, 0])
    )
    assert output.logits.shape == (4, 3)
    output.loss.backward()
    assert pruned_share(model, 0.75) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(
    ("sizes", "message"), [({"layers": 0}, "layers is 0"), ({"heads": 3}, "3 heads for 64 features")]
)
def test_impossible_text_encoders_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        text_encoder(2, **sizes)


def test_torchvision_models_are_seeded_and_read_weights(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    before = torch.get_rng_state()
    model = vision_model("mobilenet_v2", 7, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    with torch.no_grad():
        assert model.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    read = vision_model("mobilenet_v2", 7, weights=tmp_path / "weights.pt")
    for name, value in read.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    with pytest.raises(DataError, match=r"weights.pt cannot be loaded into mobilenet_v2"):
        vision_model("mobilenet_v2", 8, weights=tmp_path / "weights.pt")
    (tmp_path / "weights.pt").write_bytes((tmp_path / "weights.pt").read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be loaded"):
        vision_model("mobilenet_v2", 7, weights=tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["resnet50", "swin_t"])
def test_the_papers_models_can_be_pruned(name: str) -> None:
    pytest.importorskip("torchvision")
    assert pruned_share(vision_model(name, 10), 0.5) == pytest.approx(0.5, abs=0.01)


def test_an_unknown_torchvision_model_suggests_the_nearest() -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(UnknownNameError, match="Did you mean 'mobilenet_v2'"):
        vision_model("mobilenetv2", 10)
    with pytest.raises(SettingError, match="classes is 0"):
        vision_model("resnet50", 0)


@pytest.mark.parametrize(
    ("package", "make", "extra"),
    [
        ("transformers", lambda: text_encoder(2), "slr-prune\\[transformers\\]"),
        ("torchvision", lambda: vision_model("resnet50"), "slr-prune\\[vision\\]"),
    ],
)
def test_a_missing_extra_is_named(
    package: str, make: Callable[[], Any], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=extra):
        make()
