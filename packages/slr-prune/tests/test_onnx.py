"""ONNX files: what ONNX Runtime computes, at other batch sizes too, names, size, refusals."""

import copy
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slr_prune import DeviationError, OneShotPruner, describe_sparsity, export_onnx, sparsify
from slr_prune._example import deviation, dynamic_batch, magnitude, tensors_of
from tenfold import MissingExtraError, SettingError

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def run_file(path: Path, **feed: Tensor) -> dict[str, Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    outputs = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
    return {name: torch.from_numpy(np.asarray(each)) for name, each in zip(names, outputs, strict=True)}


def network() -> tuple[nn.Module, nn.Module]:
    """A masked network and its copy with one layer of each sparse kind."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(16, 32, 3),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 36, 300),
        nn.ReLU(),
        nn.Linear(300, 160),
        nn.Linear(160, 8),
    ).eval()
    OneShotPruner(model, {"0": 0.6, "7": 0.5}, structure="filter").finalize()
    OneShotPruner(model, {"4": 0.95}).finalize()
    OneShotPruner(model, {"6": 0.9}, structure="block").finalize()
    formats = {"0": "gathered", "4": "csr", "6": "bsr", "7": "gathered"}
    return model, sparsify(model, inputs(2, 16, 8, 8), format=formats)


def test_a_sparse_network_runs_in_onnx_runtime_at_any_batch_and_smaller_with_sparse_initializers(
    tmp_path: Path,
) -> None:
    model, sparse = network()
    before = describe_sparsity(sparse)
    x = inputs(7, 16, 8, 8)
    sizes = []
    for number, smaller in enumerate((False, True)):
        path = tmp_path / f"{number}.onnx"
        export_onnx(sparse, path, inputs(2, 16, 8, 8), sparse_initializers=smaller)
        torch.testing.assert_close(run_file(path, input=x)["output"], model(x), rtol=1e-4, atol=1e-4)
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.4 * sizes[0]
    assert describe_sparsity(sparse) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0.onnx", "1.onnx"]


@dataclass
class Prediction:
    logits: Tensor
    hidden: tuple[Tensor, Tensor]
    loss: Tensor | None = None


class Structured(nn.Module):
    """Takes a flag and keywords, gives a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor, scale: Tensor | None = None, flag: bool = False) -> Prediction:
        y = self.layer(x if scale is None else x * scale)
        return Prediction(y if flag else -y, (y, y + 1))


def test_dataclass_outputs_keyword_inputs_and_constants(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Structured()
    x, scale = inputs(3, 6), inputs(3, 6) + 2
    export_onnx(model, tmp_path / "model.onnx", {"scale": scale, "x": x, "flag": True})
    output = run_file(tmp_path / "model.onnx", x=inputs(5, 6), scale=inputs(5, 6))
    assert list(output) == ["logits", "hidden.0", "hidden.1"]
    expected = tensors_of(model(inputs(5, 6), inputs(5, 6), flag=True))
    for name, tensor in expected.items():
        torch.testing.assert_close(output[name], tensor, rtol=1e-4, atol=1e-5)


class Unfaithful(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 if torch.compiler.is_exporting() else x


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(DeviationError, match=r"off by 5\.00e-01; expected at most 1e-04"):
        export_onnx(Unfaithful(), tmp_path / "model.onnx", inputs(2, 3))
    assert list(tmp_path.iterdir()) == []
    export_onnx(Unfaithful(), tmp_path / "unchecked.onnx", inputs(2, 3), check=False)
    export_onnx(Unfaithful(), tmp_path / "loose.onnx", inputs(2, 3), atol=0.6)
    assert len(list(tmp_path.iterdir())) == 2


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_exported_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"ByValue that torch\.onnx cannot export"):
        export_onnx(ByValue(), tmp_path / "model.onnx", inputs(2, 3))
    with pytest.raises(SettingError, match="does not run on example_inputs"):
        export_onnx(nn.Linear(3, 3), tmp_path / "model.onnx", inputs(2, 4))
    assert list(tmp_path.iterdir()) == []


class Listing(nn.Module):
    def forward(self, tensors: list[Tensor]) -> Tensor:
        return tensors[0] + tensors[1]


def test_tensors_within_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="argument 'tensors' that holds tensors within a list"):
        export_onnx(Listing(), tmp_path / "model.onnx", ([inputs(2), inputs(2)],))


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_the_missing_extra_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == missing else find_spec(name, *rest)
    )
    with pytest.raises(MissingExtraError, match=rf"{missing} is not installed.*slr-prune\[onnx\]"):
        export_onnx(nn.Linear(3, 3), tmp_path / "model.onnx", inputs(2, 3))


@pytest.mark.slow
def test_importing_the_package_imports_no_onnx() -> None:
    code = "import sys, slr_prune; assert not {'onnx', 'onnxruntime', 'onnxscript'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_bert_with_keyword_inputs(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    configuration = transformers.BertConfig(
        vocab_size=50, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512
    )
    model = transformers.BertForSequenceClassification(configuration).eval()
    OneShotPruner(model, {"bert.encoder.*": 0.9}, structure="block").finalize()

    def tokens(batch: int, length: int = 7) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(batch)
        return {
            "input_ids": torch.randint(50, (batch, length), generator=generator),
            "attention_mask": torch.ones(batch, length, dtype=torch.int64),
        }

    sparse = sparsify(model, tokens(2))
    assert "bsr:16x16" in {row.format for row in describe_sparsity(sparse)}
    export_onnx(sparse, tmp_path / "bert.onnx", tokens(2), sparse_initializers=True)
    with torch.no_grad():
        expected = model(**tokens(5)).logits
    output = run_file(tmp_path / "bert.onnx", **tokens(5))
    torch.testing.assert_close(output["logits"], expected, rtol=1e-4, atol=1e-4)


def test_names_of_outputs() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    assert list(tensors_of(one)) == ["output"]
    assert list(tensors_of((one, None, [two, one]))) == ["0", "2.0", "2.1"]
    assert list(tensors_of({"a": one, "b": {"c": two, "d": 3}})) == ["a", "b.c"]
    assert list(tensors_of(Prediction(one, (one, two)))) == ["logits", "hidden.0", "hidden.1"]


def test_how_far_outputs_are_apart() -> None:
    reference = {"a": torch.tensor([1.0, -3.0, float("nan"), float("inf")]), "b": torch.tensor([True])}
    assert deviation(reference, reference) == 0
    assert magnitude(reference) == 3
    other = copy.deepcopy(reference)
    other["a"][0] += 0.25
    assert deviation(other, reference) == 0.25
    for place in (2, 3):
        broken = copy.deepcopy(reference)
        broken["a"][place] = 0
        assert deviation(broken, reference) == float("inf")
    assert deviation({"a": reference["a"]}, reference) == float("inf")
    assert deviation({**reference, "b": torch.tensor([True, True])}, reference) == float("inf")


def test_which_dimensions_are_a_batch() -> None:
    assert dynamic_batch([torch.zeros(2, 3), torch.zeros(2), torch.zeros(())])[2] is None
    assert [0 in (each or {}) for each in dynamic_batch([torch.zeros(2, 3), torch.zeros(2)])] == [True, True]
    assert dynamic_batch([torch.zeros(2, 3), torch.zeros(3)]) == [None, None]
    assert dynamic_batch([torch.zeros(1, 3)]) == [None]
    assert dynamic_batch([]) == []
