"""How often SLR and ADMM find the best sparse point of a quadratic, where it can be enumerated.

    min f(w) = 1/2 (w - a)' H (w - a)   subject to   w in R^8 has at most 3 nonzeros

With its non-convex constraint the problem has a duality gap, and no multiplier method is sure to
find the optimum, the best of 56 least squares problems in three coordinates. H has a random
orthogonal basis and eigenvalues evenly spaced on a logarithmic scale around 1; a is standard
normal. Every W step is exact, so that the method is measured and not an optimizer. Conditions, step
sizes, multipliers and projections are those of the package's pruners.

A method starts where dense training would end, at W = a, and is judged by the hard-pruned point
after its last iteration: whether it has the optimum's support, a hit, and by how much its value
exceeds the optimum. A point worse than w = 0 counts as that one, so that divergence has a finite
gap. Every method chooses its rho from one grid by the mean gap on problems drawn apart; nothing
else is tuned.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from slr_prune._admm import ADMMPruner
from slr_prune._lagrangian import LagrangianPruner
from slr_prune._slr import SLRPruner
from tenfold import DivergedError, SettingError
from tenfold.experiment import Claim, Experiment, Record, Run, Table, estimate

SIZE, KEPT = 8, 3
SPARSITY = 1 - KEPT / SIZE
IDENTITY_RHO = 10.0
SUPPORTS = list(itertools.combinations(range(SIZE), KEPT))

METHODS: dict[str, Callable[[nn.Module, float], LagrangianPruner]] = {
    "SLR": lambda model, rho: SLRPruner(model, SPARSITY, rho=rho),
    "SLR, return on reject": lambda model, rho: SLRPruner(model, SPARSITY, rho=rho, on_reject="return"),
    "SLR, published step rule": lambda model, rho: SLRPruner(model, SPARSITY, rho=rho, step_rule="published"),
    "ADMM": lambda model, rho: ADMMPruner(model, SPARSITY, rho=rho),
}


@dataclass(frozen=True)
class Settings:
    """Settings of ``slr-prune quadratics``.

    Attributes
    ----------
    problems, tuning_problems : int
        Random problems to report on, and others to choose rho on, for every condition number.
    iterations : int
        Iterations of each method on each problem.
    conditions : tuple of float
        Condition numbers of H.
    rhos : tuple of float
        Candidates for every method.
    """

    problems: int = 200
    tuning_problems: int = 30
    iterations: int = 100
    conditions: tuple[float, ...] = (1.0, 10.0, 100.0)
    rhos: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0)

    def __post_init__(self) -> None:
        for name in ("problems", "tuning_problems", "iterations"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "1 or more", f"Raise {name}.")
        for name, least in (("conditions", 1.0), ("rhos", 1e-9)):
            values = getattr(self, name)
            if not (values and all(least <= value < np.inf for value in values)):
                raise SettingError(
                    f"{name} {values}", f"one or more numbers from {least:g} on", "Separate them by commas."
                )


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The problem of one H, float64 (8, 8), symmetric and positive definite, and one a, (8,)."""

    H: np.ndarray
    a: np.ndarray

    def value(self, w: np.ndarray) -> float:
        """Return f(w)."""
        gap = w - self.a
        return float(gap @ self.H @ gap / 2)

    @cached_property
    def optimum(self) -> np.ndarray:
        """The best sparse point, (8,), by enumeration of the supports."""
        points = np.zeros((len(SUPPORTS), SIZE))
        linear = self.H @ self.a
        for point, support in zip(points, map(list, SUPPORTS), strict=True):
            point[support] = np.linalg.solve(self.H[np.ix_(support, support)], linear[support])
        best: np.ndarray = min(points, key=self.value)
        return best

    def gap(self, w: np.ndarray) -> float:
        """Return by how much f(w), or f(0) where that is less, exceeds the optimum, relative to it."""
        return min(self.value(w), self.value(np.zeros(SIZE))) / self.value(self.optimum) - 1

    def hit(self, w: np.ndarray) -> bool:
        """Return whether `w` has the support of the optimum."""
        return bool(np.array_equal(w != 0, self.optimum != 0))


def draw(condition: float, generator: np.random.Generator) -> Quadratic:
    """Draw the problem of a random H with a given condition number, and a random a."""
    basis, _ = np.linalg.qr(generator.normal(size=(SIZE, SIZE)))
    eigenvalues = np.geomspace(condition**-0.5, condition**0.5, SIZE)
    return Quadratic(basis * eigenvalues @ basis.T, generator.normal(size=SIZE))


def solve(problem: Quadratic, method: str, rho: float, iterations: int) -> np.ndarray:
    """Return the hard-pruned point, (8,), that a method ends with; 0 when it diverges.

    Parameters
    ----------
    problem : Quadratic
    method : str
        A key of `METHODS`.
    rho : float
    iterations : int
    """
    layer = nn.Linear(SIZE, 1, bias=False, dtype=torch.float64)
    W: np.ndarray = layer.weight.detach()[0].numpy()  # shares the weight's memory
    W[:] = problem.a
    pruner = METHODS[method](nn.Sequential(layer), rho)
    (name,) = pruner.weights
    inverse = np.linalg.inv(problem.H + rho * np.eye(SIZE))
    linear = problem.H @ problem.a
    for _ in range(iterations):
        Z, multipliers = pruner.Z[name][0].numpy(), pruner.multipliers[name][0].numpy()
        W[:] = inverse @ (linear + rho * Z - multipliers)
        try:
            pruner.step(problem.value(W))
        except DivergedError:
            return np.zeros(SIZE)
    pruner.finalize()
    return W


