import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tenfold import OutputError, SettingError, UnknownNameError
from tenfold.experiment import read_records
from tenfold.experiment.cli import user_function, write_document

PROGRAM = Path(__file__).parent / "support" / "random_walk.py"


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        check=False,
    )


def test_a_run_prints_a_table_and_writes_record_and_plots(tmp_path: Path) -> None:
    done = call("run", "--quick", "--json", "out.json", "--out", "o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "norms" in done.stdout
    (record,) = read_records(tmp_path / "out.json")
    assert record.command == "random-walk run --dataset digits --quick --seed 0 --seeds 1"
    assert f"{record.metrics['norm']:.3f}" in done.stdout
    assert (tmp_path / "o" / "plots" / "norm.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_writes_a_list_and_workers_change_nothing(tmp_path: Path) -> None:
    arguments = ("run", "--seeds", "2", "--seed", "5", "--threads", "1", "--set", "sizes=1,2", "--json")
    one = call(*arguments, "a.json", "--out", "a", cwd=tmp_path)
    two = call(*arguments, "b.json", "--out", "b", "--workers", "2", cwd=tmp_path)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    first, second = (read_records(tmp_path / name) for name in ("a.json", "b.json"))
    assert [record.seed for record in first] == [5, 6]
    assert [record.results() for record in first] == [record.results() for record in second]
    assert [record.command for record in first] == [record.command for record in second]
    assert first[0].settings["sizes"] == [1, 2]


def test_json_to_standard_output_is_only_json(tmp_path: Path) -> None:
    done = call("run", "--json", "-", cwd=tmp_path)
    assert json.loads(done.stdout)["seed"] == 0
    assert "norms" in done.stderr


def test_a_document_goes_where_json_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"name": "µ", "values": [1, 0.5, None]}
    write_document(document, None)
    assert capsys.readouterr().out == ""
    write_document(document, "-")
    assert json.loads(capsys.readouterr().out) == document
    write_document(document, str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == document
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_document(document, str(tmp_path / "file" / "a.json"))


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    dying = ("run", "--set", "die_at=3", "--out", "a", "--json", "a.json")
    killed = call(*dying, cwd=tmp_path)
    assert killed.returncode == -9
    assert not (tmp_path / "a.json").exists()
    resumed = call(*dying, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert call("run", "--out", "b", "--json", "b.json", cwd=tmp_path).returncode == 0
    (one,), (two,) = (read_records(tmp_path / name) for name in ("a.json", "b.json"))
    assert one.metrics == two.metrics
    assert one.history == two.history


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "--dataset", "digit"), 2, "Did you mean 'digits'?"),
        (("run", "--set", "step=3"), 2, "Did you mean 'steps'?"),
        (("run", "--set", "steps"), 2, "NAME=VALUE"),
        (("run", "--set", "steps=many"), 2, "setting steps is 'many'; expected int"),
        (("run", "--set", "noisy=perhaps"), 2, "true or false"),
        (("run", "--set", "sizes=1,x"), 2, "ints separated by commas"),
        (("run", "--seeds", "0"), 2, "--seeds"),
        (("run", "--out", "file/o"), 1, "--out"),
        (("run", "--json", "file/o.json"), 1, "--json"),
        (("run", "--set", "diverge_at=1"), 1, "became nan"),
        (("walk",), 2, "No such command"),
    ],
)
def test_mistakes_end_in_a_message_and_an_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "file").write_text("")
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = call("run", "--dataset", "digit", "--debug", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_users_function_is_found_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_steps.py").write_text("def step(x):\n    return x + 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path.copy())
    assert user_function("users_steps:step")(1) == 2
    with pytest.raises(UnknownNameError, match="Did you mean 'step'"):
        user_function("users_steps:steps")
    with pytest.raises(SettingError, match="cannot be imported"):
        user_function("users_stairs:step")
    with pytest.raises(SettingError, match="module:function"):
        user_function("users_steps")
