"""The command ``mot-cup simulate``: a scene as files that the other commands read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from mot_cup._detections import Detections
from mot_cup._tracks import Ints, Tracks
from mot_cup.fusion import Combination, fuse_sequence, late_fusion
from mot_cup.io import SequenceInfo, write_mot_covariances, write_mot_tracks, write_sequence_info
from mot_cup.render import street_map
from mot_cup.simulation import Noise, Scene, SceneSettings, Streets, simulate
from tenfold import SettingError
from tenfold.experiment import Table, write_json, write_whole
from tenfold.experiment.cli import override, show, write_document


def simulate_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scene.")] = 0,
    frames: Annotated[int, typer.Option(help="Number of frames.")] = 100,
    cars: Annotated[int, typer.Option(help="Number of cars.")] = 80,
    agents: Annotated[int, typer.Option(help="Cars with a detector.")] = 5,
    combination: Annotated[
        Combination, typer.Option("--fusion", help="How detections of several agents are combined.")
    ] = "independent",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting of the scene; repeatable."),
    ] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option("--noise", metavar="NAME=VALUE", help="Change a setting of the noise; repeatable."),
    ] = None,
    streets: Annotated[
        list[str] | None,
        typer.Option("--streets", metavar="NAME=VALUE", help="Change a setting of the streets; repeatable."),
    ] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - for stdout.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Simulate traffic that several cars watch, and write truth and detections of each.

    Every folder of the output is a sequence, with det/det.txt, gt/gt.txt and seqinfo.ini: agent-1 and so on,
    late (the agents' detections fused), and early (one detector with all their sensors). Detections have
    covariances. The picture streets.png is a background for mot-cup render.
    """
    start = SceneSettings(
        frames=frames,
        cars=cars,
        agents=agents,
        streets=override(Streets(), streets or []),
        noise=override(Noise(), noise or []),
    )
    for text in settings or []:
        if text.partition("=")[0] in ("noise", "streets"):
            raise SettingError(f"--set {text}", "a number of the scene", "There are --noise and --streets.")
    chosen = override(start, settings or [])
    scene = simulate(chosen, np.random.default_rng(seed))
    fused = fuse_sequence(
        [agent.detections for agent in scene.agents], partial(late_fusion, combination=combination)
    )
    views = {f"agent-{number}": view for number, view in enumerate(scene.agents, start=1)}
    rows = [
        _write(output, scene, name, view.detections, view.truth, view.sources) for name, view in views.items()
    ]
    rows.append(_write(output, scene, "late", fused, scene.together.truth))
    together = scene.together
    rows.append(_write(output, scene, "early", together.detections, together.truth, together.sources))
    write_whole(output / "streets.png", partial(street_map(scene).save, format="PNG"))
    document = {"seed": seed, "fusion": combination, "settings": asdict(chosen), "sequences": rows}
    write_json(output / "scene.json", document)
    show([_table(rows, chosen)], Console(stderr=json == "-"))
    write_document(document, json)


def _write(
    output: Path,
    scene: Scene,
    name: str,
    detections: list[Detections],
    truth: Tracks,
    sources: Iterable[Ints] | None = None,
) -> dict[str, str | int | None]:
    """Write one sequence, and return its name and counts."""
    settings = scene.settings
    side = round(settings.streets.extent / settings.metres_per_pixel)
    write_mot_covariances(output / name / "det" / "det.txt", dict(enumerate(detections, start=1)))
    write_mot_tracks(output / name / "gt" / "gt.txt", truth)
    write_sequence_info(
        output / name / "seqinfo.ini", SequenceInfo(name, settings.frame_rate, settings.frames, side, side)
    )
    false = None if sources is None else int(sum((found < 0).sum() for found in sources))
    return {
        "name": name,
        "cars": len(np.unique(truth.ids)),
        "boxes": len(truth),
        "detections": sum(map(len, detections)),
        "false_alarms": false,
    }


def _table(rows: list[dict[str, str | int | None]], settings: SceneSettings) -> Table:
    title = f"{settings.frames} frames of {settings.cars} cars at {settings.frame_rate:g} Hz"
    names = ["name", "cars", "boxes", "detections", "false_alarms"]
    cells = [["" if row[name] is None else str(row[name]) for name in names] for row in rows]
    return Table(title, ["sequence", "cars within reach", "true boxes", "detections", "false alarms"], cells)
