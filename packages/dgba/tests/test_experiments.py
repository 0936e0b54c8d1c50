import dataclasses
from pathlib import Path

import pytest

from dgba.experiments import Settings, run
from tenfold import SettingError

TINY = Settings(length=256, spikes=4, trials=20)


def test_the_claim_is_what_was_measured(tmp_path: Path) -> None:
    record = run.execute(TINY, out=tmp_path)
    (claim,) = record.claims
    assert claim.ours == pytest.approx(sum(record.history["error"]) / 20 / 5)
    assert claim.holds
    assert f"{claim.ours:.2f}" in run.tables["errors"]([record]).markdown()


def test_the_bound_holds_for_a_vector_of_spikes_only(tmp_path: Path) -> None:
    record = run.execute(dataclasses.replace(TINY, spikes=256), out=tmp_path)
    assert record.claims[0].holds


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="5 spikes in 4 entries"):
        Settings(length=4, spikes=5)
