"""`make new`, and `tools/sync` on what it leaves."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tenfold.errors import SettingError
from tenfold_tools._workspace import find_root, members, scripts_folder
from tenfold_tools.new import new

ROOT = find_root(Path(__file__).parent)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a workspace with the settings of this one and no package."""
    (tmp_path / "packages").mkdir()
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["unheard-of", "zeta", "a-paper-with-a-long-name-of-many-words-in-it"])
def test_a_new_package_is_whole_and_clean(root: Path, name: str) -> None:
    before = sorted(root.iterdir())
    folder = new(root, name)
    assert sorted(root.iterdir()) == before
    (member,) = members(root)
    assert (member.name, member.imports) == (name, (name.replace("-", "_"),))
    assert {path.name for path in folder.iterdir()} == {
        "CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", "results", "src", "tests",
    }  # fmt: skip
    assert (folder / "src" / member.imports[0] / "py.typed").read_text() == ""
    text = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "{{" not in text
    assert "import_name" not in text
    for check in (["check"], ["format", "--check"]):
        subprocess.run([scripts_folder() / "ruff", *check, "--no-cache", folder], cwd=root, check=True)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {name: f"{member.imports[0]}.cli:app"}


@pytest.mark.parametrize("name", ["Probe", "probe_pkg", "-probe", "probe-", "a b", "", "../probe", "1st"])
def test_a_malformed_name_is_refused(root: Path, name: str) -> None:
    with pytest.raises(SettingError, match="lower-case words"):
        new(root, name)
    assert list((root / "packages").iterdir()) == []


@pytest.mark.parametrize("name", ["json", "numpy", "tenfold"])
def test_a_name_that_shadows_a_module_is_refused(root: Path, name: str) -> None:
    with pytest.raises(SettingError, match="another module"):
        new(root, name)


def test_an_existing_package_is_not_touched(root: Path) -> None:
    (root / "packages" / "unheard").mkdir()
    with pytest.raises(SettingError, match="exists"):
        new(root, "unheard")


def test_a_failure_leaves_nothing_behind(root: Path) -> None:
    (root / "LICENSE").unlink()
    with pytest.raises(FileNotFoundError):
        new(root, "unheard")
    assert list((root / "packages").iterdir()) == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Lay out a checkout whose ``tools/uv`` only notes what it was asked and rewrites the lock."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "sync", tmp_path / "tools")
    uv = tmp_path / "tools" / "uv"
    uv.write_text('#!/bin/sh\necho "$*" > asked\necho changed >> uv.lock\nexit ${UV_EXIT:-0}\n')
    uv.chmod(0o755)
    for name in ("old", "unheard"):
        (tmp_path / "packages" / name).mkdir(parents=True)
        (tmp_path / "packages" / name / "pyproject.toml").touch()
    return tmp_path


def test_sync_of_listed_members_is_locked(checkout: Path) -> None:
    (checkout / "uv.lock").write_text('name = "old"\nname = "unheard"\n')
    subprocess.run([checkout / "tools" / "sync", "--offline"], check=True)
    assert (checkout / "asked").read_text() == "sync --all-packages --all-extras --locked --offline\n"


@pytest.mark.parametrize("code", [0, 2])
def test_sync_of_an_unlisted_member_puts_the_lock_back(
    checkout: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_EXIT", str(code))
    (checkout / "uv.lock").write_text('name = "old"\n')
    done = subprocess.run([checkout / "tools" / "sync"], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "not in uv.lock yet: unheard" in done.stderr
    assert (checkout / "asked").read_text() == "sync --all-packages --all-extras\n"
    assert (checkout / "uv.lock").read_text() == 'name = "old"\n'
