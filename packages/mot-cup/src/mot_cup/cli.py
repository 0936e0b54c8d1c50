"""The command ``mot-cup``."""

from mot_cup.benchmarks import bench
from mot_cup.calibrate_command import calibrate_command
from mot_cup.coverage import coverage
from mot_cup.eval_command import eval_command
from mot_cup.experiments import run
from mot_cup.gain import gain
from mot_cup.noise_command import noise_command
from mot_cup.render_command import render_command
from mot_cup.simulate_command import simulate_command
from mot_cup.track_command import track_command
from tenfold.experiment.cli import command_line

app = command_line(
    run, gain, coverage, bench, help="Multi-object tracking with calibrated detection uncertainty."
)
app.command("track")(track_command)
app.command("eval")(eval_command)
app.command("calibrate")(calibrate_command)
app.command("noise")(noise_command)
app.command("simulate")(simulate_command)
app.command("render")(render_command)
