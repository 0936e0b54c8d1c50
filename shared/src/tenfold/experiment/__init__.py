"""Experiments: one record a run, resumable stages, sweeps over seeds, one command line.

A package describes its paper's experiment as an `Experiment`: frozen settings, a function that
reads top to bottom as the experimental section, and functions that turn records into tables and
plots. `Experiment.execute` runs it for one seed and returns a `Record`; `sweep` does so for many.
The command line is in `tenfold.experiment.cli`, the plots' house style in
`tenfold.experiment.plots`; both are imported only where they are used.
"""

from tenfold.experiment._checkpoint import load_state, save_state, write_whole
from tenfold.experiment._experiment import Experiment, Run
from tenfold.experiment._ray import RayCluster
from tenfold.experiment._record import Claim, Record, read_records, write_json
from tenfold.experiment._statistics import estimate, interval
from tenfold.experiment._sweep import Engine, InProcess, Job, LocalProcesses, sweep
from tenfold.experiment._table import Table
from tenfold.experiment._timing import Timing, interleaved

__all__ = [
    "Claim",
    "Engine",
    "Experiment",
    "InProcess",
    "Job",
    "LocalProcesses",
    "RayCluster",
    "Record",
    "Run",
    "Table",
    "Timing",
    "estimate",
    "interleaved",
    "interval",
    "load_state",
    "read_records",
    "save_state",
    "sweep",
    "write_json",
    "write_whole",
]
