"""Epochs, primitives and memory beside DGL and PyG, on a power-law graph, in one run.

Every form and configuration, of threads and of the allocator, is a process of its own; the forms take turns,
save in scaling, where the memory of a machine does not hold them all. By default glibc gives large tensors
back to the system as soon as they are freed, and every epoch pays for their pages again; ``kept`` lets it
keep them, and has torch ask for huge pages, which spares every form the search for small ones. A form's best
of the two is what the headline compares. Memory is weighed under glibc as it is, and where it gives back
every large tensor at once: between the two lies what is free and not given back.

Three controls tell where a gain is from: our own kernels in float32, DGL in bfloat16, and DGL with
activations in two bits, which saves memory alone.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tango_gnn._bench.forms import FORMS, MODELS, available
from tango_gnn._bench.tables import (
    ALLOCATORS,
    WEIGHED_ALLOCATORS,
    best,
    epoch_table,
    least_memory,
    memory_table,
    primitive_table,
    scaling_table,
)
from tango_gnn._bench.worker import WARM_UP, median
from tenfold import SettingError, TenfoldError
from tenfold.experiment import Claim, Experiment, Record, Run

TIMED = ("dgl", "dgl bf16", "pyg", "own", "int8")
WEIGHED = ("dgl", "dgl bf16", "pyg", "compressed", "own", "int8")
SCALED = ("dgl", "own", "int8")
GOALS = (
    ("GCN epoch over DGL", "gcn", "dgl", 2.0),
    ("GCN epoch over own float32", "gcn", "own", 2.0),
    ("GAT epoch over DGL", "gat", "dgl", 3.5),
    ("GAT epoch over own float32", "gat", "own", 1.1),
)
PRIMITIVE_GOALS = {
    "copy_u_sum": ("dgl", 2.5),
    "u_mul_e": ("dgl", 8.0),
    "u_dot_v": ("dgl", 4.0),
    "GEMM": ("torch", 2.5),
}


@dataclass(frozen=True)
class Settings:
    """Settings of ``tango-gnn bench``.

    Attributes
    ----------
    nodes, edges : int
        Of the power-law graph; every node has a self-loop besides.
    threads : tuple of int
    models : tuple of str
        "gcn" and "gat".
    repeats : int
        Rounds, after two to warm up.
    seconds : float
        Rounds of epochs go on for so long: the median of a few short ones is as noisy as the machine.
    scaling : tuple of int
        Numbers of edges of graphs with as many edges a node.
    """

    nodes: int = 100_000
    edges: int = 2_000_000
    threads: tuple[int, ...] = (1, 2)
    models: tuple[str, ...] = ("gcn", "gat")
    repeats: int = 3
    seconds: float = 45.0
    scaling: tuple[int, ...] = (100_000, 300_000, 1_000_000, 3_000_000)

    def __post_init__(self) -> None:
        if min(self.nodes, self.edges, self.repeats, *self.threads, *self.scaling) < 1 or self.seconds < 0:
            raise SettingError(
                f"{self.nodes} nodes, {self.edges} edges, {self.repeats} repeats, {self.seconds} seconds, "
                f"threads {self.threads}, scaling {self.scaling}",
                "1 or more of each, and 0 seconds or more",
                "Correct them with --set.",
            )
        for model in self.models:
            if model not in MODELS:
                raise SettingError(f"a model {model!r}", f"of {', '.join(MODELS)}", "Correct it with --set.")


def measure(run: Run[Settings]) -> None:
    """Time primitives and epochs, weigh epochs, and let the graph grow."""
    settings = run.settings
    configurations = [(threads, name) for threads in settings.threads for name in ALLOCATORS]
    for index in run.stage("primitives", len(configurations)):
        threads, allocator = configurations[index]
        for name, times in _ask(run, "primitives", threads, allocator).items():
            _log_times(run, f"{threads}/{allocator}/{name}", times)
    epochs = [(model, *configuration) for model in settings.models for configuration in configurations]
    for index in run.stage("epochs", len(epochs)):
        model, threads, allocator = epochs[index]
        times = _alternate(run, TIMED, threads, allocator, seconds=settings.seconds, model=model)
        _log_times(run, f"{threads}/{allocator}/{model}", times)
    weighed = list(itertools.product(settings.models, available(WEIGHED), WEIGHED_ALLOCATORS))
    for index in run.stage("memory", len(weighed)):
        model, form, allocator = weighed[index]
        found = _ask(run, "memory", settings.threads[0], allocator, model=model, form=form)
        run.log(f"memory/{allocator}/{model}/{form}", found["peak"])
    for index in run.stage("scaling", len(settings.scaling)):
        edges = settings.scaling[index]
        nodes = max(1, round(edges * settings.nodes / settings.edges))
        for form in SCALED:
            times = _alternate(
                run, [form], settings.threads[0], "kept", model="gcn", nodes=nodes, edges=edges
            )
            _log_times(run, f"scaling/{edges}", times)
    for name, values in run.history.items():
        run.metric(name, values[-1])
    _claim(run)


def _ask(run: Run[Settings], kind: str, threads: int, allocator: str, **more: Any) -> dict[str, Any]:
    """Measure in a process of its own."""
    with _worker(run, kind, threads, allocator, **more) as worker:
        return _answer(worker, kind, threads, allocator)


def _alternate(
    run: Run[Settings],
    forms: Sequence[str],
    threads: int,
    allocator: str,
    *,
    seconds: float = 0.0,
    **more: Any,
) -> dict[str, dict[str, float]]:
    """Time an epoch of every form, each in a process of its own, in turns."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for form in available(forms):
            workers[form] = stack.enter_context(_worker(run, "epochs", threads, allocator, form=form, **more))
            _answer(workers[form], "epochs", threads, allocator)
        times: dict[str, list[dict[str, float]]] = {form: [] for form in workers}
        end = 0.0
        for number in itertools.count():
            if number == WARM_UP:
                end = time.monotonic() + seconds
            if number >= WARM_UP + run.settings.repeats and time.monotonic() >= end:
                break
            for form, worker in workers.items():
                assert worker.stdin is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
                times[form].append(_answer(worker, "epochs", threads, allocator))
    return {form: median(spent[WARM_UP:]) for form, spent in times.items()}


