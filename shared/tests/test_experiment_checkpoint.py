from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenfold import CheckpointError, OutputError
from tenfold.experiment import load_state, save_state

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.booleans(), inner)
    ),
    max_leaves=20,
)


@given(states)
def test_nested_state_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, state: object) -> None:
    path = tmp_path_factory.mktemp("state") / "a.npz"
    save_state(path, state)
    loaded = load_state(path)
    assert loaded == state
    assert repr(loaded) == repr(state)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 1, 2)])
def test_tensors_keep_dtype_shape_and_bits(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = torch.randint(0, 2, shape).to(dtype)
    save_state(tmp_path / "a", {"t": tensor})
    loaded = load_state(tmp_path / "a")["t"]
    assert loaded.dtype == dtype
    assert torch.equal(loaded, tensor)


def test_non_contiguous_arrays_and_generator_states(tmp_path: Path) -> None:
    array = np.arange(12).reshape(3, 4).T
    generator = np.random.default_rng(3)
    save_state(tmp_path / "a", {"array": array, "generator": generator.bit_generator.state})
    loaded = load_state(tmp_path / "a")
    assert np.array_equal(loaded["array"], array)
    again = np.random.default_rng(0)
    again.bit_generator.state = loaded["generator"]
    assert again.random() == generator.random()


def test_what_cannot_be_held_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    save_state(tmp_path / "a", 1)
    with pytest.raises(TypeError, match="ndarray"):
        save_state(tmp_path / "a", np.array([object()]))
    assert load_state(tmp_path / "a") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "missing"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.npz"
    save_state(path, {"t": torch.arange(1000)})
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=r"a\.npz.*--resume"):
        load_state(path)


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/a.*--out"):
        save_state(tmp_path / "file" / "a", 1)
