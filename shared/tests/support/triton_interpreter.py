"""Triton's interpreter, which must be chosen before Triton is imported: so in a process of its own."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def run_checks(file: str, count: int) -> None:
    """Run the functions named ``check_`` in a test file, `count` cases, through the interpreter."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "python_functions=check_*"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, file],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"\b{count} passed", done.stdout), done.stdout
