"""The benchmark on a few repeats: every ratio is there, and its tables show it."""

import pytest

from slr_prune.benchmarks import PRUNERS, Settings, bench
from tenfold.experiment import Record


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    settings = Settings(models=("lenet-300-100",), repeats=1, seconds=0.01, batches=(2,))
    return bench.execute(settings, out=tmp_path_factory.mktemp("bench"))


def test_every_ratio_is_measured(record: Record) -> None:
    for method in PRUNERS[1:]:
        assert record.metrics[f"lenet-300-100/{method} over plain"] > 0
    for form in ("masked", "compact"):
        assert record.metrics[f"resnet-20/2/dense over {form}"] > 0
    assert record.metrics["linear/1/bsr 95%/ms"] > 0


def test_the_smaller_model_has_fewer_parameters(record: Record) -> None:
    dense, compact = (record.metrics[f"resnet-20/parameters, {form}"] for form in ("dense", "compact"))
    assert compact < 0.12 * dense  # 30 % of the rows times 30 % of the columns, and rounding


def test_files_are_about_as_large_as_what_is_left(record: Record) -> None:
    assert record.metrics["file/block 95%/over what is left"] <= 1.1
    assert record.metrics["file/filter 90%/over what is left"] <= 1.1
    assert record.metrics["file/irregular 90%/over what is left"] <= 1.4


def test_the_tables_show_what_was_measured(record: Record) -> None:
    assert "| lenet-300-100 |" in bench.tables["overhead"]([record]).markdown()
    assert "| compact |" in bench.tables["models"]([record]).markdown()
    layers = bench.tables["layers"]([record]).markdown()
    assert f"{record.metrics['linear/1/dense/ms']:.3f} ms" in layers
    assert "irregular 90%" in bench.tables["files"]([record]).markdown()