def compare(run: Run[Settings]) -> None:
    """Compare SLR and ADMM on random quadratics whose sparse optimum is enumerated."""
    settings = run.settings
    jobs = [
        (_key(condition, method), index, condition, method)
        for index, condition in enumerate(settings.conditions)
        for method in METHODS
    ]
    for job in run.stage("methods", len(jobs)):
        key, index, condition, method = jobs[job]
        tuning = _problems(condition, settings.tuning_problems, (run.seed, index, 1))
        for rho in settings.rhos:
            gaps, hits = _judge(tuning, method, rho, settings.iterations)
            run.log(f"{key}/tuning gap", float(np.mean(gaps)))
            run.log(f"{key}/tuning hits", float(np.mean(hits)))
        best = settings.rhos[int(np.argmin(run.history[f"{key}/tuning gap"]))]
        run.log(f"{key}/rho", best)

        problems = _problems(condition, settings.problems, (run.seed, index, 0))
        gaps, hits = _judge(problems, method, best, settings.iterations)
        run.history[f"{key}/gap"], run.history[f"{key}/hits"] = gaps, hits
        if condition == 1 and method == "SLR":
            for rho in (rho for rho in settings.rhos if rho >= IDENTITY_RHO):
                hits = _judge(problems, method, rho, settings.iterations)[1]
                run.log("identity/hits", float(np.mean(hits)))

    for key, *_ in jobs:
        run.metric(f"{key}/rho", run.history[f"{key}/rho"][0])
        run.metric(f"{key}/hits, %", 100 * float(np.mean(run.history[f"{key}/hits"])))
        run.metric(f"{key}/mean gap, %", 100 * float(np.mean(run.history[f"{key}/gap"])))
    _claim(run)


def _problems(condition: float, count: int, seed: Sequence[int]) -> list[Quadratic]:
    generator = np.random.default_rng(seed)
    return [draw(condition, generator) for _ in range(count)]


def _judge(
    problems: Sequence[Quadratic], method: str, rho: float, iterations: int
) -> tuple[list[float], list[float]]:
    """Return the gap on every problem, and 1 or 0 for whether it was a hit."""
    points = [solve(problem, method, rho, iterations) for problem in problems]
    gaps = [problem.gap(point) for problem, point in zip(problems, points, strict=True)]
    return gaps, [float(problem.hit(point)) for problem, point in zip(problems, points, strict=True)]


def _key(condition: float, method: str) -> str:
    return f"condition {condition:g}/{method}"


def _claim(run: Run[Settings]) -> None:
    slr, admm = (
        float(np.mean([run.metrics[f"{_key(item, method)}/hits, %"] for item in run.settings.conditions]))
        for method in ("SLR", "ADMM")
    )
    run.claim(
        Claim.at_least(
            "best support of random quadratics found, SLR minus ADMM",
            paper=0.0,
            ours=slr - admm,
            unit="points",
            note="mean over the condition numbers; the paper claims better convergence, without figures",
        )
    )
    if "identity/hits" in run.history:
        run.claim(
            Claim.at_least(
                f"best support found by SLR with an identity Hessian and rho from {IDENTITY_RHO:g} on",
                paper=100.0,
                ours=100 * min(run.history["identity/hits"]),
                unit="%",
                note="what the method should do; the paper has no such figure",
            )
        )


def quadratics_table(records: Sequence[Record]) -> Table:
    """Tabulate hit rate and gap by condition number and method, over the problems of all seeds."""
    settings = records[0].settings
    rows = []
    for condition, method in itertools.product(settings["conditions"], METHODS):
        key = _key(condition, method)
        gaps, hits = (
            [100 * value for record in records for value in record.history[f"{key}/{series}"]]
            for series in ("gap", "hits")
        )
        chosen = sorted({record.metrics[f"{key}/rho"] for record in records})
        rows.append(
            [
                f"{condition:g}",
                method,
                ", ".join(f"{rho:g}" for rho in chosen),
                estimate(hits, 1),
                estimate(gaps, 2),
            ]
        )
    title = (
        f"{len(records) * settings['problems']} random quadratics, {KEPT} of {SIZE} weights kept, "
        f"{settings['iterations']} iterations: mean [95 % interval] over the problems"
    )
    return Table(
        title, ["condition number", "method", "rho chosen", "best support found, %", "mean gap, %"], rows
    )


def rhos_table(records: Sequence[Record]) -> Table:
    """Tabulate the hit rate on the tuning problems by rho."""
    settings = records[0].settings
    rows = []
    for condition, method in itertools.product(settings["conditions"], METHODS):
        hits, gaps = (
            100
            * np.mean([record.history[f"{_key(condition, method)}/tuning {kind}"] for record in records], 0)
            for kind in ("hits", "gap")
        )
        cells = (f"{hit:.0f} / {gap:.1f}" for hit, gap in zip(hits, gaps, strict=True))
        rows.append([f"{condition:g}", method, *cells])
    count = len(records) * settings["tuning_problems"]
    title = f"Best support found, % / mean gap, %, by rho, on {count} tuning problems"
    columns = ["condition number", "method", *(f"rho {rho:g}" for rho in settings["rhos"])]
    return Table(title, columns, rows)


quadratics = Experiment(
    package="slr-prune",
    command="quadratics",
    body=compare,
    quick=Settings(),
    full=Settings(
        problems=1000,
        tuning_problems=200,
        iterations=300,
        conditions=(1.0, 3.0, 10.0, 30.0, 100.0),
        rhos=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    ),
    tables={"quadratics": quadratics_table, "quadratics-rho": rhos_table},
)
