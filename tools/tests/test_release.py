"""`make release`, all but the building: that is in tests-integration."""

import subprocess
from pathlib import Path

import pytest

from tenfold.errors import SettingError, UnknownNameError
from tenfold_tools import _changelog, _version
from tenfold_tools import release as releases
from tenfold_tools._first_lines import FirstLines, first_lines
from tenfold_tools._workspace import members
from tenfold_tools.release import ReleaseError, release

CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-01-31

- Faster.

## 0.1.0

- First.
"""
UV = """#!/bin/sh
# Builds empty files, writes a lock, and does nothing else.
case "$1" in
lock) echo relocked >> uv.lock ;;
build)
    mkdir -p "$3"
    version=$(sed -n 's/^version = "\\(.*\\)"/\\1/p' "$4/pyproject.toml")
    touch "$3/lower-$version-py3-none-any.whl" "$3/lower-$version.tar.gz"
    ;;
esac
"""


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a clean checkout of a package and one that depends on it, with an origin to push to."""
    root, origin = tmp_path / "root", tmp_path / "origin"
    for folder, requires in (("lower", "[]"), ("upper", '["lower>=0.1,<0.3"]')):
        package = root / "packages" / folder
        (package / "src" / folder).mkdir(parents=True)
        (package / "src" / folder / "__init__.py").write_text('"""A package."""\n\n__version__ = "0.1.0"\n')
        (package / "pyproject.toml").write_text(
            f'[project]\nname = "{folder}"\nversion = "0.1.0"\ndependencies = {requires}\n'
            f'[project.scripts]\n{folder} = "{folder}:main"\n'
        )
        (package / "CHANGELOG.md").write_text(CHANGELOG)
    (root / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["packages/*"]\n')
    (root / ".gitignore").write_text("dist/\n")
    (root / "uv.lock").write_text("locked\n")
    (root / "tools").mkdir()
    (root / "tools" / "uv").write_text(UV)
    (root / "tools" / "uv").chmod(0o755)
    subprocess.run(["git", "init", "--quiet", "--bare", origin], check=True)
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "trunk", root], check=True)
    git(root, "config", "user.name", "A")
    git(root, "config", "user.email", "a@example.org")
    git(root, "remote", "add", "origin", str(origin))
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "All")
    return root


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the parts that need real files; return the versions that were tried out."""
    versions: list[str] = []
    run = releases._run
    monkeypatch.setattr(releases, "_try_out", lambda uv, clone, member, *_: versions.append(member.version))
    monkeypatch.setattr(
        releases, "_run", lambda what, *rest: "" if what == "twine check" else run(what, *rest)
    )
    return versions


def state(root: Path) -> tuple[str, str, str, str]:
    """Return what a release must not change: HEAD, the tags, the files, and what origin has."""
    return (
        git(root, "rev-parse", "HEAD"),
        git(root, "tag", "--list"),
        git(root, "status", "--porcelain"),
        git(root, "ls-remote", "origin"),
    )


def test_a_dry_run_leaves_files_in_dist_and_nothing_else(root: Path, tried: list[str]) -> None:
    before, told = state(root), []
    folder = release(root, "lower", "0.2.0", tell=told.append)
    assert tried == ["0.2.0"]
    assert folder == root / "dist" / "lower-0.2.0"
    assert {path.name for path in folder.iterdir()} == {"lower-0.2.0-py3-none-any.whl", "lower-0.2.0.tar.gz"}
    assert state(root) == before
    assert "not published" in told[-1]


def test_without_a_version_the_present_one_is_tried(root: Path, tried: list[str]) -> None:
    release(root, "lower")
    assert tried == ["0.1.0"]


def test_for_real_the_bump_is_committed_tagged_and_pushed(root: Path, tried: list[str]) -> None:
    release(root, "lower", "0.2.0", for_real=True)
    (member, _) = members(root)
    assert member.version == "0.2.0"
    assert '__version__ = "0.2.0"' in (member.folder / "src" / "lower" / "__init__.py").read_text()
    assert (root / "uv.lock").read_text() == "locked\nrelocked\n"
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "log", "-1", "--format=%an %s") == "A Release lower 0.2.0"
    head = git(root, "rev-parse", "HEAD")
    assert git(root, "rev-parse", "lower-v0.2.0^{commit}") == head
    assert git(root, "ls-remote", "origin", "refs/heads/trunk").startswith(head)
    assert git(root, "ls-remote", "origin", "refs/tags/lower-v0.2.0^{}").startswith(head)
    with pytest.raises(SettingError, match=r"tag lower-v0\.2\.0 exists"):
        release(root, "lower", "0.2.0")


def test_a_push_that_is_refused_changes_nothing(root: Path, tried: list[str], tmp_path: Path) -> None:
    hook = tmp_path / "origin" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho no; exit 1\n")
    hook.chmod(0o755)
    before = state(root)
    with pytest.raises(ReleaseError, match="git push failed"):
        release(root, "lower", "0.2.0", for_real=True)
    assert state(root) == before


def test_a_step_that_fails_changes_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(root)
    (tmp_path / "twine").write_text("#!/bin/sh\necho the readme does not render; exit 1\n")
    (tmp_path / "twine").chmod(0o755)
    monkeypatch.setattr(releases, "scripts_folder", lambda: tmp_path)
    with pytest.raises(ReleaseError, match=r"twine check failed.*\n.*does not render"):
        release(root, "lower", "0.2.0", for_real=True)
    assert state(root) == before
    assert not (root / "dist").exists()


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("lower", "0.2.5", r"packages/lower/CHANGELOG\.md has no section for 0\.2\.5.*Move the entries"),
        ("lower", "0.0.9", r"version 0\.0\.9 of lower; expected x\.y\.z, from 0\.1\.0 up"),
        ("lower", "0.2", r"version 0\.2 of lower"),
        ("lower", "0.2.0rc1", r"version 0\.2\.0rc1 of lower"),
        ("upper", "0.1.0", r"lower 0\.1\.0 is needed and not released.*Release lower first"),
    ],
)
def test_what_cannot_be_released_is_refused(
    root: Path, tried: list[str], name: str, version: str, message: str
) -> None:
    before = state(root)
    with pytest.raises(SettingError, match=message):
        release(root, name, version, for_real=True)
    assert (state(root), tried) == (before, [])


def test_a_checkout_with_changes_is_refused(root: Path, tried: list[str]) -> None:
    (root / "a new file").touch()
    with pytest.raises(SettingError, match=r"not committed: .*a new file.*Commit or stash"):
        release(root, "lower")
    assert tried == []


def test_an_unknown_distribution_is_refused(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="'lower'"):
        release(root, "lowr")


def test_dependants_whose_bounds_break_are_named(root: Path) -> None:
    _version.check_dependants(root, "lower", "0.2.9")
    with pytest.raises(SettingError, match=r"packages/upper/pyproject\.toml asks for lower>=0\.1,<0\.3"):
        _version.check_dependants(root, "lower", "0.3.0")


@pytest.mark.parametrize(("version", "body"), [("0.2.0", "- Faster."), ("0.1.0", "- First.")])
def test_the_section_of_a_version_is_found(tmp_path: Path, version: str, body: str) -> None:
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    assert _changelog.section(tmp_path, tmp_path, version) == body


@pytest.mark.parametrize("version", ["Unreleased", "0.2", "0.20.0", "0x2.0"])
def test_an_empty_or_missing_section_is_refused(tmp_path: Path, version: str) -> None:
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    with pytest.raises(SettingError, match="no section"):
        _changelog.section(tmp_path, tmp_path, version)


def test_the_first_lines_of_a_readme(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "    pip install a            # light\n    pip install 'a[torch]' b\n\n"
        "```python\nimport a\n\na.run()\n```\n\n    pip install 'a[more]'\n\n```python\nmore\n```\n"
    )
    assert first_lines(readme) == FirstLines((("a",), ("a[torch]", "b")), "import a\n\na.run()\n")


@pytest.mark.parametrize(
    ("text", "lacks"), [("pip install a\n", "a block of Python"), ("```python\n```\n", "`pip install`")]
)
def test_a_readme_without_first_lines_is_refused(tmp_path: Path, text: str, lacks: str) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(SettingError, match=lacks):
        first_lines(tmp_path / "README.md")
