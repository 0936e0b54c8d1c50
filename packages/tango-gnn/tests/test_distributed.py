from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist

from tango_gnn import Graph, nn
from tango_gnn.distributed import Partition, split_nodes, sum_gradients
from tenfold import SettingError

PROGRAM = Path(__file__).parent / "support" / "partitioned_training.py"
EXAMPLE = Path(__file__).parents[1] / "examples" / "distributed_script.py"

needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch is built without gloo"
)


def load_program() -> ModuleType:
    specification = importlib.util.spec_from_file_location("partitioned_training", PROGRAM)
    assert specification is not None
    assert specification.loader is not None
    program = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(program)
    return program


@needs_gloo
@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_learn_what_one_process_learns(tmp_path: Path, ranks: int) -> None:
    command = [sys.executable, str(PROGRAM)]
    processes = [subprocess.Popen([*command, str(rank), str(ranks), str(tmp_path)]) for rank in range(ranks)]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0] * ranks
    finally:
        for process in processes:
            process.kill()
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]

    program = load_program()
    graph, x, y = program.make_data()
    owned, _, edges, _ = zip(*parts, strict=True)
    assert torch.equal(torch.cat(owned).sort().values, torch.arange(program.NODES))
    assert torch.equal(torch.cat(edges).sort().values, torch.arange(graph.edges))
    for kind in program.MODELS:
        learnt = {bits: program.train(kind, bits, graph, x, y) for bits in (32, 8)}
        for _, _, _, learnt_by_part in parts:
            for bits, expected in learnt.items():
                # Two processes may both have a source's products with HGT's relations, whose gradient is
                # then rounded in two parts.
                tolerance = 0.1 if (kind, bits) == ("hgt", 8) else 1e-5
                assert distance(learnt_by_part[kind, bits], expected) < tolerance, (kind, bits)
        # Rounding to int8 changes much more: the processes agreed on their scales.
        assert distance(learnt[8], learnt[32]) > 1e-3


def distance(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == expected.keys()
    return max(float((ours[name] - each).abs().max() / each.abs().max()) for name, each in expected.items())


@needs_gloo
@pytest.mark.slow
def test_the_example_trains_with_torchrun() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    said = subprocess.run(
        [*torchrun, str(EXAMPLE), "--epochs", "30"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    before, accuracy = said.split("accuracy ")
    assert "2 processes" in before
    assert float(accuracy.split()[0]) > 80


@pytest.fixture
def one_process(tmp_path: Path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


GRAPH = Graph.from_edges(torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 2, 2]))


@needs_gloo
def test_a_part_of_one_process_is_the_graph(one_process: None) -> None:
    part = Partition(GRAPH, torch.zeros(3, dtype=torch.int64))
    assert torch.equal(part.indptr, GRAPH.indptr)
    assert torch.equal(part.indices, GRAPH.indices)
    assert torch.equal(part.out_degrees, GRAPH.out_degrees)
    assert repr(part) == "Partition(own=3, halo=0, edges=4)"
    x = torch.randn(3, 2, requires_grad=True)
    part.gather(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(3, 2))


@needs_gloo
def test_missing_gradients_count_as_zero(one_process: None) -> None:
    layer = nn.GraphConv(2, 2)
    layer.bias.grad = torch.tensor([1.0, -2.0])
    sum_gradients(layer)
    assert not layer.weight.grad.any()
    assert layer.bias.grad.tolist() == [1.0, -2.0]
    sum_gradients(torch.nn.ReLU())


@needs_gloo
@pytest.mark.parametrize(
    ("graph", "owners", "message"),
    [
        (GRAPH, torch.zeros(2, dtype=torch.int64), "shape"),
        (GRAPH, torch.zeros(3), "float32"),
        (GRAPH, torch.tensor([0, 1, 0]), "from 0 to 1"),
        (GRAPH, torch.tensor([0, -1, 0]), "from -1"),
        (Graph(GRAPH.indptr, GRAPH.indices, sources=4), torch.zeros(3, dtype=torch.int64), "4 sources"),
    ],
)
def test_owners_that_do_not_fit(one_process: None, graph: Graph, owners: torch.Tensor, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Partition(graph, owners)


@needs_gloo
def test_features_of_another_number_of_nodes(one_process: None) -> None:
    part = Partition(GRAPH, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(SettingError, match=r"shape \(4, 1\)"):
        part.gather(torch.ones(4, 1))


def test_without_processes() -> None:
    with pytest.raises(SettingError, match="initialised"):
        Partition(GRAPH, torch.zeros(3, dtype=torch.int64))


def test_nodes_are_split_evenly() -> None:
    destinations = torch.arange(1000).repeat_interleave(torch.arange(1000) % 7)
    graph = Graph.from_edges(destinations.flip(0), destinations, 1000)
    for parts in (1, 2, 5):
        owners = split_nodes(graph, parts)
        assert (owners.diff() >= 0).all()
        work = torch.zeros(parts).index_add_(0, owners, graph.in_degrees.float() + 1)
        assert work.sum() == graph.edges + 1000
        assert (work - work.mean()).abs().max() <= 7
    assert split_nodes(Graph.from_edges(torch.tensor([0]), torch.tensor([0]), 1), 3).tolist() == [0]
    with pytest.raises(SettingError, match="0 parts"):
        split_nodes(graph, 0)
