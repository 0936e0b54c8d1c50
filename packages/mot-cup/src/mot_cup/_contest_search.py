"""The search that tunes the trackers of a contest, the same for all that are tuned.

Many candidates are drawn and judged on some of the clips, the best of them on all (successive halving). From
the best of those, one value at a time is moved to its neighbours while that raises HOTA (coordinate descent).
A random search alone scatters by a point of HOTA between seeds, as much as is to be measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mot_cup._contest import Candidate, Space, draw, judge
from mot_cup._contest_data import Contest, Fold
from mot_cup.metrics import Scores, combine

FEW = 3
"""One clip of so many judges all draws."""
BEST = 0.1
"""Share of the draws that all clips judge."""
PASSES = 2
"""Times that the descent goes through all values."""


def tune(contest: Contest, method: str, fold: Fold, draws: int, generator: np.random.Generator) -> Candidate:
    """Return the candidate of most HOTA on the clips to tune on.

    Parameters
    ----------
    contest : Contest
    method : str
    fold : Fold
    draws : int
    generator : numpy.random.Generator
    """
    space, clips = contest.space(method), fold.tune
    known: dict[tuple[Candidate, int], Scores] = {}

    def hota(candidate: Candidate, numbers: Sequence[int]) -> float:
        for number in numbers:
            if (candidate, number) not in known:
                known[candidate, number] = judge(method, candidate, clips[number], contest.per_height)
        return combine(known[candidate, number] for number in numbers)["HOTA"]

    candidates = draw(space, draws, generator)
    some, every = range(0, len(clips), FEW), range(len(clips))
    order = np.argsort([-hota(candidate, some) for candidate in candidates], kind="stable")
    finalists = [candidates[index] for index in order[: max(1, round(BEST * draws))]]
    best: Candidate = max(finalists, key=lambda candidate: hota(candidate, every))
    for _ in range(PASSES):
        before = best
        for name in generator.permutation(list(space)):
            best = max([best, *neighbours(best, str(name), space)], key=lambda item: hota(item, every))
        if best == before:
            break
    return best


def neighbours(candidate: Candidate, name: str, space: Space) -> list[Candidate]:
    """Return the candidates that differ in one value: the next ones in order, or any other kind of frames."""
    values = space[name]
    at = values.index(getattr(candidate, name))
    others = values[max(at - 1, 0) : at] + values[at + 1 : at + 2]
    if name == "frames":
        others = values[:at] + values[at + 1 :]
    return [dataclasses.replace(candidate, **{name: value}) for value in others]
