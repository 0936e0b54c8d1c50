"""Which implementation a call uses, and what is said when there is none."""

import json
import subprocess
import sys

import pytest
import torch

from tenfold import MissingExtraError, SettingError, UnknownNameError, kernels
from tenfold.kernels._selection import choose

needs_native = pytest.mark.skipif(not kernels.instruction_sets(), reason="the native kernels are not built")
TOPK = next(operator for operator in kernels.operators() if operator.name == "topk_mask")


def chosen(tensor=None, implementation=None):
    return str(choose(TOPK, torch.ones(3) if tensor is None else tensor, implementation))


def run(program, **environment):
    import os

    clean = {key: value for key, value in os.environ.items() if key != "TENFOLD_KERNELS"}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=clean | environment
    )


@needs_native
def test_the_fastest_instruction_set_is_picked():
    assert chosen() == f"native:{kernels.instruction_sets()[0]}"
    assert kernels.instruction_sets()[-1] == "portable"


def test_other_types_get_the_reference():
    assert chosen(torch.ones(3, dtype=torch.float64)) == "reference"


@needs_native
def test_argument_before_context_before_environment(monkeypatch):
    monkeypatch.setenv("TENFOLD_KERNELS", "native:portable")
    assert chosen() == "native:portable"
    with kernels.use("reference"):
        assert chosen() == "reference"
        assert chosen(implementation="native:portable") == "native:portable"
        with kernels.use("auto"):
            assert chosen() == f"native:{kernels.instruction_sets()[0]}"
        assert chosen() == "reference"
    assert chosen() == "native:portable"


@pytest.mark.parametrize(
    "name", ["refrence", pytest.param("native:sse9", marks=needs_native), "reference:avx2", ""]
)
def test_unknown_names(name, monkeypatch):
    if name:
        with pytest.raises(UnknownNameError):
            chosen(implementation=name)
        monkeypatch.setenv("TENFOLD_KERNELS", name)
        with pytest.raises(UnknownNameError):
            chosen()
    with pytest.raises(UnknownNameError), kernels.use(name):
        pass


@needs_native
def test_native_does_not_take_other_types():
    with pytest.raises(SettingError, match=r"torch\.float64"):
        chosen(torch.ones(3, dtype=torch.float64), "native")


@needs_native
def test_an_operator_says_which_types_its_kernels_take(monkeypatch):
    monkeypatch.setattr("tenfold.kernels._registry._OPERATORS", {})
    double = kernels.Operator("double", "x + x", types=(torch.int8, torch.float32))
    for name in ("reference", "native", "triton"):
        double.implementation(name)(lambda *arguments: arguments[-1] + arguments[-1])
    fastest = f"native:{kernels.instruction_sets()[0]}"
    assert kernels.picks("double")["cpu"] == fastest
    assert str(choose(double, torch.ones(1, dtype=torch.int8))) == fastest
    assert str(choose(double, torch.ones(1))) == fastest
    assert str(choose(double, torch.ones(1, dtype=torch.int32))) == "reference"
    for name in ("native", "triton"):
        with pytest.raises(SettingError, match=r"double was asked for with torch\.int32") as error:
            choose(double, torch.ones(1, dtype=torch.int32), name)
        assert "torch.int8 or torch.float32" in str(error.value)


def test_triton_is_not_picked_or_run_on_the_cpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert chosen() != "triton"
    with pytest.raises(SettingError, match="CUDA"):
        chosen(implementation="triton")


def test_an_operator_without_the_implementation_says_so(monkeypatch):
    monkeypatch.setattr("tenfold.kernels._registry._OPERATORS", {})
    double = kernels.Operator("double", "x + x")
    double.implementation("reference")(lambda x: x + x)
    assert str(choose(double, torch.ones(1))) == "reference"
    with pytest.raises(SettingError, match="double has no implementation 'triton'"):
        choose(double, torch.ones(1), "triton")
    with pytest.raises(UnknownNameError):
        double.implementation("cuda")
    with pytest.raises(SettingError, match="second operator"):
        kernels.Operator("double", "x * 2")


WITHOUT_NATIVE = "import sys; sys.modules['tenfold.kernels._native'] = None\n"


def test_a_missing_build_warns_once_at_the_first_use():
    done = run(
        WITHOUT_NATIVE + "from tenfold import kernels; import torch\n"
        "assert kernels.instruction_sets() == ()\n"
        "print('imported', file=sys.stderr)\n"
        "for _ in range(3): assert kernels.topk_mask(torch.arange(3.), 1).tolist() == [False, False, True]\n"
        "kernels.group_norms(torch.ones(2, 2))\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("imported")
    assert done.stderr.count("RuntimeWarning") == 1
    assert "make build" in done.stderr


def test_a_missing_build_that_was_asked_for_is_an_error():
    done = run(
        WITHOUT_NATIVE + "from tenfold import kernels, MissingExtraError; import torch\n"
        "try: kernels.topk_mask(torch.ones(3), 1, implementation='native')\n"
        "except MissingExtraError as error: print(error)\n"
    )
    assert "make build" in done.stdout, done.stderr


def test_missing_torch_names_the_extra():
    done = run(
        "import sys; sys.modules['torch'] = None\n"
        "from tenfold import MissingExtraError\n"
        "try: import tenfold.kernels\n"
        "except MissingExtraError as error: print(error)\n"
    )
    assert "pip install 'tenfold[torch]'" in done.stdout, done.stderr


def test_missing_triton_is_an_error(monkeypatch):
    monkeypatch.setattr("tenfold.kernels._selection.has_triton", lambda: False)
    with pytest.raises(MissingExtraError, match="pip install triton"):
        chosen(implementation="triton")


def test_the_command_lists_what_is_picked():
    done = subprocess.run(
        [sys.executable, "-m", "tenfold", "kernels", "--json"], capture_output=True, text=True, check=True
    )
    listed = {row["operator"]: row for row in json.loads(done.stdout)["operators"]}
    assert {"csr_matmul", "bsr_matmul", "topk_mask", "group_norms"} <= set(listed)
    for name, row in listed.items():
        assert row["implementations"][0] == "reference"
        assert row["picks"] == kernels.picks(name)


def test_the_command_shows_an_error_without_traceback():
    done = run(
        "import sys; sys.modules['torch'] = None; sys.argv = ['tenfold', 'kernels']\n"
        "import runpy; runpy.run_module('tenfold', run_name='__main__')\n"
    )
    assert done.returncode == MissingExtraError.exit_code
    assert "tenfold[torch]" in done.stderr
    assert "Traceback" not in done.stderr
