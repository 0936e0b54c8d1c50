"""Checkpoints: nested Python state with arrays and tensors in one file, without pickle.

The file is a zip of ``.npy`` members (so NumPy alone can open it) beside a JSON member that holds
the structure. The zip's checksums reveal corruption; a rename reveals only whole files.
"""

import contextlib
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.errors import CheckpointError, OutputError

_STRUCTURE = "structure.json"


def save_state(path: Path, state: Any) -> None:
    """Write `state` to `path`, whole or not at all.

    Parameters
    ----------
    path : Path
        File to write; its folder is created.
    state : nested dict, list, tuple
        Leaves may be None, bool, int, float, str, NumPy arrays (not of objects) and torch
        tensors of any dtype. Dictionary keys may be any leaf but an array.

    Raises
    ------
    TypeError
        A leaf is of another type.
    OutputError
        The file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    structure = json.dumps(_encode(state, arrays))

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(_STRUCTURE, structure)
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    write_whole(path, write)


def load_state(path: Path) -> Any:
    """Read what `save_state` wrote; tensors come back on the CPU.

    Raises
    ------
    CheckpointError
        The file is missing, truncated or corrupt.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            structure = json.loads(archive.read(_STRUCTURE))
            arrays = {}
            for name in archive.namelist():
                if name != _STRUCTURE:
                    with archive.open(name) as member:
                        arrays[name.removesuffix(".npy")] = np.lib.format.read_array(
                            member, allow_pickle=False
                        )
        return _decode(structure, arrays)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({error})",
            "a file written by save_state",
            f"Delete {path.name} or run again without --resume.",
        ) from error


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it over `path`.

    Raises
    ------
    OutputError
        The folder cannot be created or the file not written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror or error})",
            "a place that this user can write to and that has room",
            "Choose another place with --out or --json.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_encode(item, arrays) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_encode(key, arrays), _encode(item, arrays)] for key, item in value.items()]}
    name = f"array{len(arrays)}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        arrays[name] = value
        return {"array": name}
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        arrays[name] = flat.view(torch.uint8).numpy()
        return {"tensor": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if "list" in value:
        return [_decode(item, arrays) for item in value["list"]]
    if "tuple" in value:
        return tuple(_decode(item, arrays) for item in value["tuple"])
    if "dict" in value:
        return {_decode(key, arrays): _decode(item, arrays) for key, item in value["dict"]}
    if "array" in value:
        return arrays[value["array"]]
    import torch

    tensor = torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]))
    tensor.view(-1).view(torch.uint8).copy_(torch.from_numpy(arrays[value["tensor"]]))
    return tensor
