"""The benchmark runs whole on a small graph, every form computes the same network, and tables add up."""

import dataclasses
import json

import pytest
import torch

from tango_gnn import benchmarks
from tango_gnn._bench import worker
from tango_gnn._bench.forms import FORMS, LAYERS, available, load, make_epoch, make_task
from tango_gnn._bench.tables import best
from tenfold import SettingError, TenfoldError
from tenfold.experiment import Run

SMALL = benchmarks.Settings(nodes=300, edges=3000, threads=(1,), repeats=1, seconds=0, scaling=(500, 1000))


@pytest.fixture
def record(monkeypatch, tmp_path):
    """A record whose measurements are made in this process."""

    def request(run, kind, threads, **more):
        settings = run.settings
        asked = {
            "kind": kind,
            "threads": threads,
            "nodes": settings.nodes,
            "edges": settings.edges,
            "repeats": settings.repeats,
            "seed": run.seed,
            **more,
        }
        # As it would pass from one process to another.
        return json.loads(json.dumps(asked))

    def ask(run, kind, threads, allocator, **more):
        return json.loads(json.dumps(worker.main(request(run, kind, threads, **more))))

    def alternate(run, forms, threads, allocator, **more):
        of_forms = {
            form: worker.epochs(request(run, "epochs", threads, form=form, **more))
            for form in available(forms)
        }
        for _ in range(2):
            times = {form: next(epochs) for form, epochs in of_forms.items()}
        return times

    monkeypatch.setattr(benchmarks, "_ask", ask)
    monkeypatch.setattr(benchmarks, "_alternate", alternate)
    return benchmarks.bench.execute(SMALL, out=tmp_path)


def test_a_run_has_times_memory_claims_tables_and_a_plot(record, tmp_path):
    metrics = record.metrics
    for model in SMALL.models:
        for form in available(benchmarks.TIMED):
            assert metrics[f"1/default/{model}/{form}/wall"] > 0
    tables = {name: table([record]) for name, table in benchmarks.bench.tables.items()}
    assert len(tables["scaling"].rows) == 2
    assert len(tables["memory"].rows) == 2 * len(available(benchmarks.WEIGHED))
    (ours,) = [
        row
        for row in tables["epochs"].rows
        if row[0].endswith("GCN 128-256-256-40, 1 thread: " + FORMS["int8"])
    ]
    assert ours[-1] == "1.00"
    assert any(row[0].startswith("u_mul_e") for row in tables["primitives"].rows)
    names = [claim.name for claim in record.claims]
    assert "GCN epoch over own float32, 1 thread" in names
    assert any(name.startswith("GEMM") for name in names)
    (picture,) = benchmarks.bench.plot([record], tmp_path)
    assert picture.stat().st_size > 1000


def test_the_best_allocator_counts():
    metrics = {"1/default/gcn/int8/wall": 5.0, "1/kept/gcn/int8/wall": 3.0}
    assert best(metrics, 1, "gcn", "int8") == 3.0
    assert best(metrics, 2, "gcn", "int8") is None


@pytest.mark.parametrize("model", sorted(LAYERS))
def test_all_forms_learn(model):
    task = make_task(200, 2000, 0)
    for form in available(list(FORMS)):
        epoch = make_epoch(model, form, task, load(form, task), seed=0)
        losses = [epoch() for _ in range(8)]
        assert losses[-1] < losses[0], form


def test_forms_are_of_the_same_size():
    for model, layers in LAYERS.items():
        sizes = {
            form: [p.numel() for p in torch.nn.ModuleList(layers(form)).parameters()]
            for form in available(["dgl", "int8", "pyg"])
        }
        assert len({sum(size) for size in sizes.values()}) == 1, model


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_processes_take_turns(tmp_path, monkeypatch, seconds):
    rounds = []
    monkeypatch.setattr(benchmarks, "median", lambda spent: rounds.append(len(spent)) or worker.median(spent))
    settings = dataclasses.replace(SMALL, models=("gcn",))
    run = Run(settings, "power-law", 0, 1, tmp_path)
    times = benchmarks._alternate(run, ("own", "int8"), 1, "kept", seconds=seconds, model="gcn")
    assert all(times[form][clock] > 0 for form in ("own", "int8") for clock in ("wall", "cpu"))
    assert len(set(rounds)) == 1
    assert rounds[0] == 1 if not seconds else rounds[0] > 1


@pytest.mark.parametrize(
    "change", [{"nodes": 0}, {"repeats": 0}, {"seconds": -1.0}, {"models": ("gin",)}, {"threads": (0,)}]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(SettingError):
        benchmarks.Settings(**change)


def test_a_measurement_that_fails_says_which(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmarks.sys, "executable", "false")
    with pytest.raises(TenfoldError, match=r"measurement of primitives, 1 thread.*ended with 1"):
        benchmarks.bench.execute(SMALL, out=tmp_path)
