"""The experiment on quadratics: the problems and their optimum, and what the methods find."""

import itertools
from pathlib import Path
from typing import Any

import cvxpy
import numpy as np
import pytest

from slr_prune.quadratics import KEPT, METHODS, SIZE, Quadratic, Settings, draw, quadratics, solve
from tenfold import SettingError
from tenfold.experiment import Record

TINY = Settings(problems=6, tuning_problems=3, iterations=15, conditions=(1.0, 100.0), rhos=(1.0, 10.0, 20.0))


def problems(condition: float, count: int, seed: int = 0) -> list[Quadratic]:
    generator = np.random.default_rng(seed)
    return [draw(condition, generator) for _ in range(count)]


@pytest.mark.parametrize("condition", [1.0, 10.0, 100.0])
def test_the_hessian_has_its_condition_number(condition: float) -> None:
    for problem in problems(condition, 5):
        np.testing.assert_allclose(problem.H, problem.H.T, atol=1e-12)
        eigenvalues = np.linalg.eigvalsh(problem.H)
        assert eigenvalues[-1] / eigenvalues[0] == pytest.approx(condition)
        assert np.prod(eigenvalues) == pytest.approx(1)


def test_the_optimum_is_cvxpys_best_over_all_supports() -> None:
    (problem,) = problems(100.0, 1)
    w, b = cvxpy.Variable(SIZE), cvxpy.Parameter(SIZE)
    objective = 0.5 * cvxpy.quad_form(w - problem.a, cvxpy.psd_wrap(problem.H))
    program = cvxpy.Problem(cvxpy.Minimize(objective), [cvxpy.multiply(b, w) == 0])
    values = {}
    for support in itertools.combinations(range(SIZE), KEPT):
        b.value = np.array([float(index not in support) for index in range(SIZE)])
        values[support] = program.solve(solver=cvxpy.CLARABEL)
    best = min(values, key=values.__getitem__)
    assert tuple(np.flatnonzero(problem.optimum)) == best
    assert problem.value(problem.optimum) == pytest.approx(values[best], rel=1e-6)


def test_gap_and_hit() -> None:
    (problem,) = problems(10.0, 1)
    assert problem.gap(problem.optimum) == 0
    assert problem.hit(2 * problem.optimum)
    assert not problem.hit(problem.a)
    zero = problem.gap(np.zeros(SIZE))
    assert zero == pytest.approx(problem.a @ problem.H @ problem.a / 2 / problem.value(problem.optimum) - 1)
    assert problem.gap(np.full(SIZE, 1e9)) == zero


@pytest.mark.parametrize("method", ["SLR", "SLR, return on reject", "ADMM"])
@pytest.mark.parametrize("rho", [10.0, 30.0])
def test_the_optimum_is_found_with_an_identity_hessian(method: str, rho: float) -> None:
    for problem in problems(1.0, 30, seed=1):
        w = solve(problem, method, rho, 60)
        assert problem.hit(w)
        assert problem.gap(w) < 0.01


@pytest.mark.parametrize("method", METHODS)
def test_what_is_found_is_sparse_and_not_better_than_the_optimum(method: str) -> None:
    for problem in problems(100.0, 5):
        w = solve(problem, method, 3.0, 20)
        assert np.count_nonzero(w) <= KEPT
        assert problem.gap(w) >= -1e-12


def test_a_divergence_is_the_zero_point() -> None:
    (problem,) = problems(1.0, 1)
    assert not solve(problem, "SLR, published step rule", 0.3, 2000).any()


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return quadratics.execute(TINY, out=tmp_path_factory.mktemp("quadratics"))


def test_rho_has_the_least_gap_on_the_tuning_problems(record: Record) -> None:
    for condition, method in itertools.product(("1", "100"), METHODS):
        key = f"condition {condition}/{method}"
        gaps = record.history[f"{key}/tuning gap"]
        assert len(gaps) == len(TINY.rhos)
        assert record.metrics[f"{key}/rho"] == TINY.rhos[gaps.index(min(gaps))]
        assert len(record.history[f"{key}/gap"]) == TINY.problems
        assert record.metrics[f"{key}/hits, %"] == pytest.approx(100 * np.mean(record.history[f"{key}/hits"]))


def test_claims_follow_from_the_record(record: Record) -> None:
    margin, identity = record.claims
    slr, admm = (
        np.mean([record.metrics[f"condition {condition}/{name}/hits, %"] for condition in ("1", "100")])
        for name in ("SLR", "ADMM")
    )
    assert margin.ours == pytest.approx(slr - admm)
    assert margin.holds is (margin.ours >= 0)
    assert identity.ours == 100 * min(record.history["identity/hits"])
    assert len(record.history["identity/hits"]) == 2


def test_tables_show_every_method_and_rho(record: Record) -> None:
    methods, rhos = (table([record, record]).markdown() for table in quadratics.tables.values())
    for method in METHODS:
        assert methods.count(f"| {method} |") == rhos.count(f"| {method} |") == 2
    assert "12 random quadratics" in methods
    assert "| rho 20 |" in rhos


def test_a_resumed_run_gives_the_same_record(record: Record, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quadratics.execute(TINY, out=tmp_path, notify=stop)
    again = quadratics.execute(TINY, out=tmp_path, resume=True)
    assert again.results() == record.results()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problems": 0}, "problems is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"conditions": (0.5,)}, "conditions"),
        ({"rhos": ()}, "rhos"),
        ({"rhos": (1.0, -1.0)}, "rhos"),
        ({"rhos": (float("nan"),)}, "rhos"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Settings(**settings)
