from pathlib import Path

import pytest

from dgba import IFGSM
from dgba._combinations import as_combination
from dgba.benchmarks import ONE_PASS, PASSES, TOTAL, OnePassATask, Settings, bench
from dgba.datasets import scene_tasks, scenes
from dgba.models import multi_task
from tenfold import SettingError

TINY = Settings(size=16, images=2, steps=2, repeats=2)


def test_one_pass_a_task_climbs_where_one_backward_pass_does() -> None:
    tasks, rooms = scene_tasks(), scenes(2, 16)
    model = multi_task(tasks)
    steps = [
        IFGSM(model, tasks, combination=combination, eps=0.01, steps=3, keep_best=False)
        for combination in (as_combination("dgba"), OnePassATask())
    ]
    one, many = (attack(rooms.images, rooms.targets) for attack in steps)
    # The sign of a gradient that rounds to zero may differ.
    assert (one - many).abs().gt(1e-6).double().mean() < 0.005


def test_the_tables_say_what_was_measured(tmp_path: Path) -> None:
    record = bench.execute(TINY, out=tmp_path)
    first, second = (table([record]).markdown() for table in bench.tables.values())
    for name in (TOTAL, ONE_PASS, PASSES):
        assert f"{record.metrics[f'small/{name}/over TOTAL']:.2f}" in first
    for name in ("FGSM", "PGD", "MIM", "APGD"):
        assert f"{record.metrics[f'one task/{name}/over torchattacks']:.2f}" in second
    assert record.claims[0].ours == pytest.approx(
        record.metrics[f"small/{PASSES}/CPU ms"] / record.metrics[f"small/{ONE_PASS}/CPU ms"]
    )


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="repeats=0"):
        Settings(repeats=0)
