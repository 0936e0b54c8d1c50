"""The command ``slr-prune``."""

from slr_prune.benchmarks import bench
from slr_prune.dense_tasks import tasks
from slr_prune.experiments import run
from slr_prune.prune_command import prune
from slr_prune.quadratics import quadratics
from tenfold.experiment.cli import command_line

app = command_line(
    run, quadratics, tasks, bench, help="Prune PyTorch models by surrogate Lagrangian relaxation."
)
app.command("prune")(prune)
