"""The command ``mot-cup render``: pictures of tracks in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mot_cup._detections import Detections
from mot_cup._tracks import Tracks
from mot_cup.io import read_detections, read_tracks
from mot_cup.render import RenderSettings, render
from tenfold import SettingError


def render_command(
    tracks: Annotated[Path, typer.Argument(help="Tracks or truth, in MOTChallenge's or KITTI's format.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .gif or .mp4, or a folder for PNG frames.")
    ],
    detections: Annotated[
        Path | None, typer.Option("--detections", help="Detections to draw, with ellipses if they have any.")
    ] = None,
    background: Annotated[
        Path | None, typer.Option(help="A picture, or a folder of one for each frame.")
    ] = None,
    frame_rate: Annotated[float, typer.Option(help="Frames a second of a .gif or .mp4.")] = 10.0,
    size: Annotated[int, typer.Option(help="Pixels of the longer side.")] = 800,
    trail: Annotated[int, typer.Option(help="Frames that the line behind a track reaches back.")] = 15,
    sigmas: Annotated[float, typer.Option(help="Standard deviations to an ellipse's rim.")] = 2.0,
    labels: Annotated[bool, typer.Option(help="Write identities.")] = True,
    view: Annotated[str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="The part that is shown.")] = None,
    frames: Annotated[
        str | None, typer.Option(metavar="FIRST:LAST", help="The frames that are shown.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Draw tracks: boxes, identities in lasting colours, trails, and what detections are sure of."""
    settings = RenderSettings(size=size, trail=trail, sigmas=sigmas, labels=labels, view=_view(view))
    shown = read_tracks(tracks)
    found: Mapping[int, Detections] | None = None if detections is None else read_detections(detections)
    if frames is not None:
        first, last = _range(frames)
        within = (shown.frames >= first) & (shown.frames <= last)
        shown = Tracks(shown.frames[within], shown.ids[within], shown.boxes[within])
        found = found and {number: item for number, item in found.items() if first <= number <= last}
    render(output, shown, found, background=background, frame_rate=frame_rate, settings=settings)
    Console().print(f"{output}", highlight=False, soft_wrap=True)


def _view(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = map(float, text.split(","))
    except ValueError as error:
        raise SettingError(f"--view {text}", "four numbers X1,Y1,X2,Y2", "Correct it.") from error
    return x1, y1, x2, y2


def _range(text: str) -> tuple[int, int]:
    try:
        first, last = map(int, text.split(":"))
    except ValueError as error:
        raise SettingError(f"--frames {text}", "two numbers FIRST:LAST", "Correct it.") from error
    return first, last
