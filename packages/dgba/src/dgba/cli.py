"""The command ``dgba``."""

from dgba.attack_command import attack
from dgba.benchmarks import bench
from dgba.experiments import run
from dgba.report_command import report
from tenfold.experiment.cli import command_line

app = command_line(run, bench, help="Attack all tasks of a multi-task model, and measure its robustness.")
app.command("attack")(attack)
app.command("report")(report)
