"""Times of calls that take turns, so that a disturbance of the machine meets all of them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Median times of a call, in seconds: of the processor, over all threads, and of the wall clock."""

    cpu: float
    wall: float


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeats: int, *, warm_up: int = 1, least: float = 0.0
) -> dict[str, Timing]:
    """Time calls in rounds in which each has one turn.

    Parameters
    ----------
    calls : mapping of str to callable
        By name, in the order of their turns.
    repeats : int
        Rounds that count.
    warm_up : int
        Rounds before them that do not: caches are filled there, and code is compiled.
    least : float
        Seconds that a turn is to take: a call that is sooner done is repeated in it, up to 50 times.

    Returns
    -------
    dict of str to Timing
        Medians over the rounds, of one call.
    """
    spent: dict[str, list[Timing]] = {name: [] for name in calls}
    times = dict.fromkeys(calls, 1)
    for _ in range(warm_up):
        for name, call in calls.items():
            taken = _time(call, 1)
            times[name] = int(max(1, min(50, least / max(taken.cpu, 1e-3))))
    for _ in range(repeats):
        gc.collect()
        for name, call in calls.items():
            spent[name].append(_time(call, times[name]))
    return {
        name: Timing(statistics.median(one.cpu for one in each), statistics.median(one.wall for one in each))
        for name, each in spent.items()
    }


def _time(call: Callable[[], object], times: int) -> Timing:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        call()
    return Timing((time.process_time() - cpu) / times, (time.perf_counter() - wall) / times)
