"""The command ``dgba``."""

from dgba.experiments import run
from tenfold.experiment.cli import command_line

app = command_line(run, help="Soft thresholding of noisy sparse vectors.")
