"""The table of ``mot-cup run``."""

from __future__ import annotations

from collections.abc import Sequence

from mot_cup._contest import METHODS
from tenfold.experiment import Record, Table, estimate

FIGURES = ("HOTA", "MOTA", "MOTP", "IDF1")


def methods_table(records: Sequence[Record]) -> Table:
    """Tabulate the three trackers, and what the last gains over the others."""
    names = [*METHODS, "gain over default", "gain over constant"]
    titles = [*METHODS.values(), "covariances minus default", "covariances minus constant"]
    rows = [
        [title, *(_cell(records, f"{name}/{figure}") for figure in FIGURES)]
        for name, title in zip(names, titles, strict=True)
    ]
    sampled = f"{len(records)} seeds" if len(records) > 1 else "bootstrap over scenes"
    title = f"{records[0].dataset}: {sampled}, mean [95 % interval]"
    return Table(title, ["method", *FIGURES], rows)


def _cell(records: Sequence[Record], name: str) -> str:
    first = records[0].metrics
    if f"{name}/low" in first:
        return f"{first[name]:.2f} [{first[f'{name}/low']:.2f}, {first[f'{name}/high']:.2f}]"
    return estimate([record.metrics[name] for record in records], 2)
