"""Linear assignment by shortest augmenting paths, with and without a limit on the cost of a pair.

`assign` is the rectangular problem: min(n, m) pairs of least total cost (Jonker and Volgenant, "A shortest
augmenting path algorithm for dense and sparse linear assignment problems", Computing 38, 1987).

`assign_within` leaves out what costs more than a limit t, weighing all pairs at once:

    minimise   sum over pairs of (c_ij - t)

over every set of disjoint pairs; one that costs just the limit is taken. Trackers state it as a square
problem of n + m rows, t / 2 beside the costs and below them, 0 in the corner, which has the same pairs. It
is not an assignment whose dear pairs are then dropped: that may give up two good pairs for one that is
dropped. Here a row may instead end on a column of its own that costs t, so nothing is extended, and a path
ends as soon as the limit does not pay. Without a limit that column costs infinity, and the two problems are
one.

The dual prices stay feasible throughout, u_i + v_j <= c_ij, u_i <= t, v_j <= 0, and tight on the pairs.
"""

from __future__ import annotations

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._tracks import Ints


@compiled
def assign(cost: Floats) -> Ints:
    """Return the column of every row, -1 where it has none, in min(n, m) pairs of least total cost.

    Parameters
    ----------
    cost : ndarray of float64
        Shape (n, m). Infinite and NaN pairs are never taken.

    Returns
    -------
    ndarray of int64
        Shape (n,).
    """
    n, m = cost.shape
    if n <= m:
        return assign_within(cost, np.inf)
    columns = np.full(n, -1)
    rows = assign_within(np.ascontiguousarray(cost.T), np.inf)
    for column in range(m):
        if rows[column] >= 0:
            columns[rows[column]] = column
    return columns


@compiled
def assign_within(cost: Floats, limit: float) -> Ints:
    """Return the column of every row, -1 where it has none, in pairs of most total gain limit - cost.

    Parameters
    ----------
    cost : ndarray of float64
        Shape (n, m), in C order. Infinite and NaN pairs are never taken.
    limit : float
        With infinity all rows have a column, of which there must then be as many.

    Returns
    -------
    ndarray of int64
        Shape (n,).
    """
    n, m = cost.shape
    columns, rows = np.full(n, -1), np.full(m, -1)
    row_prices = np.full(n, limit)
    left = 0
    waiting = np.empty(n, np.int64)
    for row in range(n):
        cheapest = -1
        for column in range(m):
            price = cost[row, column]
            if price < row_prices[row] or (cheapest < 0 and price == limit and limit < np.inf):
                row_prices[row], cheapest = price, column
        if cheapest >= 0 and rows[cheapest] < 0:
            columns[row], rows[cheapest] = cheapest, row
        elif cheapest >= 0:
            waiting[left] = row
            left += 1
    if left:
        column_prices = np.zeros(m)
        for row in waiting[:left]:
            _augment(cost, limit, row, columns, rows, row_prices, column_prices)
    return columns


@compiled
def _augment(
    cost: Floats,
    limit: float,
    start: int,
    columns: Ints,
    rows: Ints,
    row_prices: Floats,
    column_prices: Floats,
) -> None:
    """Give a row a column by the shortest path of reduced costs, which may leave another row without one."""
    m = len(rows)
    distances, before, seen = np.full(m, np.inf), np.full(m, -1), np.zeros(m, np.bool_)
    row, length = start, 0.0
    shortest_end, last_row, last_column = np.inf, -1, -1
    while True:
        end = length + limit - row_prices[row]
        if end < shortest_end:
            shortest_end, last_row = end, row
        nearest, nearest_distance = -1, np.inf
        for column in range(m):
            if seen[column]:
                continue
            distance = length + cost[row, column] - row_prices[row] - column_prices[column]
            if distance < distances[column]:
                distances[column], before[column] = distance, row
            if distances[column] < nearest_distance:
                nearest, nearest_distance = column, distances[column]
        if nearest < 0 or shortest_end < nearest_distance:
            length = shortest_end
            break
        length = nearest_distance
        if rows[nearest] < 0:
            last_row, last_column = before[nearest], nearest
            break
        seen[nearest] = True
        row = rows[nearest]
    if last_row < 0:
        return
    row_prices[start] += length
    for column in range(m):
        if seen[column]:
            row_prices[rows[column]] += length - distances[column]
            column_prices[column] -= length - distances[column]
    while True:
        column, columns[last_row] = columns[last_row], last_column
        if last_column >= 0:
            rows[last_column] = last_row
        if last_row == start:
            return
        last_column, last_row = column, before[column]
