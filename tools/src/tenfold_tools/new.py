"""Write a new package: one small method, its experiment, command and tests, all of which pass.

The files are templates in ``templates/package``. They say soft thresholding where the paper's method
is to stand; what is worth keeping is everything around it.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from tenfold.errors import SettingError
from tenfold_tools._workspace import scripts_folder

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new(root: Path, name: str) -> Path:
    """Write the package `name` into the workspace at `root` and return its folder.

    Nothing outside that folder changes.

    Raises
    ------
    SettingError
        `name` is no distribution name in lower case, or is taken by a package or a module.
    """
    import_name = name.replace("-", "_")
    if not _NAME.fullmatch(name):
        raise SettingError(
            f"name {name!r}", "lower-case words joined by hyphens, as in slr-prune", "Choose such a name."
        )
    folder = root / "packages" / name
    if folder.exists():
        raise SettingError(f"{folder} exists", "a name that no package has", "Choose another name.")
    if import_name in sys.stdlib_module_names or importlib.util.find_spec(import_name):
        raise SettingError(
            f"{name} would be imported as {import_name}, which is another module",
            "a name that is not imported yet",
            "Choose another name.",
        )
    try:
        _render(resources.files("tenfold_tools") / "templates" / "package", folder, name, import_name)
        shutil.copyfile(root / "LICENSE", folder / "LICENSE")
        # The order of imports and the breaks of lines depend on the name.
        for command in (["check", "--select", "I", "--fix"], ["format"]):
            ruff = [str(scripts_folder() / "ruff"), *command, "--quiet", "--no-cache", str(folder)]
            subprocess.run(ruff, cwd=root, check=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _render(source: Traversable, target: Path, name: str, import_name: str) -> None:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    target.mkdir(parents=True)
    for item in source.iterdir():
        path = target / item.name.replace("import_name", import_name).removesuffix(".jinja")
        if item.is_dir():
            _render(item, path, name, import_name)
        else:
            template = environment.from_string(item.read_text(encoding="utf-8"))
            path.write_text(template.render(name=name, import_name=import_name), encoding="utf-8")
