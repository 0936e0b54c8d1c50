"""What a README tells its reader to do first: the ``pip install`` lines and the code after them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tenfold.errors import SettingError


@dataclass(frozen=True)
class FirstLines:
    """Requirements to install, a list for each ``pip install``, and Python code to run then."""

    installs: tuple[tuple[str, ...], ...]
    code: str


def first_lines(readme: Path) -> FirstLines:
    """Return the first lines of `readme`.

    Raises
    ------
    SettingError
        It has no block of Python, or no ``pip install`` before the first.
    """
    text = readme.read_text(encoding="utf-8")
    block = re.search(r"^```python\n(?P<code>.*?)^```$", text, re.DOTALL | re.MULTILINE)
    before = text[: block.start()] if block else ""
    installs = re.findall(r"^\s*pip install (.+)$", before, re.MULTILINE)
    if block is None or not installs:
        raise SettingError(
            f"{readme.parent.name}/README.md lacks {'`pip install`' if block else 'a block of Python'}",
            "a line `pip install ...`, then a block ```python that runs as it is",
            "Begin the README with both.",
        )
    requirements = tuple(tuple(shlex.split(line, comments=True)) for line in installs)
    return FirstLines(requirements, block["code"])