@contextlib.contextmanager
def _worker(
    run: Run[Settings], kind: str, threads: int, allocator: str, **more: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a process that measures, and end it."""
    settings = run.settings
    request = {
        "kind": kind,
        "threads": threads,
        "nodes": settings.nodes,
        "edges": settings.edges,
        "repeats": settings.repeats,
        "seed": run.seed,
        **more,
    }
    environment = {
        **os.environ,
        **{**ALLOCATORS, **WEIGHED_ALLOCATORS}[allocator],
        "OMP_NUM_THREADS": str(threads),
        "DGLBACKEND": "pytorch",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tango_gnn._bench.worker", json.dumps(request)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def _answer(worker: subprocess.Popen[str], kind: str, threads: int, allocator: str) -> dict[str, Any]:
    assert worker.stdout is not None
    for line in worker.stdout:
        # DGL may have something to say, too.
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise TenfoldError(
        f"the measurement of {kind}, {threads} thread(s), {allocator}, ended with {worker.wait()}",
        "an answer",
        "See what it printed above; -9 is a lack of memory. Go on with --resume.",
    )


def _log_times(run: Run[Settings], name: str, times: dict[str, dict[str, float]]) -> None:
    for form, spent in times.items():
        for clock, milliseconds in spent.items():
            run.log(f"{name}/{form}/{clock}", milliseconds)


def _claim(run: Run[Settings]) -> None:
    def goal(name: str, goal: float, ours: float, unit: str = "x") -> Claim:
        claim = Claim.at_most if unit == "of DGL's" else Claim.at_least
        return claim(
            name, paper=goal, ours=ours, unit=unit, note="a goal of this package, not a paper's figure"
        )

    for threads in run.settings.threads:
        named = f"{threads} thread{'s' * (threads > 1)}"
        compared = list(GOALS)
        for primitive in dict.fromkeys(
            key.split("/")[2] for key in run.metrics if key.startswith(f"{threads}/default/")
        ):
            compared += [
                (primitive, primitive, other, least)
                for start, (other, least) in PRIMITIVE_GOALS.items()
                if primitive.startswith(start)
            ]
        for name, measured, other, least in compared:
            ours, theirs = (best(run.metrics, threads, measured, form) for form in ("int8", other))
            if ours and theirs:
                run.claim(goal(f"{name}, {named}", least, theirs / ours))
    for model in run.settings.models:
        # A small network may find all its memory in what the process has already.
        ours, theirs = (least_memory(run.metrics, model, form) for form in ("int8", "dgl"))
        if ours is not None and theirs:
            run.claim(goal(f"memory, {MODELS[model]}", 0.6, ours / theirs, "of DGL's"))


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Plot the time of an epoch over the edges, on logarithmic axes."""
    from matplotlib import style
    from matplotlib.figure import Figure

    from tenfold.experiment import plots

    metrics, edges = records[0].metrics, records[0].settings["scaling"]
    with style.context(plots.STYLE):
        figure = Figure()
        axes = figure.subplots()
        for form in SCALED:
            keys = [f"scaling/{count}/{form}/wall" for count in edges]
            if all(key in metrics for key in keys):
                axes.plot(edges, [metrics[key] / 1e3 for key in keys], marker="o", label=FORMS[form])
        axes.set(
            title=f"{MODELS['gcn']}, power-law graph, one epoch",
            xlabel="edges",
            ylabel="seconds",
            xscale="log",
            yscale="log",
        )
        axes.legend()
        plots.save(figure, folder / "scaling.png")
    return [folder / "scaling.png"]


bench = Experiment(
    package="tango-gnn",
    command="bench",
    body=measure,
    quick=Settings(),
    full=Settings(repeats=5, scaling=(100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 20_000_000)),
    datasets=("power-law",),
    tables={
        "epochs": epoch_table,
        "primitives": primitive_table,
        "memory": memory_table,
        "scaling": scaling_table,
    },
    plot=plot,
)
