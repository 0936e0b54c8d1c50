"""The command ``tango-gnn``."""

from tango_gnn.experiments import run
from tenfold.experiment.cli import command_line

app = command_line(run, help="Soft thresholding of noisy sparse vectors.")
