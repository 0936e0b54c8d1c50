"""The command ``mot-cup eval``: tracks in files against truth in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from mot_cup._preprocessing import KittiType, kitti, mot_challenge
from mot_cup._tracks import Tracks
from mot_cup.identities import IdentityCheck, check_identities, relink
from mot_cup.io import read_kitti_tracks, read_sequence_info, read_tracks
from mot_cup.metrics import ALPHAS, Scores, average, combine, evaluate
from tenfold import DataError, SettingError
from tenfold.experiment import Table
from tenfold.experiment.cli import show, write_document

Preprocessing = Literal["none", "MOT15", "MOT16", "MOT17", "MOT20", "KITTI"]

SHARES = ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1")
COUNTS = ("CLR_FP", "CLR_FN", "IDSW", "Frag", "MT", "ML")
# Above this share of disjoint pairs a truth's identities deserve a word.
DOUBTFUL = 0.05


def eval_command(
    gt: Annotated[
        Path, typer.Option(help="Truth: a file, or a folder of SEQUENCE/gt/gt.txt or of SEQUENCE.txt.")
    ],
    tracks: Annotated[
        Path, typer.Option(help="Tracks: a file, or a folder of SEQUENCE.txt or data/SEQUENCE.txt.")
    ],
    preprocess: Annotated[
        Preprocessing, typer.Option(help="Leave out what this benchmark leaves out.")
    ] = "none",
    kind: Annotated[KittiType, typer.Option("--type", help="What KITTI counts.")] = "Car",
    mend: Annotated[
        bool, typer.Option("--relink", help="Give the truth new identities, from its boxes.")
    ] = False,
    threshold: Annotated[float, typer.Option(help="Overlap from which CLEAR and IDF1 match boxes.")] = 0.5,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - for stdout.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Score tracks against truth: HOTA, CLEAR and identity metrics, each sequence and all together.

    Files are in MOTChallenge's or KITTI's format. A sequence is as long as the seqinfo.ini in its folder
    says, where there is one.
    """
    scores: dict[str, Scores] = {}
    check = IdentityCheck(0, 0)
    for name, (truth_file, tracks_file) in _files(gt, tracks).items():
        truth, found = _read(truth_file, tracks_file, preprocess, kind)
        check += check_identities(truth)
        if mend:
            truth = relink(truth)
        scores[name] = _evaluate(name, truth, found, _length(truth_file), threshold)
    combined = combine(scores.values())
    document = {
        "gt": str(gt),
        "tracks": str(tracks),
        "preprocess": preprocess,
        "threshold": threshold,
        "relinked": mend,
        "identities": {"pairs": check.pairs, "disjoint": check.disjoint},
        "sequences": {name: item.figures() for name, item in scores.items()},
        "combined": combined.figures(),
        "mean": average(scores.values()),
        "alphas": ALPHAS.tolist(),
        "curves": {name: values.tolist() for name, values in combined.hota.curves().items()},
    }
    console = Console(stderr=json == "-")
    show([eval_table(document)], console)
    if check.share > DOUBTFUL and not mend:
        console.print(
            f"{100 * check.share:.1f} % of the truth's boxes do not overlap the one of the same identity a "
            "frame before: its identities may be wrong, and HOTA, AssA, IDF1 and IDSW with them. "
            "--relink mends them.",
            soft_wrap=True,
            highlight=False,
        )
    write_document(document, json)


def eval_table(document: Mapping[str, Any]) -> Table:
    """Tabulate the document of the command: a row for a sequence, for all together and for their mean."""
    rows = {**document["sequences"], "together": document["combined"], "mean": document["mean"]}
    left_out = (
        "" if document["preprocess"] == "none" else f", without what {document['preprocess']} leaves out"
    )
    mended = ", truth relinked" if document["relinked"] else ""
    return Table(
        f"tracks against truth, in percent and numbers{left_out}{mended}",
        ["", *SHARES, *(name.removeprefix("CLR_") for name in COUNTS)],
        [
            [
                name,
                *(f"{100 * figures[share]:.2f}" for share in SHARES),
                *(f"{figures[count]:.6g}" for count in COUNTS),
            ]
            for name, figures in rows.items()
        ],
    )


def _files(gt: Path, tracks: Path) -> dict[str, tuple[Path, Path]]:
    """Return the files of truth and of tracks of every sequence."""
    for path in (gt, tracks):
        if not path.exists():
            raise DataError(f"no file or folder {path}", "an existing one", "Correct the path.")
    if gt.is_file():
        truths = {gt.parent.parent.resolve().name if gt.name == "gt.txt" else gt.stem: gt}
    else:
        truths = {
            (path.parent.parent.relative_to(gt).as_posix()): path for path in sorted(gt.rglob("gt/gt.txt"))
        } or {path.stem: path for path in sorted(gt.glob("*.txt"))}
        if "." in truths:
            truths[gt.resolve().name] = truths.pop(".")
    if not truths:
        raise DataError(f"no truth in {gt}", "SEQUENCE/gt/gt.txt or SEQUENCE.txt", "Choose another folder.")
    if tracks.is_file():
        if len(truths) > 1:
            raise SettingError(
                f"one file of tracks for {len(truths)} sequences",
                "a folder of SEQUENCE.txt",
                "Give a folder.",
            )
        return {name: (truth, tracks) for name, truth in truths.items()}
    pairs = {}
    for name, truth in truths.items():
        places = [tracks / f"{name}.txt", tracks / "data" / f"{name}.txt"]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise DataError(
                f"no tracks of sequence {name}",
                f"{places[0]} or {places[1]}",
                "Write an empty file where nothing was tracked.",
            )
        pairs[name] = truth, found
    return pairs


def _read(
    truth_file: Path, tracks_file: Path, preprocess: Preprocessing, kind: KittiType
) -> tuple[Tracks, Tracks]:
    if preprocess == "KITTI":
        return kitti(read_kitti_tracks(truth_file), read_kitti_tracks(tracks_file).tracks(), kind)
    truth, tracks = read_tracks(truth_file), read_tracks(tracks_file)
    if preprocess == "none":
        return truth, tracks
    return mot_challenge(truth, tracks, preprocess)


def _length(truth_file: Path) -> int | None:
    beside = truth_file.parent.parent / "seqinfo.ini"
    if truth_file.name == "gt.txt" and beside.is_file():
        return read_sequence_info(beside).length
    return None


def _evaluate(name: str, truth: Tracks, tracks: Tracks, frames: int | None, threshold: float) -> Scores:
    try:
        return evaluate(truth, tracks, frames=frames, threshold=threshold)
    except SettingError as error:
        raise SettingError(f"sequence {name}: {error.came}", error.expected, error.remedy) from error
