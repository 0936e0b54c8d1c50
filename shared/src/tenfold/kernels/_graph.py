"""What the operators on graphs share: the checks of their arguments and the pieces of their references.

A graph is a CSR with the destinations as its rows: entry p of row i is an edge from the source
``indices[p]`` to the destination i. Values of edges are stored by edge; entry p is edge ``edge_ids[p]``,
or edge p where `edge_ids` is None. A reversed graph has other entries and the same edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch

from tenfold.errors import SettingError
from tenfold.kernels._checks import Facts, check_scale, col_facts, crow_facts, facts_of
from tenfold.kernels._sparse import row_of_entry

Operands: TypeAlias = Mapping[str, tuple[torch.Tensor, tuple[str, ...]]]
"""Arguments by name, each with the letters of its shape."""


def check_graph(
    name: str,
    indptr: torch.Tensor,
    indices: torch.Tensor | None,
    edge_ids: torch.Tensor | None,
    operands: Operands,
) -> None:
    """Check a graph and the operands of one of its operators.

    A letter that occurs twice in the shapes stands for one size: ``rows`` are the destinations,
    ``n`` the sources and ``E`` the edges.

    Raises
    ------
    SettingError
        Naming the first thing that is wrong.
    """
    structure = {"indptr": indptr, "indices": indices, "edge_ids": edge_ids}
    given = {key: tensor for key, tensor in structure.items() if tensor is not None}
    types = {tensor.dtype for tensor in given.values()}
    if len(types) > 1 or indptr.dtype not in (torch.int32, torch.int64):
        raise SettingError(
            f"{name} got " + " and ".join(f"{key} of {tensor.dtype}" for key, tensor in given.items()),
            "torch.int32 or torch.int64 for all of them",
            "Convert them with .int() (the faster choice) or .long().",
        )
    if any(tensor.dim() != 1 for tensor in given.values()) or not indptr.shape[0]:
        raise SettingError(
            f"{name} got "
            + " and ".join(f"{key} of shape {tuple(tensor.shape)}" for key, tensor in given.items()),
            "1-D tensors, indptr with one entry more than there are destinations",
            "Make the CSR of a graph without nodes as torch.zeros(1).",
        )
    sizes = {"rows": indptr.shape[0] - 1}
    if indices is not None:
        sizes["E"] = indices.shape[0]
    _check_operands(name, operands, sizes)
    devices = {tensor.device for tensor in given.values()} | {
        tensor.device for tensor, _ in operands.values()
    }
    if len(devices) > 1:
        raise SettingError(
            f"{name} got tensors on {' and '.join(sorted(map(str, devices)))}",
            "all on one device",
            "Move them with .to(device).",
        )
    _check_structure(name, indptr, indices, edge_ids, sizes)


def check_scale_of(name: str, scale_name: str, scale: torch.Tensor | None, *operands: torch.Tensor) -> None:
    """Check that there is a scale where an operand is int8, and only there.

    Raises
    ------
    SettingError
        The scale is missing, of no use, not a 0-dim float32 tensor or on another device.
    """
    quantised = any(operand.dtype is torch.int8 for operand in operands)
    if scale is None:
        if quantised:
            raise SettingError(
                f"{name} got int8 values without {scale_name}",
                f"{scale_name}, what an int8 value is multiplied by",
                "Pass the scale that the values were quantised with.",
            )
        return
    if not quantised:
        raise SettingError(
            f"{name} got {scale_name} with floating-point values",
            "a scale for int8 values alone",
            f"Leave {scale_name} out.",
        )
    check_scale(name, scale_name, scale, operands[0].device)


def check_floating(name: str, operands: Operands) -> None:
    """Check that no operand is int8.

    Raises
    ------
    SettingError
        One is.
    """
    for key, (tensor, _) in operands.items():
        if tensor.dtype is torch.int8:
            raise SettingError(
                f"{name} got {key} of torch.int8",
                "floating point: scores before a softmax are not quantised",
                "Dequantise it, or use sddmm_u_add_v.",
            )


def sum_of_rows(indptr: torch.Tensor, of_entry: torch.Tensor) -> torch.Tensor:
    """Sum over the entries of each row, exact for integers."""
    exact = of_entry if of_entry.is_floating_point() else of_entry.long()
    out = exact.new_zeros((indptr.shape[0] - 1, *of_entry.shape[1:]))
    return out.index_add_(0, row_of_entry(indptr), exact)


def by_entry(of_edge: torch.Tensor, edge_ids: torch.Tensor | None) -> torch.Tensor:
    """Values of edges in the order of the entries."""
    return of_edge if edge_ids is None else of_edge[edge_ids.long()]


def by_edge(of_entry: torch.Tensor, edge_ids: torch.Tensor | None) -> torch.Tensor:
    """Values of entries in the order of the edges."""
    return (
        of_entry if edge_ids is None else torch.empty_like(of_entry).index_copy_(0, edge_ids.long(), of_entry)
    )


def integers(operand: torch.Tensor) -> torch.Tensor:
    """int8 as int64, in which products do not overflow; anything else as it is."""
    return operand.long() if operand.dtype is torch.int8 else operand


def scaled(values: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Multiply by the scale, if there is one, in floating point."""
    if scale is None:
        return values
    return (values if values.is_floating_point() else values.float()) * scale


