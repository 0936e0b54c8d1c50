"""What a release tag, ``<distribution>-v<version>``, releases."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tenfold.errors import SettingError, UnknownNameError
from tenfold_tools._workspace import members


@dataclass(frozen=True)
class Plan:
    """One distribution to release: its folder in the workspace and whether it has native code."""

    name: str
    folder: Path
    native: bool


def plan(root: Path, tag: str) -> Plan:
    """Return what `tag` releases from the workspace at `root`.

    Raises
    ------
    SettingError
        The tag is malformed or its version is not the one in the pyproject file.
    UnknownNameError
        No distribution of the workspace has that name.
    """
    name, mark, version = tag.rpartition("-v")
    if not mark or not name:
        raise SettingError(f"tag {tag!r}", "<distribution>-v<version>", "Tag again, as in slr-prune-v0.1.0.")
    found = {
        member.name: member
        for member in members(root)
        if member.folder.parent == root / "packages" or member.name == "tenfold"
    }
    if name not in found:
        raise UnknownNameError("distribution", name, found)
    folder = found[name].folder
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    written = project["project"]["version"]
    if version != written:
        raise SettingError(
            f"tag {tag!r} of version {version}",
            f"version {written}, as {folder.relative_to(root)}/pyproject.toml says",
            "Tag the commit that raises the version, with that version.",
        )
    return Plan(name, folder, (folder / "CMakeLists.txt").is_file())
