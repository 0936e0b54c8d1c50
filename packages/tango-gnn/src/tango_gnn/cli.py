"""The command ``tango-gnn``."""

from tango_gnn.benchmarks import bench
from tango_gnn.experiments import run
from tango_gnn.inspect_command import inspect_command
from tenfold.experiment.cli import command_line

app = command_line(run, bench, help="Training of graph neural networks in int8.")
app.command("inspect")(inspect_command)
