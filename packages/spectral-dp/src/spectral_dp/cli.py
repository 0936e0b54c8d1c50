"""The command ``spectral-dp``."""

from spectral_dp.audit_command import audit
from spectral_dp.benchmarks import bench
from spectral_dp.epsilon_command import epsilon_command
from spectral_dp.experiments import run
from spectral_dp.tuning import tune
from tenfold.experiment.cli import command_line

app = command_line(
    run, tune, bench, help="Differentially private training with spectrally filtered gradients."
)
app.add_typer(audit, name="audit")
app.command("epsilon")(epsilon_command)
