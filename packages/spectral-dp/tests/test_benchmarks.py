import pytest
import torch

from spectral_dp.benchmarks import FORMS, Settings, bench, make_step, peak_bytes
from tenfold import SettingError


def test_the_peak_is_that_of_what_is_held_at_one_time() -> None:
    def step() -> None:
        first = torch.zeros(1_000_000)
        del first
        second, third = torch.zeros(500_000), torch.zeros(600_000)
        del second, third

    assert peak_bytes(step) == pytest.approx(4.4e6, rel=0.01)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_takes_steps(form: str) -> None:
    step = make_step("mlp", form, 4)
    step()
    step()


def test_the_tables_are_of_one_run(tmp_path: object) -> None:
    settings = Settings(batch_size=32, conv_models=("lenet-5",), conv_batch_size=4, repeats=1)
    record = bench.execute(settings, out=tmp_path)
    table = bench.tables["cost"]([record]).markdown()
    for form, title in FORMS.items():
        assert f"| {title} | {record.metrics[f'mlp/{form}/ms']:.1f} |" in table
    assert "| lenet-5 | spectral, ghost |" in bench.tables["conv"]([record]).markdown()
    # A sample's gradient in hooks mode is as large as the parameters, in ghost mode far smaller.
    assert record.metrics["mlp/opacus hooks/bytes a sample"] > record.metrics["mlp/parameters/bytes"]
    assert record.metrics["mlp/spectral ghost/bytes a sample"] < 0.25 * record.metrics["mlp/parameters/bytes"]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="1 or more"):
        Settings(repeats=0)
