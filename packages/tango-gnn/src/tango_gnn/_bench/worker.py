"""One measurement in a fresh process: ``python -m tango_gnn._bench.worker REQUEST`` prints JSON.

Threads and the allocator are those of the process, so that none is measured under another's. Times are
medians of rounds in each of which every form runs once, after two that find the memory they need. Memory is
weighed once an epoch of a small graph has loaded what code a form needs, which takes some 250 MB.
"""

from __future__ import annotations

import gc
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tango_gnn._bench.forms import available, load, make_epoch, make_task
from tango_gnn._bench.primitives import primitives

WARM_UP = 2


def main(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure what the request asks for.

    Parameters
    ----------
    request : mapping
        kind : "primitives", "epochs" or "memory"; nodes, edges, seed, threads, repeats; model and forms.
    """
    torch.set_num_threads(request["threads"])
    task = make_task(request["nodes"], request["edges"], request["seed"])
    if request["kind"] == "primitives":
        with torch.no_grad():
            return {
                name: _times(candidates, request["repeats"])
                for name, candidates in primitives(task, request["seed"]).items()
            }
    forms = available(request["forms"])
    if request["kind"] == "memory":
        small = make_task(1000, 10_000, request["seed"])
        for form in forms:
            make_epoch(request["model"], form, small, load(form, small), request["seed"])()
        return {form: _memory(request["model"], form, task, request["seed"]) for form in forms}
    epochs = {
        form: make_epoch(request["model"], form, task, load(form, task), request["seed"]) for form in forms
    }
    return _times(epochs, request["repeats"])


def _times(candidates: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Return milliseconds of wall and of CPU time: medians of interleaved rounds after `WARM_UP`."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for number in range(WARM_UP + repeats):
        gc.collect()
        for name, function in candidates.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            if number >= WARM_UP:
                spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: dict(
            zip(
                ("wall", "cpu"), (1e3 * statistics.median(of) for of in zip(*times, strict=True)), strict=True
            )
        )
        for name, times in spent.items()
    }


def _memory(model: str, form: str, task: Any, seed: int) -> float:
    """Return the peak of resident bytes over two epochs, above the loaded graph and features."""
    loaded = load(form, task)
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    epoch = make_epoch(model, form, task, loaded, seed)
    epoch()
    epoch()
    return _status("VmHWM") - before


def _status(name: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    return 1024.0 * int(found.group(1)) if found else float("nan")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))))
