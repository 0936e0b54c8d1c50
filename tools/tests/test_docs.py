"""`make docs`: how the sources are laid out, and what is not let through."""

from pathlib import Path

import pytest

from tenfold_tools._workspace import find_root
from tenfold_tools.docs import DocumentationError, LinkError, broken_links, build, lay_out

ROOT = find_root(Path(__file__).parent)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["packages/*"]\n')
    (root / "README.md").write_text("# All\n\n[design](docs/design.md#traps), [who](LICENSE)\n")
    (root / "CONTRIBUTING.md").write_text(
        "# Contributing\n\n[all](README.md), [there](https://example.org)\n"
    )
    (root / "docs" / "design.md").write_text("# Design\n\n## Traps\n\n[up](../CONTRIBUTING.md)\n")
    (root / "docs" / "conf.py").write_bytes((ROOT / "docs" / "conf.py").read_bytes())
    (root / "LICENSE").write_text("Do.")
    return root


def add_package(root: Path) -> Path:
    folder = root / "packages" / "one"
    for name in (
        "__init__",
        "__main__",
        "cli",
        "experiments",
        "shown",
        "shown/cli",
        "_hidden",
        "_inner/part",
    ):
        path = folder / "src" / "one" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "pyproject.toml").write_text('[project]\nname = "one"\n')
    (folder / "results.json").write_text("{}")
    (folder / "README.md").write_text(
        "# one\n\n[record](results.json) of [all](../../README.md)\n\n```python\nlist[0](nothing)\n```\n"
    )
    with (root / "README.md").open("a") as file:
        file.write("\n[one](packages/one)\n")
    return folder


def test_links_lead_to_pages_or_to_copies(root: Path, tmp_path: Path) -> None:
    add_package(root)
    source = tmp_path / "source"
    lay_out(root, source)
    index = (source / "index.md").read_text()
    assert "[design](docs/design.md#traps), [who](LICENSE)" in index
    assert "[one](packages/one/index.md)" in index
    assert (source / "LICENSE").read_text() == "Do."
    page = (source / "packages" / "one" / "index.md").read_text()
    assert "[record](results.json) of [all](../../index.md)" in page
    assert "list[0](nothing)" in page
    assert (source / "packages" / "one" / "results.json").exists()


def test_the_page_of_results_is_beside_the_contents(root: Path, tmp_path: Path) -> None:
    folder = add_package(root)
    (folder / "results").mkdir()
    (folder / "results" / "README.md").write_text("[of](../README.md) [run](run.json)\n")
    (folder / "results" / "run.json").write_text("{}")
    source = tmp_path / "source"
    lay_out(root, source)
    page = (source / "packages/one/results/README.md").read_text()
    assert page == "---\norphan: true\n---\n[of](../index.md) [run](run.json)\n"
    assert (source / "packages/one/results/run.json").exists()
    assert "results/README.md" not in (source / "index.md").read_text()


def test_every_page_is_in_the_contents(root: Path, tmp_path: Path) -> None:
    add_package(root)
    lay_out(root, tmp_path / "source")
    pages = {path.relative_to(tmp_path / "source") for path in (tmp_path / "source").rglob("*.md")}
    lines = (tmp_path / "source" / "index.md").read_text().splitlines()
    assert {str(page) for page in pages} - {"index.md"} == {line for line in lines if line.endswith(".md")}


def test_the_reference_has_the_public_modules(root: Path, tmp_path: Path) -> None:
    add_package(root)
    lay_out(root, tmp_path / "source")
    page = (tmp_path / "source" / "packages" / "one" / "index.md").read_text().split("## Reference")[1]
    modules = [line.split("::")[1].strip() for line in page.splitlines() if "automodule" in line]
    assert modules == ["one", "one.shown", "one.shown.cli"]


@pytest.mark.parametrize("link", ["absent.md", "packages", "../secret", "packages/two/README.md"])
def test_a_link_to_no_file_of_the_workspace_is_refused(root: Path, tmp_path: Path, link: str) -> None:
    (root / "packages").mkdir()
    (tmp_path / "secret").touch()
    (root / "README.md").write_text(f"# All\n\n[there]({link})\n")
    with pytest.raises(LinkError, match=rf"README\.md links to {link}"):
        lay_out(root, tmp_path / "source")


def test_broken_links_between_built_pages_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html"></a><a href="b.html#x%20y"></a><a href="#here"></a><a href="#"></a>'
        '<a href="https://example.org"></a><a href="b.html#gone"></a><a href="#gone"></a>'
        '<img src="c.png"></p>'
    )
    (tmp_path / "b.html").write_text('<p id="x y"></p>')
    assert sorted(broken_links(tmp_path)) == ["a.html: #gone", "a.html: b.html#gone", "a.html: c.png"]


@pytest.mark.slow
def test_a_site_is_built_and_a_warning_is_an_error(root: Path) -> None:
    page = build(root)
    assert 'href="docs/design.html#traps"' in page.read_text()
    (root / "CONTRIBUTING.md").write_text("# Contributing\n\n[there](#nowhere)\n")
    with pytest.raises(DocumentationError, match="nowhere"):
        build(root)
