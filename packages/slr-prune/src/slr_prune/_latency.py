"""How long a model takes on this machine, and the sparsity that makes it as fast as wanted.

A fraction of weights or MACs does not tell the time a model takes: that depends on shapes, caches
and kernels. So models are pruned, compacted and timed here, and the sparsity is found by bisection.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from slr_prune._compact import remove_channels
from slr_prune._example import ExampleInputs, call_of, evaluating, run_model
from slr_prune._oneshot import OneShotPruner
from tenfold import SettingError

FINEST = 100
"""Sparsities are tried in steps of one over this."""


@dataclass(frozen=True)
class LatencySearch:
    """What `sparsity_for_latency` found.

    Attributes
    ----------
    sparsity : float
        The least, in hundredths, that meets the target; 0 if the dense model does.
    milliseconds : float
        Measured at this sparsity.
    dense_milliseconds : float
        Measured of the model as it came.
    target_milliseconds : float
        At most this was asked for.
    points : tuple of (float, float)
        Sparsity and milliseconds of every measurement, in the order made; the dense model first.
    """

    sparsity: float
    milliseconds: float
    dense_milliseconds: float
    target_milliseconds: float
    points: tuple[tuple[float, float], ...]

    @property
    def speedup(self) -> float:
        """Time of the dense model over that of the pruned one."""
        return self.dense_milliseconds / self.milliseconds


def latency(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    repeats: int = 20,
    warmup: int = 3,
    threads: int | None = None,
) -> float:
    """Return the median time of a call of a model, in milliseconds.

    Parameters
    ----------
    model : nn.Module
        Called in evaluation mode and without gradients; left as it was.
    example_inputs : Tensor, sequence or mapping
        What one call of the model takes, on the model's device; the time is for all of it, batch
        included.
    repeats : int
        Calls that are timed.
    warmup : int
        Calls before them.
    threads : int, optional
        Threads of torch on the CPU; as many as torch uses now when not given.

    Raises
    ------
    SettingError
        `repeats`, `warmup` or `threads` is below 1, or the model does not run on `example_inputs`.
    """
    for name, value in (("repeats", repeats), ("warmup", warmup), ("threads", threads)):
        if value is not None and value < 1:
            raise SettingError(f"{name} is {value}", "a whole number from 1 on", f"Raise {name}.")
    leaves = [leaf for leaf in tree_leaves(example_inputs) if isinstance(leaf, Tensor)]
    on_cuda = any(leaf.is_cuda for leaf in leaves)
    arguments, keywords = call_of(example_inputs)
    seconds = []
    with _threads(threads):
        run_model(model, example_inputs)
        with evaluating(model), torch.no_grad():
            for _ in range(warmup - 1):
                model(*arguments, **keywords)
            for _ in range(repeats):
                _finish(on_cuda)
                started = time.perf_counter()
                model(*arguments, **keywords)
                _finish(on_cuda)
                seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def sparsity_for_latency(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    milliseconds: float | None = None,
    speedup: float | None = None,
    structure: str = "filter",
    ignored_layers: Sequence[str] = (),
    round_to: int = 1,
    num_heads: Mapping[str, int] | None = None,
    measure: Callable[[nn.Module], float] | None = None,
) -> LatencySearch:
    """Find the least sparsity at which the compacted model is as fast as wanted, on this machine.

    Copies of the model are pruned one-shot at the sparsities of a bisection, compacted and timed.
    What is found is timed again; where it now misses the target, as noise may have it, the next
    hundredths are tried until one meets it.

    Parameters
    ----------
    model : nn.Module
        Left as it was. The time depends on shapes alone, so it need not be trained.
    example_inputs : Tensor, sequence or mapping
        What one call of the model takes. Time is that of this call, batch included.
    milliseconds, speedup : float
        The target, one of the two: time of a call, or time of the dense model over it.
    structure, ignored_layers, round_to, num_heads
        As in `Pruner`; the structure is ``"filter"`` or ``"bn-filter"``.
    measure : callable, optional
        Takes a model, returns its time in milliseconds; `latency` when not given. With
        ``lambda model: latency(model, x, threads=1)`` it is that of one thread.

    Returns
    -------
    LatencySearch

    Raises
    ------
    UnknownNameError
        As `Pruner`.
    SettingError
        Not exactly one target is given, it is not above 0, or even the highest sparsity misses it:
        the message has the fastest time measured. Or as `Pruner` and `remove_channels`.
    """
    if (milliseconds is None) == (speedup is None):
        raise SettingError(
            f"milliseconds {milliseconds} and speedup {speedup}", "exactly one of the two", "Give one target."
        )
    if not (milliseconds or speedup or 0) > 0:
        raise SettingError(
            f"a target of {speedup if milliseconds is None else milliseconds}",
            "a number above 0",
            "Give the milliseconds of a call, or a speedup such as 2.",
        )
    timed = measure or (lambda candidate: latency(candidate, example_inputs))
    points: list[tuple[float, float]] = []

    def time_at(step: int) -> float:
        sparsity = step / FINEST
        candidate = model
        if step:
            candidate = copy.deepcopy(model)
            OneShotPruner(
                candidate,
                sparsity,
                structure=structure,
                ignored_layers=ignored_layers,
                example_inputs=example_inputs,
                round_to=round_to,
                num_heads=num_heads,
            ).finalize()
            candidate = remove_channels(candidate, example_inputs)
        points.append((sparsity, timed(candidate)))
        return points[-1][1]

    dense = time_at(0)
    target = milliseconds if milliseconds is not None else dense / (speedup or 1)
    if dense <= target:
        return LatencySearch(0.0, dense, dense, target, tuple(points))
    for step in range(_bisect(time_at, target, points), FINEST):
        if (found := time_at(step)) <= target:
            return LatencySearch(step / FINEST, found, dense, target, tuple(points))
    raise _too_slow(target, points)


def _bisect(time_at: Callable[[int], float], target: float, points: list[tuple[float, float]]) -> int:
    """Return the least step that meets `target`, if times fall as steps rise."""
    misses, meets = 0, FINEST - 1
    if time_at(meets) > target:
        raise _too_slow(target, points)
    while meets - misses > 1:
        middle = (misses + meets) // 2
        if time_at(middle) <= target:
            meets = middle
        else:
            misses = middle
    return meets


def _too_slow(target: float, points: Sequence[tuple[float, float]]) -> SettingError:
    sparsity, fastest = min(points, key=lambda point: point[1])
    return SettingError(
        f"a target of {target:.4g} ms",
        f"{fastest:.4g} ms or more, the fastest that was measured (at sparsity {sparsity:g})",
        "Ask for less, ignore fewer layers, or start from a smaller model.",
    )


def _finish(on_cuda: bool) -> None:
    if on_cuda:
        torch.cuda.synchronize()


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
