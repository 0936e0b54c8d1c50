import sys
from pathlib import Path

import pytest

from tenfold.errors import UnknownNameError
from tenfold_tools.bench import bench


def test_every_benchmark_named_runs_and_leaves_its_record(workspace, tmp_path: Path) -> None:
    workspace.add("fake-one")
    assert bench(["fake-one"], tmp_path / "reports") == []
    assert (tmp_path / "reports/bench/fake-one.json").is_file()
    assert workspace.calls("fake-one").split()[0] == "bench"


def test_a_benchmark_that_fails_is_named_and_the_next_one_runs(workspace, tmp_path: Path) -> None:
    workspace.add("fake-one", works=False)
    workspace.add("fake-two")
    assert bench(["fake-one", "fake-two"], tmp_path / "reports") == ["fake-one"]
    assert (tmp_path / "reports/bench/fake-two.json").is_file()


def test_a_program_that_is_a_module_runs_with_this_python(
    workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.add("fake-one", program="python -m as_module")
    seen = tmp_path / "seen"
    (workspace.site / "as_module.py").write_text(
        f"import pathlib, sys\npathlib.Path({str(seen)!r}).write_text(sys.executable + ' ' + sys.argv[1])"
    )
    monkeypatch.setenv("PYTHONPATH", str(workspace.site))
    assert bench(["fake-one"], tmp_path / "reports") == []
    assert seen.read_text() == f"{sys.executable} bench"


def test_an_unknown_benchmark_suggests_the_nearest(workspace, tmp_path: Path) -> None:
    workspace.add("fake-one")
    with pytest.raises(UnknownNameError, match="Did you mean 'fake-one'"):
        bench(["fake-on"], tmp_path)
