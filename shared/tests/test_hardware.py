import dataclasses
import json
import os
import subprocess
import sys

import pytest

from tenfold import SettingError, UnknownNameError, hardware


def test_describes_the_threads_this_process_may_use():
    here = hardware.describe()
    assert here.logical_cores == len(os.sched_getaffinity(0))
    assert 1 <= here.physical_cores <= here.logical_cores
    assert here.memory_bytes > 2**28
    assert here.cpu


def test_narrower_affinity_is_seen():
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from tenfold import hardware; h = hardware.describe();"
        "assert (h.logical_cores, h.physical_cores) == (1, 1), h"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_is_frozen_and_json_able():
    here = hardware.describe()
    assert json.loads(json.dumps(here.as_dict())) == here.as_dict()
    with pytest.raises(dataclasses.FrozenInstanceError):
        here.cpu = "another"


def test_does_not_import_torch():
    program = (
        "import sys; from tenfold import hardware; hardware.describe(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_models_are_found_by_name(monkeypatch):
    monkeypatch.setattr("tenfold.hardware._models._FACTORIES", {})

    @hardware.register_model("abacus")
    class Abacus:
        def __init__(self, beads: int = 10) -> None:
            self.beads = beads

        def latency(self, operation: object) -> float:
            return 1.0 / self.beads

    assert hardware.models() == ("abacus",)
    assert hardware.get_model("abacus", beads=4).latency("add") == 0.25
    with pytest.raises(UnknownNameError, match="Did you mean 'abacus'"):
        hardware.get_model("abacos")
    with pytest.raises(SettingError, match="abacus"):
        hardware.register_model("abacus")(Abacus)


def test_command():
    command = [sys.executable, "-m", "tenfold", "hardware", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["logical_cores"] == len(os.sched_getaffinity(0))


def test_command_works_without_torch():
    program = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['tenfold', 'hardware'];"
        "import runpy; runpy.run_module('tenfold', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cores" in done.stdout
