"""Release one distribution: build it, try it out as a user would, tag it.

All of it happens in a clone of HEAD that is thrown away, so a step that fails leaves the checkout
as it was. A dry run ends there, with the built files in ``dist/``. For real, commit and tag are
pushed to ``origin`` in one, and then brought into the checkout. What publishes is the workflow
``release.yml``, which the tag starts: it builds the portable wheels that this machine may be too new
to build, and holds the right to upload.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tenfold.errors import SettingError, TenfoldError
from tenfold_tools import _changelog, _version
from tenfold_tools._first_lines import first_lines
from tenfold_tools._workspace import Member, members, scripts_folder
from tenfold_tools.tag import released

# torch, always imported before the kernels, brings its own under this name; a second copy would be
# a second pool of threads.
_LEFT_TO_TORCH = "libgomp.so.1"
_TAIL_LINES = 25
# What would make a build or a run here differ from a user's.
_KEPT_OUT = {"VIRTUAL_ENV", "PYTHONPATH", "TENFOLD_NATIVE", "TENFOLD_KERNELS"}

Tell = Callable[[str], None]


class ReleaseError(TenfoldError):
    """A step of a release failed; nothing was changed."""


def release(
    root: Path, name: str, version: str | None = None, *, for_real: bool = False, tell: Tell = print
) -> Path:
    """Release the distribution `name` from the clean checkout at `root`.

    Parameters
    ----------
    root : Path
    name : str
    version : str, optional
        Of the form ``x.y.z``; the one in the pyproject file when not given.
    for_real : bool
        Commit, tag and push. Otherwise nothing but ``dist/`` changes.
    tell : callable
        Hears what is being done.

    Returns
    -------
    Path
        Folder of the built files, ``dist/<name>-<version>``.

    Raises
    ------
    UnknownNameError
        No distribution that is published has that name.
    SettingError
        The checkout has changes, the version is malformed, falls or is tagged already, the CHANGELOG
        has no section for it, or a dependant's bounds exclude it.
    ReleaseError
        A step failed.
    """
    member = released(root, name)
    version = version or member.version
    tag = f"{name}-v{version}"
    _version.check(member, version)
    _changelog.section(root, member.folder, version)
    _version.check_dependants(root, name, version)
    unreleased = [item for item in _needs(root, member) if not _has_tag(root, f"{item.name}-v{item.version}")]
    _check_checkout(root, tag)
    if for_real:
        _check_reality(root, unreleased)

    uv = root / "tools" / "uv"
    begun = time.monotonic()

    def step(text: str) -> None:
        tell(f"{time.monotonic() - begun:5.0f} s  {text}")

    with tempfile.TemporaryDirectory(prefix="tenfold-release-") as folder:
        scratch = Path(folder).resolve()
        step(f"clone of {_git(root, 'rev-parse', '--short', 'HEAD')}")
        clone = scratch / "clone"
        _git(root, "clone", "--quiet", str(root), str(clone))
        _git(clone, "checkout", "--quiet", _git(root, "rev-parse", "HEAD"))
        member = released(clone, name)
        if version != member.version:
            step(f"version {member.version} becomes {version}")
            _version.raise_to(member, version)
            _run("uv lock", [uv, "lock"], clone)
            member = released(clone, name)

        step("sdist and wheel")
        built = scratch / "dist"
        _run(f"building {name}", [uv, "build", "--out-dir", built, member.folder], clone)
        if member.native:
            _repair(built, scratch)
        files = sorted(built.glob(f"{name.replace('-', '_')}-{version}*"))
        _run("twine check", [scripts_folder() / "twine", "check", "--strict", *files], scratch)
        for file in files:
            step(f"built {file.name}")

        for item in unreleased:
            step(f"note: {item.name} {item.version}, which {name} needs, is not released yet")
        _try_out(uv, clone, member, built, scratch, step)

        kept = root / "dist" / f"{name}-{version}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(built, kept, ignore=lambda _, names: {item for item in names if item == ".gitignore"})
        if for_real:
            step(f"commit, tag {tag} and push")
            _push(root, clone, name, version, tag)
            step(f"{tag} is pushed; the release workflow publishes it")
        else:
            step(f"dry run: not tagged {tag}, not published; the files are in {kept.relative_to(root)}")
    return kept


def _check_checkout(root: Path, tag: str) -> None:
    changes = [line[3:] for line in _git(root, "status", "--porcelain").splitlines()]
    if changes:
        raise SettingError(
            f"{root} has changes that are not committed: {', '.join(changes)}",
            "a clean checkout, since what is committed is what is released",
            "Commit or stash them.",
        )
    if _has_tag(root, tag):
        raise SettingError(f"tag {tag} exists", "a version that is not released", "Choose a higher version.")


def _check_reality(root: Path, unreleased: list[Member]) -> None:
    """Raise for what a dry run forgives."""
    for item in unreleased:
        raise SettingError(
            f"{item.name} {item.version} is needed and not released",
            f"a tag {item.name}-v{item.version}",
            f"Release {item.name} first.",
        )
    _git(root, "symbolic-ref", "HEAD")
    _git(root, "remote", "get-url", "origin")


def _repair(built: Path, scratch: Path) -> None:
    """Turn the wheel in `built` into a manylinux one, if it holds what it says."""
    (wheel,) = built.glob("*.whl")
    libraries = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    stable = "-abi3-" in wheel.name
    if not libraries or (stable and not all(name.endswith(".abi3.so") for name in libraries)):
        raise ReleaseError(
            f"{wheel.name} holds {', '.join(libraries) or 'no compiled module'}",
            "modules of the stable ABI, as its name says" if stable else "the native kernels",
            "Look at the build's own output: uv build -v.",
        )
    options = ["--exclude", _LEFT_TO_TORCH, "--wheel-dir", str(scratch / "repaired")]
    _run("auditwheel", [scripts_folder() / "auditwheel", "repair", *options, wheel], scratch)
    wheel.unlink()
    (repaired,) = (scratch / "repaired").glob("*manylinux*.whl")
    shutil.move(repaired, built)


def _try_out(uv: Path, clone: Path, member: Member, built: Path, scratch: Path, step: Tell) -> None:
    """Do in an empty environment what the README says first, then run the package's command."""
    lines = first_lines(member.folder / "README.md")
    place = scratch / "empty"
    place.mkdir()
    _run("uv venv", [uv, "venv", "--python", sys.executable, place / "venv"], place)
    programs = place / "venv" / "bin"

    constraints = scratch / "constraints.txt"
    options = ["--all-packages", "--all-extras", "--frozen", "--no-emit-workspace", "--no-hashes"]
    locked = _run("uv export", [uv, "export", *options], clone)
    wheels = [next(built.glob("*.whl"))]
    for needed in _needs(clone, member):
        step(f"wheel of {needed.name}, which it needs")
        _run(
            f"building {needed.name}",
            [uv, "build", "--wheel", "--out-dir", scratch / needed.name, needed.folder],
            clone,
        )
        wheels += (scratch / needed.name).glob("*.whl")
    # Of the same name there may be another file on the index: these are the ones meant.
    ours = [f"{wheel.name.split('-')[0].replace('_', '-')} @ {wheel.as_uri()}" for wheel in wheels]
    constraints.write_text("\n".join([locked, *ours]) + "\n", encoding="utf-8")

    for requirements in lines.installs:
        step(f"empty environment: pip install {' '.join(requirements)}")
        into = ["--python", str(programs / "python"), "--constraints", str(constraints)]
        _run("installing", [uv, "pip", "install", *into, *requirements], place)
    step("empty environment: the README's first lines of Python")
    (place / "first_lines.py").write_text(lines.code, encoding="utf-8")
    _run("the README's first lines", [programs / "python", place / "first_lines.py"], place)
    if member.native:
        _run("the native kernels", [programs / "python", clone / "tools" / "insist_native.py"], place)
    for command in _commands(member):
        step(f"empty environment: {' '.join(command)}")
        _run(" ".join(command), [programs / command[0], *command[1:]], place)


