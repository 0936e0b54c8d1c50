"""Pictures of the audits, in the house style."""

from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from spectral_dp._audit.one_run import OneRunAudit, epsilon_lower_bound
from spectral_dp._audit.single_step import SingleStepAudit
from tenfold.experiment.plots import STYLE, save


def draw_single_step(found: SingleStepAudit, path: Path) -> None:
    """Draw the noise by direction, and mu by canary with two standard errors, against the claim."""
    with style.context(STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(np.arange(1, found.dimension + 1), found.noise, marker=".", label="measured")
        left.axhline(1, color="0.4", linestyle="--", linewidth=1, label="claimed")
        left.axhline(found.isotropic_edge, color="0.4", linestyle=":", linewidth=1, label="least by chance")
        left.set(
            title="Noise by direction",
            xlabel="direction",
            ylabel="standard deviation / claimed",
            ylim=(0, None),
        )
        left.legend()

        names = ["worst direction", *(canary.name for canary in found.canaries)]
        values = [(found.mu, found.mu_error), *((canary.mu, canary.mu_error) for canary in found.canaries)]
        widest = 1.25 * max([found.claimed_mu, *(mu for mu, _ in values if np.isfinite(mu))])
        for row, (mu, error) in enumerate(values):
            if np.isfinite(mu):
                right.errorbar(mu, row, xerr=2 * error, marker="o", color="C0")
            else:
                right.text(0.99 * widest, row, "infinite", ha="right", va="center", color="C1")
        right.axvline(found.claimed_mu, color="0.4", linestyle="--", linewidth=1)
        right.set(title="Privacy loss", xlabel="mu (dashed: claimed)", xlim=(0, widest))
        right.set_yticks(range(len(names)), names)
        right.invert_yaxis()
        save(figure, path)


def draw_one_run(found: OneRunAudit, path: Path, claimed: float | None) -> None:
    """Draw the lower bound over the number of right guesses, and where this run lies."""
    least = min(found.guesses // 2, found.correct)
    counts = np.unique(np.linspace(least, found.guesses, 60).round().astype(int))
    bounds = [
        epsilon_lower_bound(
            found.canaries, found.guesses, int(count), delta=found.delta, confidence=found.confidence
        )
        for count in counts
    ]
    with style.context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        axes.plot(counts, bounds, label=f"bound at confidence {found.confidence:g}")
        axes.plot(found.correct, found.epsilon, marker="o", linestyle="", label="this run")
        if claimed is not None:
            axes.axhline(claimed, color="0.4", linestyle="--", linewidth=1, label="claimed")
        axes.set(title="One-run audit", xlabel=f"right of {found.guesses} guesses", ylabel="epsilon")
        axes.legend()
        save(figure, path)
