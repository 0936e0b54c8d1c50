"""Built distributions, installed into empty environments."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tenfold_tools._workspace import find_root, members

pytestmark = pytest.mark.slow

ROOT = find_root(Path(__file__).parent)
UV = ROOT / "tools" / "uv"
PACKAGES = [member for member in members(ROOT) if member.folder.parent == ROOT / "packages"]
COMPILES = shutil.which("c++") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


def run(*command: str | Path, native: bool = True) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    if not native:
        environment["TENFOLD_NATIVE"] = "0"
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=580
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a wheel of every distribution, the sdist of `tenfold` and the lock's constraints."""
    folder = tmp_path_factory.mktemp("dist")
    shared = ROOT / "shared"
    run(UV, "build", "--sdist", "--wheel", "--out-dir", folder, shared)
    for member in PACKAGES:
        run(UV, "build", "--wheel", "--out-dir", folder, member.folder)
    constraints = run(
        UV, "export", "--all-packages", "--all-extras", "--frozen", "--no-emit-workspace", "--no-hashes"
    )
    (folder / "constraints.txt").write_text(constraints)
    return folder


@pytest.fixture
def install(built: Path, tmp_path: Path):
    """Install requirements into an empty environment and return the folder of its programs."""

    def install(*requirements: str | Path, native: bool = True) -> Path:
        python = tmp_path / "venv" / "bin" / "python"
        run(UV, "venv", "--python", sys.executable, tmp_path / "venv")
        from_build = ["--find-links", built, "--constraints", built / "constraints.txt"]
        run(UV, "pip", "install", "--python", python, *from_build, *requirements, native=native)
        return python.parent

    return install


def test_tenfold_alone_brings_no_torch_and_describes_the_hardware(built: Path, install) -> None:
    programs = install(one(built, "tenfold-*.whl"))
    found = run(programs / "python", "-c", "import importlib.util as u; print(u.find_spec('torch'))")
    assert found.strip() == "None"
    assert run(programs / "python", "-m", "tenfold", "hardware").strip()


@pytest.mark.parametrize("member", PACKAGES, ids=lambda member: member.name)
def test_a_wheel_of_each_package_installs_and_runs(built: Path, install, member) -> None:
    programs = install(f"{member.name}=={version(built, member.name)}")
    assert "run" in run(programs / member.name, "--help")
    if "torch" in member.requires:
        listed = json.loads(run(programs / "python", "-m", "tenfold", "kernels", "--json"))
        picks = {item["picks"]["cpu"].split(":")[0] for item in listed["operators"]}
        assert picks == {"native" if COMPILES else "reference"}
    where = run(programs / "python", "-c", "import tenfold; print(tenfold.__file__)").strip()
    assert Path(where).is_relative_to(programs.parent)


@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_the_sdist_installs_with_and_without_native_code(
    built: Path, install, tmp_path: Path, native: bool
) -> None:
    # From a path of its own: uv's cache tells the two builds of one sdist file not apart.
    sdist = shutil.copy(one(built, "tenfold-*.tar.gz"), tmp_path)
    programs = install(sdist, native=native)
    assert run(programs / "python", "-m", "tenfold", "hardware").strip()
    libraries = list(programs.parent.glob("lib/python*/site-packages/tenfold/**/*.so"))
    assert bool(libraries) == (native and COMPILES)


def one(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def version(built: Path, name: str) -> str:
    return one(built, f"{name.replace('-', '_')}-*.whl").name.split("-")[1]
