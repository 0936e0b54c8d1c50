from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenfold.errors import SettingError, UnknownNameError
from tenfold_tools.cli import app
from tenfold_tools.tag import plan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.uv.workspace]\nmembers = ["packages/*", "shared", "tools"]\n'
    )
    for folder, name in (("packages/a-v2", "a-v2"), ("shared", "tenfold"), ("tools", "programs")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "1.2.3"\n')
        (tmp_path / folder / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3]\n\n- More.\n")
    (tmp_path / "shared" / "CMakeLists.txt").touch()
    return tmp_path


def test_the_tag_names_a_distribution_and_its_version(root: Path) -> None:
    found = plan(root, "a-v2-v1.2.3")
    assert (found.name, found.folder, found.native) == ("a-v2", root / "packages" / "a-v2", False)


def test_native_code_is_seen_and_printed_for_the_workflow(root: Path) -> None:
    result = CliRunner().invoke(app, ["tag", "tenfold-v1.2.3", "--root", str(root)])
    assert result.output == "name=tenfold\nfolder=shared\nnative=true\n"


@pytest.mark.parametrize("tag", ["a-v2-v1.2.4", "tenfold-1.2.3", "-v1.2.3", "v1.2.3"])
def test_another_version_or_a_malformed_tag_is_refused(root: Path, tag: str) -> None:
    with pytest.raises(SettingError):
        plan(root, tag)


def test_a_version_that_the_changelog_does_not_tell_of_is_refused(root: Path) -> None:
    (root / "shared" / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.2]\n\n- Less.\n")
    with pytest.raises(SettingError, match=r"no section for 1\.2\.3"):
        plan(root, "tenfold-v1.2.3")


def test_an_unpublished_member_is_not_released(root: Path) -> None:
    with pytest.raises(UnknownNameError):
        plan(root, "programs-v1.2.3")
