"""Assignments against SciPy's, on the plain matrix and on the square one that states a limit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.optimize import linear_sum_assignment

from mot_cup._assignment import assign, assign_within
from mot_cup._boxes import Floats
from mot_cup._tracks import Ints

# Few values make ties the rule, and eighths sum without rounding.
tied = st.integers(-8, 8).map(lambda value: value / 8)
shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
costs = arrays(np.float64, shapes, elements=tied | st.floats(-1, 1))
tied_costs = arrays(np.float64, shapes, elements=tied)


def total(cost: Floats, columns: Ints) -> float:
    """Return the cost of the pairs, none of which may share a row or a column."""
    rows = np.flatnonzero(columns >= 0)
    assert len(columns) == len(cost)
    assert len(set(columns[rows])) == len(rows)
    return float(cost[rows, columns[rows]].sum())


def extended(cost: Floats, limit: float) -> Floats:
    """Return the square matrix of n + m rows whose assignment leaves out what does not pay."""
    n, m = cost.shape
    square = np.full((n + m, n + m), limit / 2)
    square[:n, :m] = cost
    square[n:, m:] = 0
    return square


@settings(deadline=None)
@given(cost=costs)
def test_plain_assignments_cost_what_scipy_finds(cost: Floats) -> None:
    columns = assign(cost)
    assert (columns >= 0).sum() == min(cost.shape)
    assert total(cost, columns) == pytest.approx(cost[linear_sum_assignment(cost)].sum(), abs=1e-12)


@settings(deadline=None)
@given(cost=costs, limit=tied)
def test_limited_assignments_cost_what_scipy_finds_on_the_square_matrix(cost: Floats, limit: float) -> None:
    columns = assign_within(cost, limit)
    square = extended(cost, limit)
    unmatched = sum(cost.shape) - 2 * (columns >= 0).sum()
    found = total(cost, columns) + unmatched * limit / 2
    assert found == pytest.approx(square[linear_sum_assignment(square)].sum(), abs=1e-12)


@settings(deadline=None)
@given(cost=tied_costs, limit=tied)
def test_a_limit_is_a_price_of_each_row_left_out(cost: Floats, limit: float) -> None:
    n, m = cost.shape
    private = np.concatenate([cost, np.where(np.eye(n) > 0, limit, 1e3)], axis=1)
    columns = assign_within(cost, limit)
    least = private[linear_sum_assignment(private)].sum()
    assert total(cost, columns) + limit * (columns < 0).sum() == least
    rows = columns >= 0
    assert (cost[rows, columns[rows]] <= limit).all()
    left = np.setdiff1d(np.arange(m), columns)
    assert not (cost[np.ix_(~rows, left)] <= limit).any()


@settings(deadline=None)
@given(cost=costs, seed=st.integers(0, 99))
def test_the_optimum_is_that_of_the_rows_in_another_order(cost: Floats, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(cost))
    assert total(cost, assign(cost)) == pytest.approx(total(cost[order], assign(cost[order])), abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (80, 30), (30, 80)])
def test_larger_matrices_of_few_cheap_pairs(n: int, m: int) -> None:
    generator = np.random.default_rng(n)
    for _ in range(20):
        cost = 1 - generator.random((n, m)) * (generator.random((n, m)) < 0.1)
        assert total(cost, assign(cost)) == pytest.approx(cost[linear_sum_assignment(cost)].sum())
        square = extended(cost, 0.7)
        columns = assign_within(cost, 0.7)
        found = total(cost, columns) + (n + m - 2 * (columns >= 0).sum()) * 0.35
        assert found == pytest.approx(square[linear_sum_assignment(square)].sum())


def test_a_limit_is_not_an_assignment_whose_dear_pairs_are_dropped() -> None:
    cost = np.array([[0.1, 0.5], [0.5, 1.0]])
    assert assign(cost).tolist() == [1, 0]
    assert assign_within(cost, 0.8).tolist() == [0, -1]


def test_a_pair_that_costs_the_limit_is_taken() -> None:
    assert assign_within(np.array([[0.5]]), 0.5).tolist() == [0]
    assert assign_within(np.array([[0.5, 0.25], [0.25, 0.0]]), 0.5).tolist() in ([0, 1], [1, 0])
    assert assign_within(np.array([[0.5, 0.6]]), 0.4).tolist() == [-1]


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_an_empty_side_has_no_pairs(n: int, m: int) -> None:
    cost = np.empty((n, m))
    assert assign(cost).tolist() == [-1] * n
    assert assign_within(cost, 0.5).tolist() == [-1] * n


def test_infinite_and_nan_pairs_are_never_taken() -> None:
    cost = np.array([[np.inf, np.nan, 0.2], [0.3, np.inf, 0.1], [np.nan, np.inf, np.inf]])
    assert assign(cost).tolist() == [2, 0, -1]
    assert assign_within(cost, 0.9).tolist() == [2, 0, -1]
    assert assign(np.full((2, 2), np.inf)).tolist() == [-1, -1]
