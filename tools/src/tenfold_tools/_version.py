"""Raising the version of a member, and who depends on it."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tenfold.errors import SettingError
from tenfold_tools._workspace import Member, members


def check(member: Member, version: str) -> None:
    """Raise `SettingError` unless `version` is ``x.y.z`` and not below the member's own."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version) or Version(version) < Version(member.version):
        raise SettingError(
            f"version {version} of {member.name}",
            f"x.y.z, from {member.version} up",
            "Choose it by semantic versioning: what breaks, what is added, what is repaired.",
        )


def raise_to(member: Member, version: str) -> None:
    """Write `version` into the pyproject file and, where it stands there, the package's ``__init__``."""
    paths = {member.folder / "pyproject.toml": r'^version = ".*"$'}
    for name in member.imports:
        paths[member.folder / "src" / name / "__init__.py"] = r'^__version__ = ".*"$'
    for path, line in paths.items():
        text = path.read_text(encoding="utf-8")
        raised = re.sub(
            line, lambda found: found[0].split('"')[0] + f'"{version}"', text, count=1, flags=re.M
        )
        path.write_text(raised, encoding="utf-8")


def check_dependants(root: Path, name: str, version: str) -> None:
    """Raise `SettingError`, which names them, when members depend on `name` and exclude `version`."""
    excluding = [
        f"{member.folder.relative_to(root)}/pyproject.toml asks for {text}"
        for member in members(root)
        for text in member.requirements
        if _excludes(Requirement(text), name, version)
    ]
    if excluding:
        raise SettingError(
            "; ".join(excluding),
            f"bounds that admit {name} {version}",
            "Raise them, run the tests of those packages, and commit; then release.",
        )


def _excludes(requirement: Requirement, name: str, version: str) -> bool:
    return canonicalize_name(requirement.name) == name and version not in requirement.specifier
