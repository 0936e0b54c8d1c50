"""Tables of ``tango-gnn bench``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tango_gnn._bench.forms import FORMS, MODELS
from tenfold.experiment import Record, Table

PEERS = ("dgl", "dgl bf16", "pyg", "torch", "torch bf16", "own", "int8", "int8 x int8")
ALLOCATORS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "kept": {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(2**30),
        "THP_MEM_ALLOC_ENABLE": "1",
    },
}
"""Environments of the processes that are timed."""

WEIGHED_ALLOCATORS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "returned": {"MALLOC_MMAP_THRESHOLD_": str(2**20)},
}
"""Environments of the processes that are weighed."""


def best(metrics: Mapping[str, float], threads: int, name: str, form: str) -> float | None:
    """Return the milliseconds of a form under the allocator that suits it best."""
    keys = [f"{threads}/{allocator}/{name}/{form}/wall" for allocator in ALLOCATORS]
    return min((metrics[key] for key in keys if key in metrics), default=None)


def least_memory(metrics: Mapping[str, float], model: str, form: str) -> float | None:
    """Return the peak of a form under the allocator that suits it best."""
    keys = [f"memory/{allocator}/{model}/{form}" for allocator in WEIGHED_ALLOCATORS]
    return min((metrics[key] for key in keys if key in metrics), default=None)


def epoch_table(records: Sequence[Record]) -> Table:
    """Tabulate an epoch of every form, by threads and allocator, and how many times int8 is as fast."""
    metrics = records[0].metrics
    rows = []
    for model in records[0].settings["models"]:
        for threads in records[0].settings["threads"]:
            ours = best(metrics, threads, model, "int8")
            for form in ("dgl", "dgl bf16", "pyg", "own", "int8"):
                theirs = best(metrics, threads, model, form)
                if theirs is not None and ours is not None:
                    rows.append(
                        [
                            f"{MODELS[model]}, {_threads(threads)}: {FORMS[form]}",
                            *(
                                f"{metrics[f'{threads}/{allocator}/{model}/{form}/wall']:.0f}"
                                for allocator in ALLOCATORS
                            ),
                            f"{theirs / ours:.2f}",
                        ]
                    )
    columns = [
        "epoch",
        "ms, glibc as it is",
        "ms, glibc that keeps huge pages",
        "int8 is as fast, times",
    ]
    least = records[0].settings["repeats"]
    title = _title(records[0], f"forward, backward and Adam, median of {least} or more")
    return Table(title, columns, rows)


def primitive_table(records: Sequence[Record]) -> Table:
    """Tabulate the primitives, each at its best allocator."""
    metrics = records[0].metrics
    rows = []
    for threads in records[0].settings["threads"]:
        names = dict.fromkeys(key.split("/")[2] for key in metrics if key.startswith(f"{threads}/default/"))
        for name in names:
            if name in MODELS:
                continue
            times = {form: best(metrics, threads, name, form) for form in PEERS}
            peer = times["dgl"] if times["dgl"] is not None else times["torch"]
            ours = times["int8"] if times["int8"] is not None else times["own"]
            cells = [
                "–" if milliseconds is None else f"{milliseconds:.1f}"
                for milliseconds in (
                    times["dgl"],
                    times["dgl bf16"] if times["dgl bf16"] is not None else times["torch bf16"],
                    times["torch"],
                    times["own"],
                    times["int8"],
                )
            ]
            ratio = f"{peer / ours:.1f}" if peer is not None and ours is not None else "–"
            rows.append([f"{name}, {_threads(threads)}", *cells, ratio])
    columns = [
        "primitive",
        "DGL, ms",
        "bfloat16",
        "torch",
        "own float32",
        "int8",
        "DGL (GEMM: torch) over ours",
    ]
    repeats = records[0].settings["repeats"]
    title = _title(records[0], f"each at its best allocator, median of {repeats}")
    return Table(title, columns, rows)


def memory_table(records: Sequence[Record]) -> Table:
    """Tabulate the peak of resident memory above the loaded graph."""
    metrics = records[0].metrics
    rows = []
    for model in records[0].settings["models"]:
        for form, title in FORMS.items():
            peak, dgl = least_memory(metrics, model, form), least_memory(metrics, model, "dgl")
            if peak is not None:
                peaks = (metrics[f"memory/{allocator}/{model}/{form}"] for allocator in WEIGHED_ALLOCATORS)
                share = f"{peak / dgl:.2f}" if dgl else "–"
                rows.append(
                    [f"{MODELS[model]}: {title}", *(f"{bytes_ / 1e6:.0f}" for bytes_ in peaks), share]
                )
    columns = [
        "two epochs in a fresh process",
        "peak above the loaded graph, MB, glibc as it is",
        "glibc that returns tensors at once",
        "least, over DGL's, float32",
    ]
    return Table(_title(records[0], "resident memory"), columns, rows)


def scaling_table(records: Sequence[Record]) -> Table:
    """Tabulate an epoch of GCN over the edges of the graph."""
    metrics = records[0].metrics
    rows = []
    for edges in records[0].settings["scaling"]:
        times = [metrics.get(f"scaling/{edges}/{form}/wall") for form in ("dgl", "own", "int8")]
        ratio = f"{times[0] / times[2]:.2f}" if times[0] and times[2] else "–"
        rows.append([f"{edges:,}", *("–" if t is None else f"{t:.0f}" for t in times), ratio])
    columns = ["edges", "DGL, ms", "own float32", "int8", "DGL over int8"]
    threads = _threads(records[0].settings["threads"][0])
    return Table(f"{MODELS['gcn']}, one epoch, {threads}, glibc that keeps huge pages", columns, rows)


def _title(record: Record, what: str) -> str:
    settings = record.settings
    edges = settings["edges"] + settings["nodes"]
    return f"Power-law graph of {settings['nodes']:,} nodes and {edges:,} edges: {what}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
