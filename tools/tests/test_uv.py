"""`tools/uv`, with a made-up python3 so that nothing is downloaded."""

import shutil
import subprocess
from pathlib import Path

import pytest

UV = Path(__file__).parents[1] / "uv"
NEEDED = ("dirname", "mkdir", "mktemp", "rm", "mv", "cat", "cp", "chmod", "sh")
PYTHON = """#!/bin/sh
make_uv() {{
    mkdir -p "$1/bin"
    printf '#!/bin/sh\\necho "uv %s $*"\\n' "$2" > "$1/bin/uv"
    chmod +x "$1/bin/uv"
}}
case "$*" in
--version) echo "Python 3.11" ;;
"-m venv"*) {venv} ;;
"-m pip --version") {pip} ;;
"-m pip install"*) {install} ;;
esac
"""
VENV = 'cp "$0" "$3.python"; make_uv "$3" venv; mv "$3.python" "$3/bin/python"'


def machine(
    folder: Path, *, uv: bool = False, venv: str = "exit 1", pip: str = "exit 1", install: str = ":"
) -> Path:
    """Lay out a checkout holding only ``tools/uv`` and a ``bin`` with this much on it."""
    (folder / "tools").mkdir()
    shutil.copy(UV, folder / "tools" / "uv")
    (folder / "bin").mkdir()
    for name in NEEDED:
        (folder / "bin" / name).symlink_to(str(shutil.which(name)))
    script(folder / "bin" / "python3", PYTHON.format(venv=venv, pip=pip, install=install))
    if uv:
        script(folder / "bin" / "uv", '#!/bin/sh\necho "uv path $*"\n')
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def call(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "tools" / "uv", "sync", "--locked"],
        env={"PATH": str(folder / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_uv_that_answers_is_used(tmp_path: Path) -> None:
    done = call(machine(tmp_path, uv=True))
    assert done.stdout == "uv path sync --locked\n"
    assert not (tmp_path / ".tools").exists()


def test_a_uv_that_does_not_answer_is_passed_over(tmp_path: Path) -> None:
    machine(tmp_path, venv=VENV)
    script(tmp_path / "bin" / "uv", "#!/bin/sh\nexit 127\n")
    assert call(tmp_path).stdout == "uv venv sync --locked\n"


def test_uv_is_fetched_once_through_venv(tmp_path: Path) -> None:
    machine(tmp_path, venv=VENV)
    assert call(tmp_path).stdout == "uv venv sync --locked\n"
    (tmp_path / "bin" / "python3").unlink()
    assert call(tmp_path).stdout == "uv venv sync --locked\n"
    assert [path.name for path in (tmp_path / ".tools").iterdir()] == ["uv"]


def test_without_venv_uv_is_fetched_into_a_folder_by_pip(tmp_path: Path) -> None:
    machine(tmp_path, pip=":", install='make_uv "$6" target')
    assert call(tmp_path).stdout == "uv target sync --locked\n"


@pytest.mark.parametrize(
    ("python", "package"), [(True, "python3-venv"), (False, "python3")], ids=["no-venv-no-pip", "no-python"]
)
def test_the_missing_system_package_is_named(tmp_path: Path, python: bool, package: str) -> None:
    machine(tmp_path)
    if not python:
        (tmp_path / "bin" / "python3").unlink()
    done = call(tmp_path)
    assert done.returncode == 1
    assert f"install the system package {package}" in done.stderr


def test_a_failed_download_shows_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    machine(tmp_path, pip=":", install="echo no route to host; exit 1")
    done = call(tmp_path)
    assert done.returncode == 1
    assert "no route to host" in done.stderr
    assert list((tmp_path / ".tools").iterdir()) == []


def test_a_torn_fetched_uv_is_replaced(tmp_path: Path) -> None:
    machine(tmp_path, venv=VENV)
    (tmp_path / ".tools").mkdir()
    script(tmp_path / ".tools" / "uv", "#!/bin/sh\nexit 1\n")
    assert call(tmp_path).stdout == "uv venv sync --locked\n"


def test_two_fetches_at_once_both_end_well(tmp_path: Path) -> None:
    machine(tmp_path, venv=f"/bin/sleep 0.3; {VENV}")
    command = [tmp_path / "tools" / "uv", "sync"]
    both = [
        subprocess.Popen(command, env={"PATH": str(tmp_path / "bin")}, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in both] == ["uv venv sync\n"] * 2