def _commands(member: Member) -> Iterator[list[str]]:
    """Yield the commands of `member` that show that it works."""
    scripts = [[name] for name in member.scripts] or [["python", "-m", member.imports[0]]]
    for script in scripts:
        yield [*script, "--help"]
    for experiment in sorted(member.experiments, key="run".__ne__)[:1]:
        yield [*scripts[0], experiment, "--quick", "--threads", "1"]


def _needs(root: Path, member: Member) -> list[Member]:
    """Return the members that `member` needs, directly or not, extras included."""
    found = {item.name: item for item in members(root)}
    needed: dict[str, Member] = {}
    ahead = [member]
    while ahead:
        item = ahead.pop()
        for name in sorted((item.requires | item.optional) & (found.keys() - needed.keys() - {member.name})):
            needed[name] = found[name]
            ahead.append(found[name])
    return list(needed.values())


def _push(root: Path, clone: Path, name: str, version: str, tag: str) -> None:
    branch = _git(root, "symbolic-ref", "--short", "HEAD")
    for key in ("user.name", "user.email"):
        _git(clone, "config", key, _git(root, "config", key))
    if _git(clone, "status", "--porcelain"):
        _git(clone, "commit", "--quiet", "--all", "--message", f"Release {name} {version}")
    _git(clone, "tag", "--annotate", tag, "--message", f"{name} {version}")
    commit, mark = _git(clone, "rev-parse", "HEAD"), _git(clone, "rev-parse", f"refs/tags/{tag}")
    # Into the object store only: no branch and no tag moves before the push has gone through.
    _git(root, "fetch", "--quiet", "--no-tags", str(clone), f"refs/tags/{tag}")
    pushed = [f"{commit}:refs/heads/{branch}", f"{mark}:refs/tags/{tag}"]
    _git(root, "push", "--quiet", "--atomic", "origin", *pushed)
    try:
        _git(root, "merge", "--quiet", "--ff-only", commit)
        _git(root, "update-ref", f"refs/tags/{tag}", mark)
    except ReleaseError as error:
        raise ReleaseError(
            f"{tag} is pushed and will be published, but this checkout has changed meanwhile",
            "nobody to work in it during a release",
            "Run git pull --tags.",
        ) from error


def _has_tag(root: Path, tag: str) -> bool:
    return bool(_git(root, "tag", "--list", tag))


def _git(folder: Path, *arguments: str) -> str:
    return _run(f"git {arguments[0]}", ["git", "-C", folder, *arguments], folder).rstrip()


def _run(what: str, command: Sequence[str | Path], folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in _KEPT_OUT}
    environment["PATH"] = os.pathsep.join([str(scripts_folder()), environment.get("PATH", "")])
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-_TAIL_LINES:])
        raise ReleaseError(
            f"{what} failed, with this at the end:\n{tail}\n",
            "it to succeed",
            "Nothing was changed or published; mend it and release again.",
        )
    return done.stdout
