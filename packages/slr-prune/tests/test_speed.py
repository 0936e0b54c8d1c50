"""The times of the benchmark: every form once at each batch, and what is compared."""

import torch

from slr_prune._speed import layer_speed


def test_every_form_is_timed_against_dense() -> None:
    threads = torch.get_num_threads()
    rows = layer_speed(
        out_features=64, in_features=96, sparsities=(0.75,), batches=(1, 3), channels=8, image=5, repeats=2
    )
    assert torch.get_num_threads() == threads
    linear = ["dense", "rows 75%", "bsr 75%", "bsr 75%, torch.sparse", "csr 75%", "csr 75%, torch.sparse"]
    assert [(row.layer, row.batch, row.form) for row in rows] == [
        *(("linear", batch, form) for batch in (1, 3) for form in linear),
        *(("convolution", 1, form) for form in ("dense", "rows 70%", "channels 70%")),
    ]
    for row in rows:
        assert row.milliseconds > 0
        assert row.speedup > 0
        assert row.form != "dense" or row.speedup == 1
