"""Every structure on the models that people bring: prune, compact, ONNX Runtime.

Random weights and small inputs: what is tested is the path, not accuracy.
"""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from slr_prune import OneShotPruner, compact, cost, describe_sparsity, export_onnx
from slr_prune._example import deviation, magnitude, run_model, tensors_of
from tenfold import SettingError


def bert() -> nn.Module:
    """A transformers BERT of two layers."""
    config = BertConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=1024, vocab_size=200
    )
    return BertForSequenceClassification(config)


IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(200, (2, 9), generator=torch.Generator().manual_seed(0))
INPUTS: dict[str, Any] = {
    "resnet50": IMAGE,
    "mobilenet_v2": IMAGE,
    "swin_t": IMAGE,
    "bert": {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)},
}
INNER = {
    "resnet50": "layer*",
    "mobilenet_v2": "features.*",
    "swin_t": "features.*.mlp.*",
    "bert": "*.layer.*",
}
"""Layers with inputs that divide by four."""


@functools.cache
def initial(name: str) -> dict[str, torch.Tensor]:
    """Random weights of a model, with batch normalisation as after training."""
    torch.manual_seed(0)
    model = bert() if name == "bert" else getattr(torchvision.models, name)()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


def build(name: str) -> nn.Module:
    model = bert() if name == "bert" else getattr(torchvision.models, name)()
    model.load_state_dict(initial(name))
    return model.eval()


def setting(name: str, structure: str) -> dict[str, Any]:
    """Return the arguments of a pruner that make a structure apply."""
    if structure in ("filter", "bn-filter"):
        return {"sparsity": 0.5, "example_inputs": INPUTS[name]}
    if structure == "pattern":
        return {"sparsity": {"layer*.conv2": 0.6} if name == "resnet50" else 0.6}
    if structure == "2:4":
        depthwise = {"mobilenet_v2": ["features.0.0", "features.1.conv.0.0", "features.*.conv.1.0"]}
        return {"sparsity": {INNER[name]: 0.5}, "ignored_layers": depthwise.get(name, [])}
    return {"sparsity": {INNER[name]: 0.9}}


STRUCTURES = ("irregular", "filter", "bn-filter", "channel", "column", "pattern", "block", "2:4", "1:4")
REFUSED = {
    ("mobilenet_v2", "pattern"): r"layer 'features\.0\.1.*|layer '.*pattern'",
    ("swin_t", "pattern"): "layer 'features.0.0'.*'pattern'",
    ("bert", "pattern"): "layer 'bert.*'pattern'",
    ("swin_t", "bn-filter"): "followed by batch normalisation",
    ("bert", "bn-filter"): "followed by batch normalisation",
}
CASES = [
    pytest.param(name, structure, marks=[] if (name, structure) in QUICK else [pytest.mark.slow])
    for QUICK in [{("mobilenet_v2", "filter"), ("bert", "filter"), ("bert", "irregular")}]
    for name in INPUTS
    for structure in STRUCTURES
]


@pytest.mark.parametrize(("name", "structure"), CASES)
def test_prune_compact_and_export(name: str, structure: str, tmp_path: Path) -> None:
    model, inputs = build(name), INPUTS[name]
    settings = setting(name, "2:4" if structure == "1:4" else structure)
    if structure == "1:4":
        settings["sparsity"] = dict.fromkeys(settings["sparsity"], 0.75)
    if (name, structure) in REFUSED:
        with pytest.raises(SettingError, match=REFUSED[name, structure]):
            OneShotPruner(model, structure=structure, **settings)
        return
    OneShotPruner(model, structure=structure, **settings).finalize()
    small = compact(model, inputs)
    masked, compacted = (tensors_of(run_model(item, inputs)) for item in (model, small))
    assert deviation(compacted, masked) <= 1e-5 * max(1.0, magnitude(masked))

    forms = {row.format.split(":")[0] for row in describe_sparsity(small)}
    if structure in ("filter", "bn-filter"):
        assert cost(small, inputs).parameters < 0.8 * cost(model, inputs).parameters
    elif structure == "channel":
        assert "gathered" in forms
    elif structure == "block" and name in ("swin_t", "bert"):
        assert "bsr" in forms
    elif structure == "irregular" and name in ("swin_t", "bert"):
        assert "csr" in forms
    export_onnx(small, tmp_path / "small.onnx", inputs)
