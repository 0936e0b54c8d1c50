"""Run the two scripts as they are and with two lines changed: ``python speed_up_script.py [NODES]``."""

import re
import subprocess
import sys
from pathlib import Path

for name in ("dgl_gat", "pyg_gcn"):
    milliseconds = []
    for script in (f"{name}_script.py", f"{name}_int8_script.py"):
        command = [sys.executable, str(Path(__file__).with_name(script)), *sys.argv[1:]]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        print(f"{script}: {said}")
        milliseconds.append(float(re.findall(r"([\d.]+) ms", said)[0]))
    print(f"{name}: {milliseconds[0] / milliseconds[1]:.2f} times as fast in int8")
