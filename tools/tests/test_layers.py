"""The import contracts, on a small workspace that is broken on purpose."""

from pathlib import Path

import pytest

from tenfold_tools.layers import check

PROJECTS = {
    "shared": ("tenfold", []),
    "tools": ("tenfold-tools", ["tenfold"]),
    "packages/heavy": ("heavy", ["tenfold[torch]"]),
    "packages/light": ("light", ["tenfold"]),
    "packages/upper": ("upper", ["tenfold", "heavy"]),
}
MODULES = {
    "shared/src/tenfold/__init__.py": "",
    "shared/src/tenfold/data.py": "import numpy\ndef load():\n    import sklearn, torch\n",
    "shared/src/tenfold/_store.py": "",
    "shared/src/tenfold/experiment/__init__.py": "from tenfold.experiment import _record\n",
    "shared/src/tenfold/experiment/_record.py": "from tenfold import _store\n",
    "shared/src/tenfold/experiment/cli.py": "import typer\n",
    "shared/src/tenfold/kernels/__init__.py": "import torch\n",
    "tools/src/programs/__init__.py": "import heavy\n",
    "packages/heavy/src/heavy/__init__.py": "from heavy import _core\n",
    "packages/heavy/src/heavy/_core.py": "import torch\nfrom tenfold import kernels\n",
    "packages/heavy/src/heavy/cli.py": "from tenfold.experiment import cli\n",
    "packages/light/src/light/__init__.py": (
        "from typing import TYPE_CHECKING\nimport tenfold.data\nif TYPE_CHECKING:\n    import torch\n"
    ),
    "packages/light/src/light/_detector.py": "import torch\n",
    "packages/upper/src/upper/__init__.py": "def run():\n    import heavy\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.uv.workspace]\nmembers = ["packages/*", "shared", "tools"]\n'
    )
    for folder, (name, requires) in PROJECTS.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\ndependencies = {requires}\n'
        )
    for path, text in MODULES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_a_sound_workspace_passes(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert check(root) == 0
    assert "0 broken" in capfd.readouterr().out


BREAKS = {
    "floor-imports-package": ("shared/src/tenfold/data.py", "import light", "tenfold imports only"),
    "undeclared-package": ("packages/light/src/light/_detector.py", "import heavy", "light imports only"),
    "undeclared-package-inside-a-function": (
        "packages/light/src/light/_detector.py",
        "def f():\n    import upper",
        "light imports only",
    ),
    "package-imports-tools": (
        "packages/upper/src/upper/__init__.py",
        "import programs",
        "upper imports only",
    ),
    "floor-imports-tools": ("shared/src/tenfold/data.py", "import programs", "tenfold imports only"),
    "private-module-of-a-package": (
        "packages/upper/src/upper/__init__.py",
        "from heavy._core import x",
        "upper keeps out of private",
    ),
    "private-module-of-the-floor": (
        "packages/light/src/light/__init__.py",
        "from tenfold.experiment import _record",
        "light keeps out of private",
    ),
    "private-module-from-the-tools": (
        "tools/src/programs/__init__.py",
        "import heavy._core",
        "tenfold-tools keeps out of private",
    ),
    "torch-under-data": ("shared/src/tenfold/data.py", "import torch", "importing tenfold brings no torch"),
    "torch-far-under-experiment": (
        "shared/src/tenfold/_store.py",
        "import torch.nn",
        "importing tenfold brings no torch",
    ),
    "kernels-under-the-floor": (
        "shared/src/tenfold/__init__.py",
        "from tenfold import kernels",
        "importing tenfold brings no torch",
    ),
    "torch-under-a-package-that-does-not-require-it": (
        "packages/light/src/light/__init__.py",
        "from light import _detector",
        "importing light brings no torch",
    ),
    "plotting-at-the-top": (
        "packages/heavy/src/heavy/_core.py",
        "import matplotlib.pyplot",
        "importing heavy is cheap",
    ),
    "command-line-at-the-top": (
        "packages/heavy/src/heavy/__init__.py",
        "from heavy import cli",
        "importing heavy is cheap",
    ),
}


@pytest.mark.parametrize(("path", "line", "contract"), BREAKS.values(), ids=BREAKS)
def test_each_break_is_found_and_named(
    root: Path, path: str, line: str, contract: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with (root / path).open("a") as file:
        file.write(f"{line}\n")
    assert check(root) == 1
    broken = [text for text in capfd.readouterr().out.splitlines() if text.endswith("BROKEN")]
    assert any(text.startswith(contract) for text in broken), broken


def test_a_new_package_is_covered_without_an_edit(root: Path) -> None:
    folder = root / "packages" / "new" / "src" / "new"
    folder.mkdir(parents=True)
    (folder.parents[1] / "pyproject.toml").write_text('[project]\nname = "new"\ndependencies = ["tenfold"]\n')
    (folder / "__init__.py").write_text("import tenfold\n")
    assert check(root) == 0
    (folder / "__init__.py").write_text("import heavy\n")
    assert check(root) == 1


def test_a_declared_dependency_allows_the_import(root: Path) -> None:
    (root / "packages/light/src/light/_detector.py").write_text("import upper\n")
    assert check(root) == 1
    (root / "packages/light/pyproject.toml").write_text(
        '[project]\nname = "light"\ndependencies = ["tenfold"]\n'
        '[project.optional-dependencies]\nall = ["upper>=1"]\n'
    )
    assert check(root) == 0
