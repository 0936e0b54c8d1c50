"""A workspace of made-up packages, installed by nothing but their metadata on the path."""

import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tenfold.experiment import Claim, Record

EXPERIMENT = """
from dataclasses import dataclass
from tenfold.experiment import Experiment, Table

@dataclass(frozen=True)
class Settings:
    epochs: int = 1

def body(run):
    pass

def accuracy(records):
    rows = [["ours", f"{{record.metrics['accuracy']:.1f}}"] for record in records]
    return Table("Accuracy", ["method", "accuracy"], rows)

run = Experiment("{name}", "run", body, Settings(), Settings(), tables={{"accuracy": accuracy}})
bench = Experiment("{name}", "bench", body, Settings(), Settings(), program="{program}")
"""

SCRIPT = """#!{python}
import pathlib, sys
arguments = dict(zip(sys.argv[2:], sys.argv[3:], strict=False))
{body}
"""

WORKS = """
out = pathlib.Path(arguments["--out"])
(out / "plots").mkdir(parents=True, exist_ok=True)
(out / "plots" / "loss-curve.png").write_bytes(b"\\x89PNG picture")
pathlib.Path(arguments["--json"]).write_text({records!r})
pathlib.Path({calls!r}).write_text(" ".join(sys.argv[1:]))
"""

FAILS = """
print("epoch 1", file=sys.stderr)
sys.exit("the <loss> became nan")
"""


@dataclass
class Workspace:
    """Where the made-up packages are and how to add one."""

    root: Path
    site: Path
    scripts: Path

    def add(self, name: str, *, works: bool = True, program: str = "") -> Path:
        """Add a package and return its folder."""
        module = name.replace("-", "_")
        (self.site / f"{module}.py").write_text(EXPERIMENT.format(name=name, program=program))
        metadata = self.site / f"{module}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\nSummary: About {name} & more.\n"
        )
        (metadata / "entry_points.txt").write_text(
            f"[tenfold.experiments]\n{name}.run = {module}:run\n{name}.bench = {module}:bench\n"
        )
        folder = self.root / "packages" / name
        (folder / "results").mkdir(parents=True)
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\ndescription = "About {name}."\n'
            'classifiers = ["Development Status :: 3 - Alpha"]\n'
        )
        text = json.dumps([record(name, seed).as_dict() for seed in (0, 1, 2)])
        (folder / "results" / "run.json").write_text(text)
        body = WORKS.format(records=text, calls=str(self.scripts / f"{name}.calls")) if works else FAILS
        script = self.scripts / name
        script.write_text(SCRIPT.format(python=sys.executable, body=body))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return folder

    def calls(self, name: str) -> str:
        """Return the arguments that the script of `name` was last called with."""
        return (self.scripts / f"{name}.calls").read_text()


def record(name: str, seed: int) -> Record:
    """Return a record whose claim holds for the seeds above 0 only."""
    accuracy = 95.0 + seed
    return Record(
        package=name,
        version="1.2",
        versions={name: "1.2", "python": "3.11.7"},
        command=f"{name} run --quick --seeds 3",
        dataset="digits",
        seed=seed,
        settings={"epochs": 1},
        hardware={
            "cpu": "made up",
            "features": ["avx2", "fma"],
            "memory_bytes": 25276514304,
            "cuda": [],
        },
        started="2024-01-01T00:00:00+00:00",
        wall_seconds=1.5,
        cpu_seconds=1.0,
        peak_bytes=2**20,
        metrics={"accuracy": accuracy},
        claims=[Claim.at_least("accuracy after pruning", paper=96.0, ours=accuracy, unit="%")],
    )


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    root, site, scripts = (tmp_path / name for name in ("root", "site", "scripts"))
    for folder in (root / "packages", site, scripts):
        folder.mkdir(parents=True)
    (root / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["packages/*"]\n')
    monkeypatch.syspath_prepend(site)
    for module in ("reproduce", "bench"):
        monkeypatch.setattr(f"tenfold_tools.{module}.scripts_folder", lambda: scripts)
    for module in ("fake_one", "fake_two"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return Workspace(root, site, scripts)
