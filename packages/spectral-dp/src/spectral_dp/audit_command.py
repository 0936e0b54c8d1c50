"""The commands ``spectral-dp audit step`` and ``spectral-dp audit one-run``, on a user's own functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from spectral_dp._audit.one_run import OneRunAudit, one_run_audit
from spectral_dp._audit.single_step import (
    ClippingCheck,
    SingleStepAudit,
    check_clipping,
    frequency_canaries,
    repeat,
    single_step_audit,
)
from tenfold.experiment import Table
from tenfold.experiment.cli import show, user_function, write_document

Json = Annotated[str | None, typer.Option("--json", help="Write the figures here; - for stdout.")]
Plot = Annotated[Path | None, typer.Option(help="Write a picture (PNG) here.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Delta = Annotated[float, typer.Option(help="Of (epsilon, delta).")]

audit = typer.Typer(
    no_args_is_help=True,
    help="Look for contradictions to a privacy claim; exit code 1 when there is one.",
)


@audit.command("step")
def step(
    mechanism: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION", help="From per-sample gradients (batch, d) to a release (d,)."
        ),
    ],
    dimension: Annotated[int, typer.Option(help="d, the number of parameters.")],
    max_grad_norm: Annotated[float, typer.Option(help="Claimed bound on a sample's contribution.")],
    noise_multiplier: Annotated[float, typer.Option(help="Claimed noise over that bound.")],
    vectorised: Annotated[
        bool,
        typer.Option("--vectorised", help="The function takes a number of draws too, and gives (draws, d)."),
    ] = False,
    clipped_sum: Annotated[
        str,
        typer.Option(metavar="MODULE:FUNCTION", help="The step without its noise, to check its clipping."),
    ] = "",
    subspace: Annotated[
        str,
        typer.Option(metavar="MODULE:FUNCTION", help="Returns orthonormal columns that span the releases."),
    ] = "",
    scale: Annotated[float, typer.Option(help="What releases are a multiple of the sum by.")] = 1.0,
    bins: Annotated[
        list[int] | None, typer.Option("--bin", help="Frequency of a sine and a cosine canary; repeatable.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Of the noise, and of every canary.")] = 50_000,
    batch: Annotated[int, typer.Option(help="Samples beside the canary.")] = 8,
    delta: Delta = 1e-5,
    tolerance: Annotated[float, typer.Option(help="How far a figure may pass the claim, relative.")] = 0.02,
    json: Json = None,
    plot: Plot = None,
    debug: Debug = False,
) -> None:
    """Measure the noise of one step, and what canaries do to its release."""
    function = user_function(mechanism)
    span = user_function(subspace)() if subspace else None
    found = single_step_audit(
        function if vectorised else repeat(function),
        dimension=dimension,
        max_grad_norm=max_grad_norm,
        noise_multiplier=noise_multiplier,
        canaries=frequency_canaries(dimension, tuple(bins)) if bins else None,
        subspace=span,
        scale=scale,
        draws=draws,
        batch=batch,
        delta=delta,
    )
    findings = found.findings(tolerance)
    clipping = None
    if clipped_sum:
        clipping = check_clipping(
            user_function(clipped_sum), dimension=dimension, max_grad_norm=max_grad_norm, scale=scale
        )
        findings += clipping.findings()
    document = {
        "mechanism": mechanism,
        **asdict(found),
        "clipping": None if clipping is None else asdict(clipping),
        "tolerance": tolerance,
        "findings": findings,
    }
    if plot is not None:
        from spectral_dp._audit.pictures import draw_single_step

        draw_single_step(found, plot)
    _present(step_table(found, clipping), findings, document, json, claims=True)


@audit.command("one-run")
def one_run(
    train: Annotated[
        str,
        typer.Argument(metavar="MODULE:FUNCTION", help="From bool (m,), who is included, to scores (m,)."),
    ],
    canaries: Annotated[int, typer.Option(help="m, records of which each is included by a fair coin.")],
    guesses: Annotated[int, typer.Option(help="r, fixed before the run.")],
    claimed: Annotated[
        float | None, typer.Option("--epsilon", help="Claim to hold the bound against.")
    ] = None,
    delta: Delta = 1e-5,
    confidence: Annotated[float, typer.Option(help="Of the bound.")] = 0.95,
    seed: Annotated[int | None, typer.Option(help="Of the coins. Default: the system's entropy.")] = None,
    json: Json = None,
    plot: Plot = None,
    debug: Debug = False,
) -> None:
    """Bound epsilon from below by one run of a training function."""
    found = one_run_audit(
        user_function(train),
        canaries=canaries,
        guesses=guesses,
        delta=delta,
        confidence=confidence,
        generator=np.random.default_rng(seed),
    )
    findings = []
    if claimed is not None and found.epsilon > claimed:
        findings.append(f"epsilon is at least {found.epsilon:.3f}, claimed is {claimed:g}")
    if plot is not None:
        from spectral_dp._audit.pictures import draw_one_run

        draw_one_run(found, plot, claimed)
    document = {"train": train, "claimed_epsilon": claimed, **asdict(found), "findings": findings}
    _present(one_run_table(found, claimed), findings, document, json, claims=claimed is not None)


def step_table(found: SingleStepAudit, clipping: ClippingCheck | None) -> Table:
    """Tabulate a single-step audit."""

    def row(name: str, norm: str, mu: float, error: float, epsilon: float) -> list[str]:
        return [name, norm, f"{mu:.3f}", f"{error:.3f}", f"{epsilon:.3f}"]

    rows = [
        row("claim", "1.000", found.claimed_mu, 0.0, found.claimed_epsilon),
        row("worst direction", "", found.mu, found.mu_error, found.epsilon),
    ]
    rows += [
        row(f"canary {canary.name}", f"{canary.norm:.3f}", canary.mu, canary.mu_error, canary.epsilon)
        for canary in found.canaries
    ]
    if clipping is not None:
        rows.append([f"clipping, {clipping.tried} trials", f"{clipping.worst:.3f}", "", "", ""])
    title = f"one step, {found.draws} draws in {found.dimension} dimensions, delta {found.delta:g}"
    return Table(title, ["", "contribution / bound", "mu", "standard error", "epsilon"], rows)


def one_run_table(found: OneRunAudit, claimed: float | None) -> Table:
    """Tabulate a one-run audit."""
    rows = [
        ["canaries", str(found.canaries)],
        ["guesses", str(found.guesses)],
        ["right", str(found.correct)],
        ["epsilon, lower bound", f"{found.epsilon:.3f}"],
        ["the bound if all were right", f"{found.attainable:.3f}"],
    ]
    if claimed is not None:
        rows.append(["epsilon, claimed", f"{claimed:.3f}"])
    return Table(f"one run, confidence {found.confidence:g}, delta {found.delta:g}", ["", "value"], rows)


def _present(
    table: Table, findings: list[str], document: Mapping[str, Any], json: str | None, *, claims: bool
) -> None:
    console = Console(stderr=json == "-")
    show([table], console)
    for finding in findings:
        console.print(f"[bold red]finding:[/] {finding}", soft_wrap=True, highlight=False)
    if claims and not findings:
        console.print("nothing contradicts the claim", highlight=False)
    finite = _finite(document)
    write_document(finite, json)
    if findings:
        raise typer.Exit(1)


def _finite(value: Any) -> Any:
    """Replace infinities, which JSON has not, by null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
