"""One measurement in a fresh process: ``python -m tango_gnn._bench.worker REQUEST`` prints JSON.

Threads and the allocator are those of the process, so that none is measured under another's. An epoch's form
has a process of its own, which says that it is ready and then runs one epoch for every line that it is sent:
so the forms take turns, and none finds its memory in another's pieces. Memory is weighed once an epoch of a
small graph has loaded what code a form needs, which takes some 250 MB.
"""

from __future__ import annotations

import gc
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tango_gnn._bench.forms import load, make_epoch, make_task
from tango_gnn._bench.primitives import primitives
from tenfold.experiment import interleaved

WARM_UP = 2
"""Rounds that find the memory they need, and are not counted."""


def main(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure what the request asks for.

    Parameters
    ----------
    request : mapping
        kind : "primitives" or "memory"; nodes, edges, seed, threads, repeats; model and form.
    """
    torch.set_num_threads(request["threads"])
    task = make_task(request["nodes"], request["edges"], request["seed"])
    if request["kind"] == "primitives":
        with torch.no_grad():
            return {
                name: {
                    form: {"wall": 1e3 * taken.wall, "cpu": 1e3 * taken.cpu}
                    for form, taken in interleaved(candidates, request["repeats"], warm_up=WARM_UP).items()
                }
                for name, candidates in primitives(task, request["seed"]).items()
            }
    model, form = request["model"], request["form"]
    small = make_task(1000, 10_000, request["seed"])
    make_epoch(model, form, small, load(form, small), request["seed"])()
    return {"peak": _memory(model, form, task, request["seed"])}


def epochs(request: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    """Run an epoch each time, and give its milliseconds of wall and of CPU time; first, zeros when ready.

    Parameters
    ----------
    request : mapping
        nodes, edges, seed, threads, model, form.
    """
    torch.set_num_threads(request["threads"])
    task = make_task(request["nodes"], request["edges"], request["seed"])
    form = request["form"]
    epoch = make_epoch(request["model"], form, task, load(form, task), request["seed"])
    yield {"wall": 0.0, "cpu": 0.0}
    while True:
        gc.collect()
        yield _time_of(epoch)


def median(times: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each clock."""
    return {clock: statistics.median(time[clock] for time in times) for clock in ("wall", "cpu")}


def _time_of(function: Callable[[], Any]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return {"wall": 1e3 * (time.perf_counter() - wall), "cpu": 1e3 * (time.process_time() - cpu)}


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
    asked = json.loads(sys.argv[1])
    if asked["kind"] == "epochs":
        for spent in epochs(asked):
            print(json.dumps(spent), flush=True)  # noqa: T201
            if not sys.stdin.readline():
                break
    else:
        print(json.dumps(main(asked)))  # noqa: T201
