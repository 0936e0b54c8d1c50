"""Check who imports whom, with contracts derived from the members' pyproject files.

- `tenfold` imports no package; a package imports another only where its pyproject declares it;
  nothing imports the workspace's tools.
- Nobody imports another distribution's private modules (a name with a leading underscore).
- Importing a package brings in no plotting, command line or scikit-learn, and torch only where
  the pyproject always requires it.
"""

import configparser
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tenfold_tools._workspace import Member, members

FLOOR = "tenfold"
KERNELS = "tenfold.kernels"
ON_DEMAND = ("matplotlib", "sklearn", "typer")
TORCH = ("torch", "torchvision", "triton", KERNELS)


def check(root: Path) -> int:
    """Check the members of the workspace at `root`; print what breaks and return the exit code."""
    found = members(root)
    config = configparser.ConfigParser()
    config["importlinter"] = {
        "root_packages": _lines(name for member in found for name in member.imports),
        "include_external_packages": "True",
        "exclude_type_checking_imports": "True",
        "contract_types": _lines(["eager: tenfold_tools._eager.EagerContract"]),
    }
    for number, contract in enumerate(contracts(root, found)):
        if contract["forbidden_modules"]:
            config[f"importlinter:contract:{number}"] = contract
    sources = [str(member.folder / "src") for member in found]
    installed = [str(Path(__file__).parents[1]), sysconfig.get_path("purelib")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "contracts.ini")
        with path.open("w", encoding="utf-8") as file:
            config.write(file)
        # -S: the sources of this tree are meant, not those that an editable install points to.
        program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
        options = ["--config", str(path), "--no-cache", "--no-logo", "--debug"]
        return subprocess.run(
            [sys.executable, "-S", "-c", program, *options],
            cwd=root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*sources, *installed])},
            check=False,
        ).returncode


def contracts(root: Path, found: list[Member]) -> Iterator[dict[str, str]]:
    """Yield the contracts of the members as sections of an import-linter configuration."""
    tools = [member for member in found if member.name != FLOOR and member.folder.parent == root]
    existing = {module for member in found for module in member.modules()}
    for member in found:
        others = [other for other in found if other != member]
        private = [module for other in others for module in _private(other)]
        yield _contract(
            f"{member.name} keeps out of private modules", "forbidden", member.imports, private, indirect=True
        )
        if member in tools:
            continue
        declared = member.requires | member.optional
        unseen = [
            other for other in others if other in tools or member.name == FLOOR or other.name not in declared
        ]
        yield _contract(
            f"{member.name} imports only the packages that it declares",
            "forbidden",
            member.imports,
            [name for other in unseen for name in other.imports],
            indirect=True,
        )
        tops = list(_tops(member))
        yield _contract(f"importing {member.name} is cheap", "eager", tops, ON_DEMAND)
        if "torch" not in member.requires:
            light = [module for module in tops if module != KERNELS]
            heavy = [name for name in TORCH if name != KERNELS or name in existing]
            yield _contract(f"importing {member.name} brings no torch", "eager", light, heavy)


def _contract(
    name: str, kind: str, sources: Iterable[str], forbidden: Iterable[str], indirect: bool = False
) -> dict[str, str]:
    return {
        "name": name,
        "type": kind,
        "source_modules": _lines(sources),
        "forbidden_modules": _lines(forbidden),
        "allow_indirect_imports": str(indirect),
        "as_packages": str(kind == "forbidden"),
    }


def _private(member: Member) -> Iterator[str]:
    """Outermost private modules of `member`."""
    for module in member.modules():
        *parents, last = module.split(".")
        if _is_private(last) and not any(_is_private(parent) for parent in parents):
            yield module


def _tops(member: Member) -> Iterator[str]:
    """Return what users import of `member`: its top, and the parts that `tenfold` is made of."""
    depth = 1 if member.name == FLOOR else 0
    for module in member.modules():
        last = module.rpartition(".")[2]
        if module.count(".") <= depth and not last.startswith("_"):
            yield module


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _lines(values: Iterable[str]) -> str:
    return "".join(f"\n{value}" for value in values)
