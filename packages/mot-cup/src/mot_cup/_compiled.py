"""The decorator of compiled functions, and their code on disk.

Numba keeps the code of a function beside its source, for as long as that one file is unchanged. But the code
holds that of the functions called too, which may be in other files. So all of it is dropped when any file of
the package has changed; its index could otherwise name a class that there no longer is, and not be read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function by numba, once a machine.

    Sums keep their order (no fast-math) and a division by zero is infinite or NaN, so that results are those
    of NumPy to rounding.
    """
    return cast(F, numba.njit(cache=True, error_model="numpy")(function))


def inlined(function: F) -> F:
    """Compile a function into those that call it.

    A function that calls another counts its arrays in and out, atomically, every time that it is called;
    that takes longer than what the small functions of a filter do.
    """
    return cast(F, numba.njit(cache=True, error_model="numpy", forceinline=True)(function))


def drop_outdated_code(package: Path) -> bool:
    """Remove the code that numba keeps of a package if a source file has changed, and return whether it did.

    Parameters
    ----------
    package : Path
        Folder of the sources.
    """
    files = sorted((path, path.stat()) for path in package.glob("*.py"))
    state = "".join(f"{path.name} {status.st_mtime_ns} {status.st_size}\n" for path, status in files)
    note = package / "__pycache__" / "compiled-from.txt"
    try:
        if note.is_file() and note.read_text() == state:
            return False
        note.parent.mkdir(exist_ok=True)
        for path in [*note.parent.glob("*.nbi"), *note.parent.glob("*.nbc")]:
            path.unlink(missing_ok=True)
        note.write_text(state)
    except OSError:  # Not ours to write: numba then keeps its code elsewhere, and no source here changes.
        return False
    return True


drop_outdated_code(Path(__file__).parent)
