"""Files: size on disk, round trips between masked and sparse models, torch alone, broken files."""

import copy
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slr_prune import OneShotPruner, densify, describe_sparsity, export_program, load, save, sparsify
from tenfold import DataError, OutputError, SettingError

EXAMPLE = Path(__file__).parents[1] / "examples" / "load_with_torch.py"

# Makes importing the packages an error, in a process that is to do without them.
ALONE = """
import sys
sys.modules["slr_prune"] = sys.modules["tenfold"] = None
try:
    import slr_prune
except ImportError:
    pass
else:
    raise SystemExit("slr_prune was imported")
"""


def mlp(sparsity: float = 0.0, structure: str = "irregular", width: int = 512) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 64))
    if sparsity:
        OneShotPruner(model, sparsity, structure=structure).finalize()
    return model


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def assert_equal_states(model: nn.Module, other: nn.Module) -> None:
    assert model.state_dict().keys() == other.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def run_alone(code: str, *arguments: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("structure", "sparsity", "most"),
    [
        ("irregular", 0.9, 1.4),
        ("filter", 0.9, 1.1),
        ("channel", 0.9, 1.1),
        ("block", 0.95, 1.1),
        ("block:4", 0.9, 1.1),
        ("2:4", 0.5, 1.1),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_files_are_about_as_large_as_what_is_left(
    structure: str, sparsity: float, most: float, swapped: bool, tmp_path: Path
) -> None:
    model = mlp(sparsity, structure, 1024)
    left = 4 * sum(int(tensor.count_nonzero()) for tensor in model.parameters())
    save(sparsify(model, inputs(2, 2048)) if swapped else model, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size <= most * left


def test_convolutions_without_rows_and_channels_are_as_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(128, 256, 3), nn.Conv2d(256, 128, 3))
    for structure in ("filter", "channel"):
        OneShotPruner(model, 0.7, structure=structure).finalize()
    left = 4 * sum(int(tensor.count_nonzero()) for tensor in model.parameters())
    save(model, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size <= 1.1 * left


@pytest.mark.parametrize("form", ["csr", "bsr", "bsr:5x3", "gathered"])
def test_a_sparse_model_loads_into_a_plain_one_and_back(form: str, tmp_path: Path) -> None:
    model = mlp(0.8, "filter")
    sparse = sparsify(model, inputs(2, 1024), format=form)
    save(sparse, tmp_path / "sparse.pt")
    plain = mlp()
    assert load(tmp_path / "sparse.pt", plain) is plain
    assert_equal_states(plain, model)

    save(model, tmp_path / "plain.pt")
    other = copy.deepcopy(sparse)
    values = list(other.parameters())
    with torch.no_grad():
        for parameter in values:
            parameter.zero_()
    load(tmp_path / "plain.pt", other)
    assert_equal_states(densify(other), model)
    assert all(one is two for one, two in zip(values, other.parameters(), strict=True))


def test_a_model_that_is_one_sparse_layer(tmp_path: Path) -> None:
    model = mlp(0.9)[0]
    save(sparsify(model, inputs(2, 1024)), tmp_path / "model.pt")
    assert_equal_states(load(tmp_path / "model.pt", mlp()[0]), model)


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]


class State(nn.Module):
    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.register_buffer("tensor", tensor)


@given(
    st.lists(st.integers(0, 30), min_size=0, max_size=4),
    st.sampled_from(DTYPES),
    st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    st.booleans(),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_any_tensor_survives(  # type: ignore[no-untyped-def]
    tmp_path_factory, shape: list[int], dtype: torch.dtype, kept: float, transposed: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensor = 100 * torch.randn(shape, generator=generator, dtype=torch.float64)
    tensor = (tensor * (torch.rand(shape, generator=generator) < kept)).to(dtype)
    if transposed and tensor.dim() > 1:
        tensor = tensor.transpose(0, -1)
    path = tmp_path_factory.getbasetemp() / "any.pt"
    save(State(tensor), path)
    back = load(path, State(torch.ones_like(tensor))).tensor
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_nan_and_infinity_survive(tmp_path: Path) -> None:
    tensor = torch.zeros(1000)
    tensor[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    save(State(tensor), tmp_path / "model.pt")
    back = load(tmp_path / "model.pt", State(torch.ones(1000))).tensor
    torch.testing.assert_close(back, tensor, equal_nan=True, rtol=0, atol=0)


def test_tied_weights_and_views_are_stored_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 200), nn.Linear(200, 10))
    OneShotPruner(model, 0.5, ignored_layers=["2"]).finalize()
    model[1].weight = model[0].weight
    save(model, tmp_path / "tied.pt")
    assert (tmp_path / "tied.pt").stat().st_size < 1.2 * 4 * (20_000 + 2_000)
    view = State(torch.ones(1000, 1000)[:10])
    save(view, tmp_path / "view.pt")
    assert (tmp_path / "view.pt").stat().st_size < 1.1 * 4 * 10_000


def test_buffers_and_batch_statistics_are_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    model(inputs(4, 3, 8, 8))
    save(model, tmp_path / "model.pt")
    assert_equal_states(
        load(tmp_path / "model.pt", nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))), model
    )


def test_torch_alone_reads_files_and_multiplies_by_their_sparse_weights(tmp_path: Path) -> None:
    x = inputs(5, 1024)
    for structure in ("irregular", "block"):
        model = mlp(0.9, structure)
        save(sparsify(model, x), tmp_path / f"{structure}.pt")
        torch.save((x, model[0](x).detach(), model.state_dict()), tmp_path / f"{structure}-expected.pt")
    run_alone(
        """
import runpy, torch
load_with_torch = runpy.run_path(sys.argv[1])["load_with_torch"]
for structure in ("irregular", "block"):
    state = load_with_torch(f"{sys.argv[2]}/{structure}.pt")
    x, expected, whole = torch.load(f"{sys.argv[2]}/{structure}-expected.pt")
    assert state.keys() == whole.keys()
    for name in whole:
        assert torch.equal(state[name], whole[name]), name
    weight = state["0.weight"]
    sparse = weight.to_sparse_bsr((16, 16)) if structure == "block" else weight.to_sparse_csr()
    torch.testing.assert_close((sparse @ x.T).T + state["0.bias"], expected, rtol=1e-5, atol=1e-5)
""",
        EXAMPLE,
        tmp_path,
    )


def test_the_reader_is_short_enough_to_paste() -> None:
    function = EXAMPLE.read_text().split("def load_with_torch")[1]
    assert len(function.splitlines()) <= 20
    assert "slr_prune" not in function


@pytest.mark.slow
def test_an_exported_program_runs_with_torch_alone_on_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 200)).eval()
    OneShotPruner(model, {"0": 0.6, "3": 0.95}, structure="filter").finalize()
    example = inputs(2, 32, 8, 8)
    sparse = sparsify(model, example, format={"0": "gathered", "3": "csr"})
    export_program(sparse, tmp_path / "model.pt2", example)
    x = inputs(7, 32, 8, 8)
    torch.save((x, model(x).detach()), tmp_path / "expected.pt")
    run_alone(
        """
import torch
program = torch.export.load(sys.argv[1]).module()
x, expected = torch.load(sys.argv[2])
torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)
""",
        tmp_path / "model.pt2",
        tmp_path / "expected.pt",
    )
    assert type(sparse[3]).__name__ == "SparseLinear"


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_torch_cannot_export_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"ByValue that torch\.export cannot export"):
        export_program(ByValue(), tmp_path / "model.pt2", inputs(2, 3))
    with pytest.raises(SettingError, match="does not run on example_inputs"):
        export_program(mlp(), tmp_path / "model.pt2", inputs(2, 3))
    assert list(tmp_path.iterdir()) == []


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save(mlp(0.9), path)
    whole = path.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"model\.pt cannot be read"):
            load(path, mlp())
    path.write_bytes(b"\x00" * 1000)
    with pytest.raises(DataError, match="cannot be read"):
        load(path, mlp())
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "missing.pt", mlp())


