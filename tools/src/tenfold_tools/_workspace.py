"""What the workspace holds, read from its pyproject files, and what is installed of it."""

import re
import sysconfig
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from tenfold.errors import SettingError
from tenfold.experiment import Experiment

_GROUP = "tenfold.experiments"


@dataclass(frozen=True)
class Member:
    """One distribution of the workspace.

    Attributes
    ----------
    name : str
        Distribution name.
    version : str
    folder : Path
    description : str
    status : str
        Last word of its Development Status classifier, in lower case.
    requires : frozenset of str
        Names of the distributions it always needs, with the extras it asks of them:
        ``tenfold[torch]`` counts as ``tenfold`` and as ``torch``.
    optional : frozenset of str
        Names of those that only its extras need.
    imports : tuple of str
        Top-level packages under ``src``.
    scripts : tuple of str
        Names of its commands.
    experiments : tuple of str
        Names of its experiments, without its own: ``run``, ``bench``.
    requirements : tuple of str
        What it needs, always or for an extra, as written in its pyproject file.
    """

    name: str
    version: str
    folder: Path
    description: str
    status: str
    requires: frozenset[str]
    optional: frozenset[str]
    imports: tuple[str, ...]
    scripts: tuple[str, ...]
    experiments: tuple[str, ...]
    requirements: tuple[str, ...]

    @property
    def native(self) -> bool:
        """Whether it has code to compile."""
        return (self.folder / "CMakeLists.txt").is_file()

    def modules(self) -> Iterator[str]:
        """Yield the dotted name of every module."""
        source = self.folder / "src"
        for top in self.imports:
            for path in sorted((source / top).rglob("*.py")):
                parts = path.relative_to(source).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_root(start: Path) -> Path:
    """Return the nearest folder, from `start` upwards, whose pyproject.toml defines a uv workspace.

    Raises
    ------
    SettingError
        There is none.
    """
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file() and "workspace" in _load(path).get("tool", {}).get("uv", {}):
            return folder
    raise SettingError(
        f"{start} is in no uv workspace",
        "a folder inside a checkout of tenfold",
        "Change to the checkout and try again.",
    )


def members(root: Path) -> list[Member]:
    """Return the members of the workspace at `root`, by name."""
    patterns = _load(root / "pyproject.toml")["tool"]["uv"]["workspace"]["members"]
    paths = {path for pattern in patterns for path in root.glob(f"{pattern}/pyproject.toml")}
    return sorted((_member(path) for path in paths), key=lambda member: member.name)


def experiments(command: str) -> dict[str, EntryPoint]:
    """Return the installed experiments that run under `command`, by distribution name."""
    found = {}
    for point in entry_points(group=_GROUP):
        package, _, name = point.name.rpartition(".")
        if name == command:
            found[package] = point
    return dict(sorted(found.items()))


def load_experiments(package: str) -> list[Experiment[Any]]:
    """Import and return every experiment of the distribution `package`."""
    points = sorted(entry_points(group=_GROUP), key=lambda point: point.name)
    return [point.load() for point in points if point.name.rpartition(".")[0] == package]


def scripts_folder() -> Path:
    """Return the folder of this environment's console scripts."""
    return Path(sysconfig.get_path("scripts"))


def _load(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _member(path: Path) -> Member:
    project = _load(path)["project"]
    status = next(
        (
            text.rpartition(" - ")[2]
            for text in project.get("classifiers", ())
            if text.startswith("Development Status")
        ),
        "not stated",
    )
    always = project.get("dependencies", [])
    extra = [text for extra in project.get("optional-dependencies", {}).values() for text in extra]
    points = project.get("entry-points", {}).get(_GROUP, ())
    return Member(
        name=project["name"],
        version=project.get("version", ""),
        folder=path.parent,
        description=project.get("description", ""),
        status=status.lower(),
        requires=_names(always),
        optional=_names(extra),
        imports=tuple(sorted(item.parent.name for item in path.parent.glob("src/*/__init__.py"))),
        scripts=tuple(project.get("scripts", ())),
        experiments=tuple(point.rpartition(".")[2] for point in points),
        requirements=(*always, *extra),
    )


def _names(requirements: list[str]) -> frozenset[str]:
    """Names in requirement strings: ``tenfold[torch]>=0.1`` gives tenfold and torch."""
    names: set[str] = set()
    for text in requirements:
        match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", text)
        if match:
            names |= {match[1], *re.findall(r"[A-Za-z0-9._-]+", match[2] or "")}
    return frozenset(re.sub(r"[-_.]+", "-", name).lower() for name in names)
