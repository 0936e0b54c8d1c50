import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenfold.errors import DataError, SettingError, UnknownNameError
from tenfold_tools import tables
from tenfold_tools.cli import app

README = """# a title

<!-- table accuracy results/run.json -->
<!-- /table -->

after
"""


@pytest.fixture
def readme(workspace) -> Path:
    path = workspace.add("fake-one") / "README.md"
    path.write_text(README)
    return path


def test_write_fills_the_table_and_names_its_origin(workspace, readme: Path) -> None:
    assert tables.write(workspace.root) == [readme]
    text = readme.read_text()
    assert "| ours | 95.0 |\n| ours | 96.0 |\n| ours | 97.0 |\n" in text
    assert (
        "From [results/run.json](results/run.json): fake-one 1.2, `fake-one run --quick --seeds 3`." in text
    )
    assert text.startswith("# a title\n\n<!-- table accuracy results/run.json -->\n")
    assert text.endswith("<!-- /table -->\n\nafter\n")


def test_the_readme_of_the_results_has_tables_too(workspace, readme: Path) -> None:
    beside = readme.parent / "results" / "README.md"
    beside.write_text(
        "    <!-- table NAME FILE.json -->\n    <!-- /table -->\n\n"
        "<!-- table accuracy run.json -->\n<!-- /table -->\n"
    )
    assert tables.write(workspace.root) == [readme, beside]
    assert "    <!-- table NAME FILE.json -->\n    <!-- /table -->\n\n" in beside.read_text()
    assert "| ours | 95.0 |" in beside.read_text()
    assert "From [run.json](run.json): " in beside.read_text()


def test_what_was_written_is_not_stale_and_not_written_again(workspace, readme: Path) -> None:
    tables.write(workspace.root)
    assert tables.stale(workspace.root) == []
    assert tables.write(workspace.root) == []


def test_a_changed_digit_is_found_named_and_mended(workspace, readme: Path) -> None:
    tables.write(workspace.root)
    good = readme.read_text()
    readme.write_text(good.replace("| ours | 96.0 |", "| ours | 98.0 |"))
    line = good.splitlines().index("| ours | 96.0 |") + 1

    result = CliRunner().invoke(app, ["tables", "--check", "--root", str(workspace.root)])
    assert result.exit_code == 1
    for part in (
        "packages/fake-one/README.md",
        "'accuracy'",
        f"line {line}",
        "98.0",
        "96.0",
        "packages/fake-one/results/run.json",
        "make tables",
    ):
        assert part in result.output
    assert "98.0" in readme.read_text()

    assert CliRunner().invoke(app, ["tables", "--root", str(workspace.root)]).exit_code == 0
    assert readme.read_text() == good


def test_changed_records_make_the_readme_stale(workspace, readme: Path) -> None:
    tables.write(workspace.root)
    records = readme.parent / "results" / "run.json"
    records.write_text(records.read_text().replace('"accuracy": 97.0', '"accuracy": 97.5'))
    (error,) = tables.stale(workspace.root)
    assert "97.5" in str(error)


def test_two_tables_in_one_readme_are_both_written(workspace, readme: Path) -> None:
    readme.write_text(README + README)
    tables.write(workspace.root)
    assert readme.read_text().count("| ours | 95.0 |") == 2
    assert readme.read_text().count("after") == 2


def test_an_unknown_table_suggests_the_nearest(workspace, readme: Path) -> None:
    readme.write_text(README.replace("accuracy", "acuracy"))
    with pytest.raises(UnknownNameError, match="Did you mean 'accuracy'"):
        tables.write(workspace.root)


def test_a_missing_record_file_is_named(workspace, readme: Path) -> None:
    readme.write_text(README.replace("run.json", "gone.json"))
    with pytest.raises(DataError, match=r"gone\.json"):
        tables.stale(workspace.root)


@pytest.mark.parametrize(
    "text",
    [
        README.replace("<!-- /table -->", ""),
        README.replace("table accuracy results/run.json", "table accuracy"),
    ],
)
def test_a_malformed_marker_is_refused(workspace, readme: Path, text: str) -> None:
    readme.write_text(text)
    with pytest.raises(SettingError):
        tables.write(workspace.root)


def test_the_root_readme_lists_measured_packages_with_status_and_headline(workspace, readme: Path) -> None:
    workspace.add("fake-two")
    (workspace.root / "packages/fake-two/results/run.json").unlink()
    kept = workspace.add("fake-three") / "results" / "run.json"
    records = json.loads(kept.read_text())
    kept.write_text(json.dumps([{**record, "claims": []} for record in records]))
    one = workspace.root / "packages/fake-one/results"
    shutil.copy(one / "run.json", one / "two.json")
    root = workspace.root / "README.md"
    root.write_text("<!-- packages -->\n<!-- /packages -->\n")
    tables.write(workspace.root)
    assert root.read_text().splitlines()[1:-1] == [
        "| package | what it is | status | measured here |",
        "| --- | --- | --- | --- |",
        "| [fake-one](packages/fake-one) | About fake-one. | alpha | accuracy after pruning (paper 96 %): "
        "[run](packages/fake-one/results/run.json) 96 %, [two](packages/fake-one/results/two.json) 96 %; "
        "holds in 4 of 6 runs |",
        "| [fake-three](packages/fake-three) | About fake-three. | alpha | no claim yet |",
    ]
    root.write_text(root.read_text().replace("96 %", "99 %"))
    (error,) = tables.stale(workspace.root)
    assert "line 4" in str(error)
