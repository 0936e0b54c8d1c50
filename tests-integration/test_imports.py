"""What importing a package brings in, seen from a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest

from tenfold_tools._workspace import find_root, members

ON_DEMAND = {"matplotlib", "sklearn", "typer", "pandas"}
ALLOWED_MODULES = 100

PACKAGES = [
    member for member in members(find_root(Path(__file__).parent)) if member.folder.parent.name == "packages"
]
TOPS = [
    ("tenfold", True),
    ("tenfold.data", True),
    ("tenfold.experiment", True),
    ("tenfold.hardware", True),
    *((name, "torch" not in member.requires) for member in PACKAGES for name in member.imports),
]


def in_fresh_interpreter(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    ).stdout


@pytest.mark.parametrize(("module", "light"), TOPS, ids=[module for module, _ in TOPS])
def test_importing_brings_in_nothing_that_is_used_only_on_demand(module: str, light: bool) -> None:
    loaded = set(in_fresh_interpreter(f"import sys, {module}; print(*sys.modules)").split())
    assert module in loaded
    assert not loaded & ON_DEMAND
    if light:
        assert "torch" not in loaded


@pytest.mark.parametrize("member", PACKAGES, ids=lambda member: member.name)
def test_importing_brings_in_few_modules_beyond_what_it_is_built_on(member) -> None:
    built_on = [
        name
        for name in ("torch", "numpy", "numba", "scipy", "opacus", "tenfold.kernels")
        if name.split(".")[0] in member.requires
    ]
    program = (
        f"import sys\nfor name in {built_on!r}: __import__(name)\n"
        f"before = set(sys.modules)\nimport {', '.join(member.imports)}\nprint(*set(sys.modules) - before)"
    )
    assert len(in_fresh_interpreter(program).split()) < ALLOWED_MODULES