def _check_operands(name: str, operands: Operands, sizes: dict[str, int]) -> None:
    for tensor, letters in operands.values():
        if tensor.dim() == len(letters) and all(
            sizes.setdefault(letter, size) == size for letter, size in zip(letters, tensor.shape, strict=True)
        ):
            continue
        known = ", ".join(f"{letter} = {size}" for letter, size in sizes.items())
        raise SettingError(
            f"{name} got "
            + " and ".join(f"{key} of shape {tuple(each.shape)}" for key, (each, _) in operands.items()),
            " and ".join(f"{key} of shape ({', '.join(of)})" for key, (_, of) in operands.items())
            + f", with {known}",
            "Reshape them; a single head is H = 1.",
        )
    types = {tensor.dtype for tensor, _ in operands.values() if tensor.dtype is not torch.int8}
    if len(types) > 1 or any(not dtype.is_floating_point for dtype in types):
        raise SettingError(
            f"{name} got " + " and ".join(f"{key} of {each.dtype}" for key, (each, _) in operands.items()),
            "torch.int8 or one floating-point type",
            "Convert them with .float(), or quantise them.",
        )


def _check_structure(
    name: str,
    indptr: torch.Tensor,
    indices: torch.Tensor | None,
    edge_ids: torch.Tensor | None,
    sizes: Mapping[str, int],
) -> None:
    ordered, last = facts_of(indptr, crow_facts)
    edges = sizes["E"]
    if not ordered or last != edges:
        raise SettingError(
            f"{name} got {edges} edges and indptr that "
            + (f"ends at {last}" if ordered else "does not start at 0 and then never falls"),
            "indptr that rises from 0 to the number of edges",
            "Take it from the same graph as the edges.",
        )
    if indices is not None:
        not_negative, highest = facts_of(indices, col_facts)
        sources = sizes.get("n", highest + 1)
        if not not_negative or highest >= sources:
            raise SettingError(
                f"{name} got indices that are " + (f"as high as {highest}" if not_negative else "negative"),
                f"sources from 0 to {sources - 1}, one for every row of the features",
                "Check the number of nodes, or the graph that the indices come from.",
            )
    if edge_ids is not None:
        permutation, length = facts_of(edge_ids, _edge_facts)
        if not permutation or length != edges:
            raise SettingError(
                f"{name} got {length} edge_ids"
                + ("" if permutation else " that miss an edge or name one twice"),
                f"each of the numbers from 0 to {edges - 1} once",
                "Take them from the sort that reversed the graph.",
            )


def _edge_facts(edge_ids: torch.Tensor) -> Facts:
    seen = torch.zeros(edge_ids.shape[0], dtype=torch.bool, device=edge_ids.device)
    in_range = not edge_ids.numel() or bool((edge_ids >= 0).all() and (edge_ids < edge_ids.shape[0]).all())
    if in_range:
        seen[edge_ids.long()] = True
    return in_range and bool(seen.all()), edge_ids.shape[0]
