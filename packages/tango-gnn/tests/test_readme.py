"""The README's code works as pasted, and its lists are complete."""

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Any

import torch

from tango_gnn import Policy

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_code_trains_a_network_that_knows_digits() -> None:
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[0], str(README), "exec"), names)
    data = names["data"]
    right = (names["result"].argmax(1) == data.labels)[data.test].float().mean()
    assert right > 0.9
    assert [names["hidden"].bits, names["last"].bits] == [8, 32]
    exec(compile(BLOCKS[1], str(README), "exec"), names)
    assert names["small"].edges == 3
    exec(compile(BLOCKS[2], str(README), "exec"), names)
    assert names["result"].shape == (len(names["batch"].seeds), 10)


def test_two_lines_are_what_the_scripts_differ_in() -> None:
    (difference,) = re.findall(r"```diff\n(.*?)```", TEXT, re.DOTALL)
    shown = [line for line in difference.splitlines() if line[0] in "+-"]
    examples = README.parent / "examples"
    scripts = [
        (examples / name).read_text("utf-8") for name in ("dgl_gat_script.py", "dgl_gat_int8_script.py")
    ]
    lines = difflib.unified_diff(*(script.splitlines() for script in scripts), lineterm="", n=0)
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---") and line[1:]]
    assert changed == shown


def test_every_rule_is_in_the_table() -> None:
    table = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    fields = {field.name for field in dataclasses.fields(Policy)}
    assert set(table) == fields - {"max_error", "generator", "group"}
