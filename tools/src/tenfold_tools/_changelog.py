"""The section of a version in a CHANGELOG."""

import re
from pathlib import Path

from tenfold.errors import SettingError


def section(root: Path, folder: Path, version: str) -> str:
    """Return what the CHANGELOG in `folder` says of `version`.

    Raises
    ------
    SettingError
        There is no such section, or nothing is in it.
    """
    path = folder / "CHANGELOG.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    heading = rf"^## \[?{re.escape(version)}\]?( - \d{{4}}-\d\d-\d\d)?[ \t]*$"
    found = re.search(rf"{heading}(?P<body>.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None or not found["body"].strip():
        raise SettingError(
            f"{path.relative_to(root)} has no section for {version}",
            f"a heading '## [{version}]' over what has changed",
            "Move the entries under 'Unreleased' there and commit.",
        )
    return found["body"].strip()
