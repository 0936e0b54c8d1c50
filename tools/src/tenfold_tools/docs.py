"""Build the documentation site from the READMEs, the docstrings and the pages in ``docs/``.

Every file is laid out for Sphinx under the path that it has in the workspace, so that the links
between files are the ones that work on a code host, too. A package's page is its README followed by
the reference of its public modules.

Sphinx, because the docstrings are numpydoc with reStructuredText in them, which numpydoc and autodoc
render as it is meant; the READMEs stay Markdown through MyST. Warnings are errors, and the built
pages are read once more for links and anchors that lead nowhere.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tenfold.errors import TenfoldError
from tenfold_tools._workspace import Member, members, scripts_folder
from tenfold_tools.layers import FLOOR

# Modules behind the command of a package: used by name of the command, never imported.
_OUTSIDE_THE_CONTENTS = "---\norphan: true\n---\n"
_OF_THE_COMMAND = (["benchmarks"], ["cli"], ["experiments"])
_LINK = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]*`)|(?<=\]\()(?P<target>[^)\s]+)(?=\))", re.DOTALL | re.MULTILINE
)


class LinkError(TenfoldError):
    """A link of the documentation leads nowhere."""


class DocumentationError(TenfoldError):
    """Sphinx found something wrong."""


def build(root: Path) -> Path:
    """Build the site of the workspace at `root` and return its first page.

    Raises
    ------
    LinkError
        A link leads nowhere.
    DocumentationError
        Sphinx warned of something or failed.
    """
    source, html = root / "build" / "docs" / "source", root / "build" / "docs" / "html"
    for folder in (source, html):
        shutil.rmtree(folder, ignore_errors=True)
    lay_out(root, source)
    options = ["--fail-on-warning", "--quiet", "--fresh-env", "--conf-dir", str(root / "docs")]
    trees = html.with_name("trees")
    done = subprocess.run(
        [scripts_folder() / "sphinx-build", *options, "--doctree-dir", trees, source, html],
        cwd=root,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DocumentationError(
            f"sphinx says:\n{done.stderr.strip()}\n",
            "no warning",
            "Mend the docstring or the page; a file under build/docs/source is a copy.",
        )
    broken = sorted(broken_links(html))
    if broken:
        raise LinkError("; ".join(broken), "links to pages and anchors that exist", "Mend them.")
    return html / "index.html"


def lay_out(root: Path, source: Path) -> None:
    """Write the sources of the site into `source`.

    Raises
    ------
    LinkError
        A page links to a file that is not in the workspace.
    """
    found = [member for member in members(root) if member.folder.parent == root / "packages"]
    floor = [member for member in members(root) if member.name == FLOOR]
    described = [*floor, *found]
    own = [*sorted((root / "docs").glob("*.md")), root / "CONTRIBUTING.md"]
    pages = {root / "README.md": "index.md"} | {path: path.relative_to(root).as_posix() for path in own}
    pages |= {
        member.folder / "README.md": (member.folder.relative_to(root) / "index.md").as_posix()
        for member in described
    }
    names = [item for item in pages.values() if item != "index.md"]
    beside = [member.folder / "results" / "README.md" for member in described]
    results = {path: path.relative_to(root).as_posix() for path in beside if path.is_file()}
    pages |= results
    references = {member.folder / "README.md": _reference(member) for member in described}
    for path, page in pages.items():
        text = _OUTSIDE_THE_CONTENTS if path in results else ""
        text += _relinked(root, path, pages, source) + references.get(path, "")
        if page == "index.md":
            text += _contents("Packages", [item for item in names if item.endswith("index.md")])
            text += _contents("Project", [item for item in names if not item.endswith("index.md")])
        (source / page).parent.mkdir(parents=True, exist_ok=True)
        (source / page).write_text(text, encoding="utf-8")


def broken_links(html: Path) -> Iterator[str]:
    """Yield ``page: link`` for every link between the pages in `html` that leads nowhere."""
    parsed = {path: _Page(path) for path in html.rglob("*.html")}
    for path, page in parsed.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = parsed[target].anchors if target in parsed else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                yield f"{path.relative_to(html)}: {link}"


class _Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            if name in ("href", "src") and value and value != "#":
                self.links.append(value)


def _relinked(root: Path, path: Path, pages: dict[Path, str], source: Path) -> str:
    """Return the text of `path` with its links to files led to pages, or to copies beside them."""

    def relink(found: re.Match[str]) -> str:
        link = found["target"]
        if found["code"] or urlsplit(link).scheme or link.startswith("#"):
            return found[0]
        name, hash_mark, anchor = link.partition("#")
        target = (path.parent / name).resolve()
        page = target / "README.md" if target.is_dir() else target
        if page in pages:
            below = os.path.relpath(source / pages[page], (source / pages[path]).parent)
            return f"{Path(below).as_posix()}{hash_mark}{anchor}"
        if not target.is_file() or not target.is_relative_to(root):
            raise LinkError(
                f"{path.relative_to(root)} links to {link}",
                "a file or a package of the workspace",
                "Mend it.",
            )
        copy = source / target.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":  # Sphinx makes it a page
            copy.write_text(_OUTSIDE_THE_CONTENTS + target.read_text(encoding="utf-8"), encoding="utf-8")
        else:
            shutil.copyfile(target, copy)
        return link

    return _LINK.sub(relink, path.read_text(encoding="utf-8"))


def _reference(member: Member) -> str:
    modules = sorted(name for name in member.modules() if _is_public(name))
    sections = [
        f"\n### {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n" for name in modules
    ]
    return "".join(["\n## Reference\n", *sections])


def _is_public(module: str) -> bool:
    _, *parts = module.split(".")
    return parts[:1] not in _OF_THE_COMMAND and not any(part.startswith("_") for part in parts)


def _contents(caption: str, pages: list[str]) -> str:
    return "\n```{toctree}\n:hidden:\n:caption: " + caption + "\n\n" + "\n".join(pages) + "\n```\n"