def test_a_damaged_byte_does_not_go_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    model = mlp(0.9)
    save(model, path)
    whole = bytearray(path.read_bytes())
    for place in range(len(whole) // 7, len(whole), len(whole) // 7):
        damaged = whole.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            loaded = load(path, mlp())
        except DataError:
            continue
        assert_equal_states(loaded, model)


@pytest.mark.parametrize(
    "content",
    [
        {"a": torch.ones(3)},
        [1, 2],
        7,
        {"format": "other", "version": 1, "tensors": {}},
        {"format": "slr-prune", "version": 2, "tensors": {}},
        {"format": "slr-prune", "version": 1, "tensors": {"0.weight": {"shape": (3,)}}},
        {"format": "slr-prune", "version": 1, "tensors": [1]},
    ],
)
def test_foreign_files_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(DataError, match=r"expected a whole file of slr_prune\.save"):
        load(tmp_path / "model.pt", mlp())


def test_files_that_hold_code_are_not_run(tmp_path: Path) -> None:
    torch.save(mlp(), tmp_path / "model.pt")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "model.pt", mlp())


def test_a_mask_that_contradicts_its_values_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save(mlp(0.9), path)
    content = torch.load(path, weights_only=True)
    for change in ({"values": torch.ones(1)}, {"shape": (3, 5)}, {"shape": (10_000, 10_000)}):
        broken = copy.deepcopy(content)
        broken["tensors"]["0.weight"].update(change)
        torch.save(broken, path)
        with pytest.raises(DataError, match="cannot be read"):
            load(path, mlp())


def test_a_model_that_does_not_fit_is_named_and_not_touched(tmp_path: Path) -> None:
    save(mlp(0.9), tmp_path / "model.pt")
    narrow = nn.Sequential(nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 63))
    before = copy.deepcopy(narrow)
    with pytest.raises(DataError, match=r"'2\.weight' of .* has shape \(64, 512\); .* \(63, 512\)"):
        load(tmp_path / "model.pt", narrow)
    assert_equal_states(narrow, before)
    with pytest.raises(DataError, match=r"'2\.weight' is in .*model\.pt and not in the model"):
        load(tmp_path / "model.pt", nn.Sequential(nn.Linear(1024, 512)))
    with pytest.raises(DataError, match=r"'2\.bias' is in .*model\.pt and not in the model"):
        load(tmp_path / "model.pt", nn.Sequential(nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 64, False)))
    with pytest.raises(DataError, match=r"'3\.weight' is in the model and not in .*model\.pt"):
        load(tmp_path / "model.pt", nn.Sequential(*mlp(), nn.Linear(64, 1)))


def test_a_sparse_model_with_other_zeros_is_named_and_not_touched(tmp_path: Path) -> None:
    save(mlp(0.5), tmp_path / "model.pt")
    sparse = sparsify(mlp(0.9), inputs(2, 1024))
    before = copy.deepcopy(sparse)
    with pytest.raises(DataError, match=r"keeps nothing \(tensor '0\.weight'\)"):
        load(tmp_path / "model.pt", sparse)
    assert_equal_states(sparse, before)
    assert describe_sparsity(sparse) == describe_sparsity(before)


class Stateful(nn.Module):
    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def test_state_that_is_not_a_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="'_extra_state' of type dict"):
        save(Stateful(), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save(mlp(), tmp_path / "file" / "model.pt")
