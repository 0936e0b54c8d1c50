"""Fail unless every operator picks its native implementation on the CPU.

A build whose C++ does not compile falls back to the reference kernels; where native is expected to
work, this makes that an error.
"""

import json
import subprocess
import sys

listed = subprocess.run(
    [sys.executable, "-m", "tenfold", "kernels", "--json"], capture_output=True, text=True, check=True
)
picks = {item["operator"]: item["picks"]["cpu"] for item in json.loads(listed.stdout)["operators"]}
others = {name: pick for name, pick in picks.items() if not pick.startswith("native")}
if others or not picks:
    sys.exit(f"the native kernels are not loaded: {others or 'no operators'}")
sys.stdout.write(f"native kernels: {', '.join(sorted(set(picks.values())))} for {len(picks)} operators\n")
