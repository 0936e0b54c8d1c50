"""Planning: Opacus's accountants behind two functions and one command."""

import json
import math
import re
from pathlib import Path

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from typer.testing import CliRunner

from spectral_dp import epsilon, noise_multiplier
from spectral_dp._planning import ACCOUNTANTS, Accountant
from spectral_dp.audit import gaussian_epsilon
from spectral_dp.cli import app
from tenfold import SettingError, UnknownNameError


@pytest.mark.parametrize(("name", "kind"), [("prv", PRVAccountant), ("rdp", RDPAccountant)])
def test_epsilon_is_what_opacus_accounts_step_by_step(name: Accountant, kind: type) -> None:
    account = kind()
    for _ in range(50):
        account.step(noise_multiplier=1.1, sample_rate=0.02)
    assert epsilon(1.1, 0.02, 50, 1e-5, name) == pytest.approx(account.get_epsilon(delta=1e-5), abs=1e-9)


def test_epsilon_without_sampling_is_the_gaussian_mechanism_s() -> None:
    exact = gaussian_epsilon(math.sqrt(4) / 2.0, 1e-5)
    assert exact <= epsilon(2.0, 1.0, 4, 1e-5) <= exact + 0.03
    assert exact <= epsilon(2.0, 1.0, 4, 1e-5, "rdp")


def test_rdp_bounds_prv_and_gdp_can_be_too_low() -> None:
    spent = {name: epsilon(1.0, 0.05, 200, 1e-5, name) for name in ACCOUNTANTS}
    assert spent["gdp"] < spent["prv"] < spent["rdp"]


@pytest.mark.parametrize("name", ACCOUNTANTS)
def test_noise_keeps_to_the_budget_and_wastes_little(name: Accountant) -> None:
    noise = noise_multiplier(3.0, 0.05, 100, 1e-5, name)
    assert 2.98 < epsilon(noise, 0.05, 100, 1e-5, name) <= 3.0


@pytest.mark.parametrize(
    "arguments",
    [
        (0.0, 0.1, 10, 1e-5),
        (math.nan, 0.1, 10, 1e-5),
        (1.0, 0.0, 10, 1e-5),
        (1.0, 1.1, 10, 1e-5),
        (1.0, 0.1, 0, 1e-5),
        (1.0, 0.1, 10, 0.0),
        (0.01, 0.1, 10, 1e-5),
    ],
)
def test_impossible_trainings_are_refused(arguments: tuple[float, float, int, float]) -> None:
    with pytest.raises(SettingError):
        epsilon(*arguments)


def test_a_budget_below_what_an_accountant_can_certify_is_refused() -> None:
    with pytest.raises(SettingError, match="too low"):
        noise_multiplier(0.02, 0.05, 200, 1e-5, "rdp")
    with pytest.raises(SettingError, match="up to 64"):
        noise_multiplier(100.0, 0.05, 200, 1e-5)


def test_an_unknown_accountant_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'rdp'"):
        epsilon(1.0, 0.1, 10, 1e-5, "rpd")  # type: ignore[arg-type]


def test_the_command_tabulates_epochs_by_sample_rates(tmp_path: Path) -> None:
    record = tmp_path / "epsilon.json"
    options = (
        "--sample-rate 0.1 --sample-rate 0.03 --epochs 1 --epochs 30 --noise-multiplier 2 --accountant rdp"
    )
    result = CliRunner().invoke(app, ["epsilon", *options.split(), "--json", str(record)])
    assert result.exit_code == 0, result.output
    document = json.loads(record.read_text())
    assert [item["steps"] for item in document["trainings"]] == [10, 34, 300, 1000]
    for item in document["trainings"]:
        assert item["epsilon"] == epsilon(2.0, item["sample_rate"], item["steps"], 1e-5, "rdp")
        assert f"{item['epsilon']:.3f}" in result.output


def test_the_command_finds_noise_for_a_budget() -> None:
    options = "--sample-rate 0.1 --epochs 2 --epsilon 4 --accountant rdp --json -"
    result = CliRunner().invoke(app, ["epsilon", *options.split()])
    assert result.exit_code == 0, result.output
    (training,) = json.loads(result.stdout)["trainings"]
    assert 3.98 < training["epsilon"] <= 4
    assert re.search(f"{training['noise_multiplier']:.3f}", result.stderr)


@pytest.mark.parametrize(
    "options",
    ["--epochs 1 --sample-rate 0.1", "--epochs 1 --sample-rate 0.1 --epsilon 1 --noise-multiplier 1"],
)
def test_the_command_takes_one_of_budget_and_noise(options: str) -> None:
    result = CliRunner().invoke(app, ["epsilon", *options.split()])
    assert isinstance(result.exception, SettingError)


@pytest.mark.parametrize("options", ["--epochs 0 --sample-rate 0.1", "--epochs 1 --sample-rate 2"])
def test_the_command_refuses_impossible_trainings(options: str) -> None:
    result = CliRunner().invoke(app, ["epsilon", *options.split(), "--noise-multiplier", "1"])
    assert isinstance(result.exception, SettingError)
