"""The README's code works as pasted, and its lists are complete."""

import dataclasses
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
    assert names["graph"].edges == 3


def test_every_rule_is_in_the_table() -> None:
    table = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    fields = {field.name for field in dataclasses.fields(Policy)}
    assert set(table) == fields - {"max_error", "generator", "group"}
