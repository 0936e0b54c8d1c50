"""Matching of two sets of boxes by most total similarity, and their intersection over union.

Several matchings can be equally good, and then the counts of a metric depend on which one is taken. To
agree with published figures, ties must fall as in the public evaluation code, which calls SciPy. So this is
SciPy's method: rows are added in order, each by a shortest augmenting path (Crouse, "On implementing 2D
rectangular assignment algorithms", IEEE TAES 52, 2016) that looks at columns from the last to the first and,
among the nearest, prefers the latest seen that is free. Sums are taken in NumPy's order for the same reason.
`mot_cup._assignment` is faster on the problems of trackers, where ties do not matter.
"""

from __future__ import annotations

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._tracks import Ints

EPS = np.finfo(np.float64).eps


@compiled
def match(similarity: Floats) -> Ints:
    """Return the column of every row, -1 where it has none, in min(n, m) pairs of most total similarity.

    Parameters
    ----------
    similarity : ndarray of float64
        Shape (n, m), finite.

    Returns
    -------
    ndarray of int64
        Shape (n,), what `scipy.optimize.linear_sum_assignment` gives, ties included.
    """
    n, m = similarity.shape
    if n <= m:
        columns, _ = _assign(-similarity)
    else:
        _, columns = _assign(np.ascontiguousarray(-similarity.T))
    return columns


@compiled
def match_positive(similarity: Floats) -> Ints:
    """Return the pairs of `match` whose similarity is positive: column of every row, or -1.

    Where everything has its best to itself there is nothing to solve.
    """
    n, m = similarity.shape
    if n <= m:
        columns, alone = _bests(similarity)
        if alone:
            return columns
    else:
        rows, alone = _bests(similarity.T)
        if alone:
            columns = np.full(n, -1)
            for column in range(m):
                if rows[column] >= 0:
                    columns[rows[column]] = column
            return columns
    columns = match(similarity)
    for row in range(n):
        if columns[row] >= 0 and similarity[row, columns[row]] <= 0:
            columns[row] = -1
    return columns


@compiled
def _bests(similarity: Floats) -> tuple[Ints, bool]:
    """Return the column that is most similar to each row, if any is, and whether each is one row's alone."""
    n, m = similarity.shape
    columns, taken = np.full(n, -1), np.zeros(m, np.bool_)
    for row in range(n):
        best, draw = 0.0, False
        for column in range(m):
            if similarity[row, column] > best:
                best, draw, columns[row] = similarity[row, column], False, column
            elif similarity[row, column] == best and best > 0:
                draw = True
        if columns[row] >= 0:
            if draw or taken[columns[row]]:
                return columns, False
            taken[columns[row]] = True
    return columns, True


@compiled
def overlaps(boxes: Floats, others: Floats) -> Floats:
    """Return the intersections over union of boxes with others.

    Parameters
    ----------
    boxes, others : ndarray of float64
        Corners, of shapes (n, 4) and (m, 4). A box without area overlaps nothing.

    Returns
    -------
    ndarray of float64
        Shape (n, m).
    """
    n, m = len(boxes), len(others)
    result = np.zeros((n, m))
    for i in range(n):
        area = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
        if area <= EPS:
            continue
        for j in range(m):
            width = min(boxes[i, 2], others[j, 2]) - max(boxes[i, 0], others[j, 0])
            height = min(boxes[i, 3], others[j, 3]) - max(boxes[i, 1], others[j, 1])
            if width <= 0 or height <= 0:
                continue
            other = (others[j, 2] - others[j, 0]) * (others[j, 3] - others[j, 1])
            both = width * height
            union = area + other - both
            if other > EPS and union > EPS:
                result[i, j] = both / union
    return result


@compiled
def row_sums(values: Floats) -> Floats:
    """Return ``values.sum(1)`` to the last bit."""
    sums = np.empty(len(values))
    for row in range(len(values)):
        sums[row] = pairwise_sum(values[row])
    return sums


@compiled
def column_sums(values: Floats) -> Floats:
    """Return ``values.sum(0)`` to the last bit."""
    n, m = values.shape
    if m == 1:
        return np.array([pairwise_sum(values[:, 0])])
    sums = np.zeros(m)
    for row in range(n):
        for column in range(m):
            sums[column] += values[row, column]
    return sums


@compiled
def pairwise_sum(values: Floats) -> float:
    """Return ``values.sum()`` to the last bit: NumPy adds in eight lanes, and in halves above 128."""
    n = len(values)
    total: float = 0.0
    if n < 8:
        for value in values:
            total += value
        return total
    if n > 128:
        half = n // 2 - n // 2 % 8
        return pairwise_sum(values[:half]) + pairwise_sum(values[half:])
    lanes = values[:8].copy()
    whole = n - n % 8
    for start in range(8, whole, 8):
        for lane in range(8):
            lanes[lane] += values[start + lane]
    total += (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
    total += (lanes[4] + lanes[5]) + (lanes[6] + lanes[7])
    for value in values[whole:]:
        total += value
    return total


@compiled
def _assign(cost: Floats) -> tuple[Ints, Ints]:
    """Return the column of every row and the row of every column, of no more rows than columns."""
    n, m = cost.shape
    columns, rows = np.full(n, -1), np.full(m, -1)
    row_prices, column_prices = np.zeros(n), np.zeros(m)
    distances, before = np.empty(m), np.empty(m, np.int64)
    unseen, seen = np.empty(m, np.int64), np.empty(m, np.int64)
    for start in range(n):
        for column in range(m):
            unseen[column] = m - 1 - column
            distances[column] = np.inf
        left, row, length, end = m, start, 0.0, -1
        while end < 0:
            nearest, place = np.inf, -1
            for index in range(left):
                column = unseen[index]
                distance = length + cost[row, column] - row_prices[row] - column_prices[column]
                if distance < distances[column]:
                    distances[column], before[column] = distance, row
                if distances[column] < nearest or (distances[column] == nearest and rows[column] < 0):
                    nearest, place = distances[column], index
            length = nearest
            column = unseen[place]
            seen[m - left] = column
            left -= 1
            unseen[place] = unseen[left]
            if rows[column] < 0:
                end = column
            else:
                row = rows[column]
        row_prices[start] += length
        for column in seen[: m - left]:
            if column != end:
                row_prices[rows[column]] += length - distances[column]
            column_prices[column] -= length - distances[column]
        column = end
        while True:
            row = before[column]
            rows[column] = row
            columns[row], column = column, columns[row]
            if row == start:
                break
    return columns, rows
