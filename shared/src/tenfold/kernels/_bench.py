"""Times of the sparse products over the fastest call that torch.sparse has for the same operands.

For every point torch is given each layout it may like (int32 and int64 indices, ``@`` and
``torch.sparse.mm``, a vector instead of a matrix of one column) and the fastest of them counts.
"""

from __future__ import annotations

import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from tenfold.experiment import Claim, Experiment, Record, Run, Table, estimate
from tenfold.kernels._bsr import bsr_matmul
from tenfold.kernels._csr import csr_matmul

Candidates: TypeAlias = dict[str, Callable[[], torch.Tensor]]
Point: TypeAlias = tuple[str, float, int]

_OURS = "tenfold"


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark.

    Attributes
    ----------
    rows, columns : int
        Shape of the sparse weight.
    block : int
        Height and width of a block in BSR.
    sparsities : tuple of float
        Shares of zeros; in BSR, of zero blocks.
    batches : tuple of int
        Columns of the dense operand.
    repeats : int
        Rounds, of which the medians are taken.
    """

    rows: int = 1024
    columns: int = 4096
    block: int = 16
    sparsities: tuple[float, ...] = (0.90, 0.95)
    batches: tuple[int, ...] = (1, 32, 256)
    repeats: int = 31


def against_torch(run: Run[Settings]) -> None:
    """Time the sparse products against torch.sparse."""
    settings = run.settings
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse ")
        points = _points(settings, torch.Generator().manual_seed(run.seed))
        milliseconds = _medians(points, settings.repeats)
    ratios: dict[str, list[float]] = {"csr": [], "bsr": []}
    for (name, sparsity, batch), times in milliseconds.items():
        ours = times.pop(_OURS)
        fastest = min(times.values())
        label = _label(name, sparsity, batch)
        run.metric(f"{label}/tenfold, ms", ours)
        run.metric(f"{label}/torch, ms", fastest)
        run.metric(f"{label}/ratio", fastest / ours)
        ratios[name].append(fastest / ours)
    csr, bsr = (statistics.geometric_mean(ratios[name]) for name in ("csr", "bsr"))
    run.metric("csr/geometric mean of ratios", csr)
    run.metric("bsr/geometric mean of ratios", bsr)
    run.claim(_goal("CSR", 1.5, csr))
    run.claim(_goal("BSR", 1.0, bsr))


def _goal(name: str, goal: float, ours: float) -> Claim:
    return Claim.at_least(
        f"{name} over torch.sparse, geometric mean",
        paper=goal,
        ours=ours,
        unit="x",
        note="a goal of this package, not a paper's figure",
    )


def ratio_table(records: Sequence[Record]) -> Table:
    """Tabulate times and ratios, one row for each format, sparsity and batch."""
    settings = records[0].settings
    rows = []
    for name in ("csr", "bsr"):
        for sparsity in settings["sparsities"]:
            for batch in settings["batches"]:
                label = _label(name, sparsity, batch)
                cells = (
                    estimate([record.metrics[f"{label}/{metric}"] for record in records])
                    for metric in ("torch, ms", "tenfold, ms", "ratio")
                )
                rows.append([f"{name.upper()}, {sparsity:.0%} zeros, batch {batch}", *cells])
        mean = [record.metrics[f"{name}/geometric mean of ratios"] for record in records]
        rows.append([f"{name.upper()}, geometric mean", "", "", estimate(mean)])
    title = (
        f"Sparse {settings['rows']} x {settings['columns']} times dense, float32, BSR in blocks of "
        f"{settings['block']} x {settings['block']}: median of {settings['repeats']}, "
        f"{records[0].hardware['threads']} threads"
    )
    return Table(title, ["product", "torch.sparse, ms", "tenfold, ms", "torch / tenfold"], rows)


def _label(name: str, sparsity: float, batch: int) -> str:
    return f"{name}/{sparsity:.0%} zeros/batch {batch}"


def _points(settings: Settings, generator: torch.Generator) -> dict[Point, Candidates]:
    points = {}
    for name in ("csr", "bsr"):
        for sparsity in settings.sparsities:
            weight = _random_weight(settings, settings.block if name == "bsr" else 1, sparsity, generator)
            for batch in settings.batches:
                dense = torch.randn(settings.columns, batch, generator=generator)
                points[name, sparsity, batch] = (
                    _csr_candidates(weight, dense)
                    if name == "csr"
                    else _bsr_candidates(weight, dense, settings.block)
                )
    return points


def _random_weight(
    settings: Settings, block: int, sparsity: float, generator: torch.Generator
) -> torch.Tensor:
    weight = torch.randn(settings.rows, settings.columns, generator=generator)
    kept = torch.rand(settings.rows // block, settings.columns // block, generator=generator) >= sparsity
    return weight * kept.repeat_interleave(block, 0).repeat_interleave(block, 1)


def _csr_candidates(weight: torch.Tensor, dense: torch.Tensor) -> Candidates:
    long = weight.to_sparse_csr()
    crow, col, values = long.crow_indices().int(), long.col_indices().int(), long.values()
    short = torch.sparse_csr_tensor(crow, col, values, long.shape)
    candidates: Candidates = {
        _OURS: lambda: csr_matmul(crow, col, values, dense),
        "int64 @": lambda: long @ dense,
        "int32 @": lambda: short @ dense,
        "int64 mm": lambda: torch.sparse.mm(long, dense),
        "int32 mm": lambda: torch.sparse.mm(short, dense),
    }
    if dense.shape[1] == 1:
        vector = dense[:, 0]
        candidates["int64 vector"] = lambda: long @ vector
        candidates["int32 vector"] = lambda: short @ vector
    return candidates


def _bsr_candidates(weight: torch.Tensor, dense: torch.Tensor, block: int) -> Candidates:
    long = weight.to_sparse_bsr((block, block))
    crow, col, values = long.crow_indices().int(), long.col_indices().int(), long.values()
    short = torch.sparse_bsr_tensor(crow, col, values, long.shape)
    candidates: Candidates = {
        _OURS: lambda: bsr_matmul(crow, col, values, dense),
        "int64 @": lambda: long @ dense,
        "int32 @": lambda: short @ dense,
    }
    if dense.shape[1] == 1:
        vector = dense[:, 0]
        candidates["int32 vector"] = lambda: short @ vector
    return candidates


def _medians(points: Mapping[Point, Candidates], repeats: int) -> dict[Point, dict[str, float]]:
    """Milliseconds a call, the median over rounds.

    In every round each candidate of each point has one turn, in random order: a call to warm the
    caches and one that is timed. A disturbance of the machine so meets all of them alike, and no
    more than some rounds.
    """
    for candidates in points.values():
        expected, *others = (call().flatten() for call in candidates.values())
        for other in others:
            torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-3)
    times: dict[Point, dict[str, list[float]]] = {
        point: {name: [] for name in candidates} for point, candidates in points.items()
    }
    turns = [(times[point][name], call) for point in points for name, call in points[point].items()]
    order = random.Random(0)
    for _ in range(repeats):
        order.shuffle(turns)
        for sample, call in turns:
            call()
            started = time.perf_counter()
            call()
            sample.append(1000 * (time.perf_counter() - started))
    return {
        point: {name: statistics.median(each) for name, each in of_point.items()}
        for point, of_point in times.items()
    }


bench = Experiment(
    package="tenfold",
    command="bench",
    body=against_torch,
    quick=Settings(),
    full=Settings(repeats=301),
    tables={"ratios": ratio_table},
    program="python -m tenfold",
)
