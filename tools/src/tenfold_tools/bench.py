"""Run every installed benchmark; each prints its tables and leaves its record."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tenfold.errors import UnknownNameError
from tenfold_tools._workspace import experiments, scripts_folder


def bench(names: Sequence[str], reports: Path) -> list[str]:
    """Run the benchmarks of the distributions `names` (all when empty) and return those that failed.

    Records go to ``reports/bench/<distribution>.json``.

    Raises
    ------
    UnknownNameError
        A name is of no installed distribution with a benchmark.
    """
    found = experiments("bench")
    for name in names:
        if name not in found:
            raise UnknownNameError("benchmark", name, found)
    folder = reports / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names or found:
        program = shlex.split(found[name].load().program or name)
        if program[0] == "python":
            program[0] = sys.executable
        else:
            program[0] = str(scripts_folder() / program[0])
        output = ["--json", str(folder / f"{name}.json"), "--out", str(folder / name)]
        if subprocess.run([*program, "bench", *output], check=False).returncode != 0:
            failed.append(name)
    return failed
