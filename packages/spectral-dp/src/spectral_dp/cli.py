"""The command ``spectral-dp``."""

from spectral_dp.experiments import run
from tenfold.experiment.cli import command_line

app = command_line(run, help="Differentially private training with spectrally filtered gradients.")
