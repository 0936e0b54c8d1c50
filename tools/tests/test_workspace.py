from pathlib import Path

import pytest

from tenfold.errors import SettingError
from tenfold_tools._workspace import find_root, members


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["packages/*", "floor"]\n')
    for folder in ("packages/a-b", "floor", "elsewhere"):
        (tmp_path / folder / "src" / "top" / "_inner").mkdir(parents=True)
        (tmp_path / folder / "pyproject.toml").write_text(
            f'[project]\nname = "{Path(folder).name}"\n'
            'dependencies = ["tenfold[torch]>=0.1", "Some_Thing; python_version < \'4\'"]\n'
            'classifiers = ["Development Status :: 4 - Beta"]\n'
            '[project.optional-dependencies]\nplots = ["matplotlib>=3"]\n'
        )
        for module in ("__init__", "shown", "_inner/__init__", "_inner/part"):
            (tmp_path / folder / "src" / "top" / f"{module}.py").touch()
    return tmp_path


def test_members_are_read_from_their_pyproject_files(root: Path) -> None:
    member, other = members(root)
    assert (member.name, other.name) == ("a-b", "floor")
    assert member.folder == root / "packages" / "a-b"
    assert member.requires == {"tenfold", "torch", "some-thing"}
    assert member.optional == {"matplotlib"}
    assert member.status == "beta"
    assert set(member.modules()) == {"top", "top.shown", "top._inner", "top._inner.part"}


def test_the_root_is_found_from_inside_a_member(root: Path) -> None:
    assert find_root(root / "packages" / "a-b" / "src") == root


def test_a_folder_outside_any_workspace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no uv workspace"):
        find_root(tmp_path)
