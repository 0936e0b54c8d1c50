"""What a release tag, ``<distribution>-v<version>``, releases."""

from dataclasses import dataclass
from pathlib import Path

from tenfold.errors import SettingError, UnknownNameError
from tenfold_tools import _changelog
from tenfold_tools._workspace import Member, members


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
        The tag is malformed, its version is not the one in the pyproject file, or the CHANGELOG has no
        section for it.
    UnknownNameError
        No distribution of the workspace has that name.
    """
    name, mark, version = tag.rpartition("-v")
    if not mark or not name:
        raise SettingError(f"tag {tag!r}", "<distribution>-v<version>", "Tag again, as in slr-prune-v0.1.0.")
    member = released(root, name)
    folder, written = member.folder, member.version
    if version != written:
        raise SettingError(
            f"tag {tag!r} of version {version}",
            f"version {written}, as {folder.relative_to(root)}/pyproject.toml says",
            "Tag the commit that raises the version, with that version.",
        )
    _changelog.section(root, folder, version)
    return Plan(name, folder, member.native)


def released(root: Path, name: str) -> Member:
    """Return the member `name` of the workspace at `root`, if it is one that is published.

    Raises
    ------
    UnknownNameError
        No distribution that is published has that name.
    """
    found = {
        member.name: member
        for member in members(root)
        if member.folder.parent == root / "packages" or member.name == "tenfold"
    }
    if name not in found:
        raise UnknownNameError("distribution", name, found)
    return found[name]
