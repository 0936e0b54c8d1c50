"""Releases of this workspace's distributions, rehearsed."""

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tenfold_tools._workspace import find_root
from tenfold_tools.release import release

ROOT = find_root(Path(__file__).parent)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clean checkout of the last commit."""
    folder = tmp_path_factory.mktemp("release") / "checkout"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return folder


def state(checkout: Path) -> list[bytes]:
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain"], ["tag", "--list"])
    return [
        subprocess.run(["git", *command], cwd=checkout, capture_output=True, check=True).stdout
        for command in commands
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("name", "tag"), [("slr-prune", "py3-none-any"), ("tenfold", "manylinux")], ids=["slr-prune", "tenfold"]
)
def test_a_dry_run_builds_and_tries_out_and_changes_nothing(checkout: Path, name: str, tag: str) -> None:
    before = state(checkout)
    folder = release(checkout, name)
    assert state(checkout) == before
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    assert tag in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert any(path.endswith("py.typed") for path in names)
    assert not [path for path in names if "libgomp" in path]
    with tarfile.open(sdist) as archive:
        assert any(path.endswith("LICENSE") for path in archive.getnames())
