"""The primitives by themselves: int8 with what quantises its operands, float32, and DGL's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from tango_gnn._bench.forms import Task, available, load
from tenfold import kernels

Candidates = dict[str, Callable[[], Any]]
WIDTHS = (128, 256)
HEADS = 4


def primitives(task: Task, seed: int) -> dict[str, Candidates]:
    """Return what is timed, by primitive and form."""
    generator = torch.Generator().manual_seed(seed)
    dgl_graph = load("dgl", task)[0] if available(["dgl"]) else None
    found: dict[str, Candidates] = {}
    for width in WIDTHS:
        found[f"copy_u_sum {width}"] = _copy_u(task, dgl_graph, width, generator)
        found[f"u_mul_e {HEADS}x{width // HEADS}"] = _u_mul_e(task, dgl_graph, width // HEADS, generator)
        found[f"u_dot_v {HEADS}x{width // HEADS}"] = _u_dot_v(task, dgl_graph, width // HEADS, generator)
    found[f"attention, {HEADS} heads"] = _attention(task, dgl_graph, generator)
    for width in (256, 512):
        found[f"GEMM {width}x{width}"] = _gemm(task.nodes, width, generator)
    return found


def _copy_u(task: Task, dgl_graph: Any, width: int, generator: torch.Generator) -> Candidates:
    graph = task.graph
    x = torch.randn(task.nodes, width, generator=generator)
    scale, quantised = _quantised(x)
    found: Candidates = {
        "own": lambda: kernels.spmm_copy_u(graph.indptr, graph.indices, x),
        "int8": lambda: kernels.spmm_copy_u(graph.indptr, graph.indices, quantised, scale=scale),
    }
    if dgl_graph is not None:
        import dgl.ops

        half = x.bfloat16()
        found["dgl"] = lambda: dgl.ops.copy_u_sum(dgl_graph, x)
        found["dgl bf16"] = lambda: dgl.ops.copy_u_sum(dgl_graph, half)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = torch.sparse_csr_tensor(
            graph.indptr, graph.indices, torch.ones(len(graph.indices)), (task.nodes, task.nodes)
        )
    found["torch"] = lambda: matrix @ x
    return found


def _u_mul_e(task: Task, dgl_graph: Any, width: int, generator: torch.Generator) -> Candidates:
    graph = task.graph
    x = torch.randn(task.nodes, HEADS, width, generator=generator)
    e = torch.rand(len(graph.indices), HEADS, generator=generator)
    scale, quantised = _quantised(x)
    e_scale, e_quantised = _quantised(e)
    found: Candidates = {
        "own": lambda: kernels.spmm_u_mul_e(graph.indptr, graph.indices, x, e),
        "int8": lambda: kernels.spmm_u_mul_e(graph.indptr, graph.indices, quantised, e, scale=scale),
        "int8 x int8": lambda: kernels.spmm_u_mul_e(
            graph.indptr, graph.indices, quantised, e_quantised, scale=scale * e_scale
        ),
    }
    if dgl_graph is not None:
        import dgl.ops

        found["dgl"] = lambda: dgl.ops.u_mul_e_sum(dgl_graph, x, e[..., None])
    return found


def _u_dot_v(task: Task, dgl_graph: Any, width: int, generator: torch.Generator) -> Candidates:
    graph = task.graph
    u, v = (torch.randn(task.nodes, HEADS, width, generator=generator) for _ in range(2))
    u_scale, u_quantised = _quantised(u)
    v_scale, v_quantised = _quantised(v)
    scale = u_scale * v_scale
    found: Candidates = {
        "own": lambda: kernels.sddmm_u_dot_v(graph.indptr, graph.indices, u, v),
        "int8": lambda: kernels.sddmm_u_dot_v(
            graph.indptr, graph.indices, u_quantised, v_quantised, scale=scale
        ),
    }
    if dgl_graph is not None:
        import dgl.ops

        found["dgl"] = lambda: dgl.ops.u_dot_v(dgl_graph, u, v)
    return found


def _attention(task: Task, dgl_graph: Any, generator: torch.Generator) -> Candidates:
    graph = task.graph
    u, v = (torch.randn(task.nodes, HEADS, generator=generator) for _ in range(2))
    found: Candidates = {"own": lambda: kernels.edge_attention(graph.indptr, graph.indices, u, v)}
    if dgl_graph is not None:
        import dgl.ops

        def by_dgl() -> torch.Tensor:
            scores = dgl.ops.u_add_v(dgl_graph, u, v)
            weights: torch.Tensor = dgl.ops.edge_softmax(
                dgl_graph, torch.nn.functional.leaky_relu(scores, 0.2)
            )
            return weights

        found["dgl"] = by_dgl
    return found


def _gemm(nodes: int, width: int, generator: torch.Generator) -> Candidates:
    """Multiply as a layer does: int8 quantises its input every time, and the weight."""
    x = torch.randn(nodes, width, generator=generator)
    weight = torch.randn(width, width, generator=generator)
    half, half_weight = x.bfloat16(), weight.bfloat16()

    def int8() -> torch.Tensor:
        x_scale, x_quantised = _quantised(x, seed=1)
        w_scale, w_quantised = _quantised(weight, seed=2)
        return kernels.int8_matmul(x_quantised, w_quantised, x_scale * w_scale)[0]

    return {
        "torch": lambda: x @ weight,
        "torch bf16": lambda: half @ half_weight,
        "int8": int8,
    }


def _quantised(x: torch.Tensor, seed: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    scale = kernels.absmax(x) / 127
    return scale, kernels.quantize(x, scale, seed=seed)
