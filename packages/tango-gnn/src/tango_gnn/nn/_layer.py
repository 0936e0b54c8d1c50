"""What the layers share: a policy each, and the rule that keeps a model's last layer in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from tango_gnn._bits import WIDEST, choose_bits
from tango_gnn._graph import Graph
from tango_gnn._policy import Policy
from tenfold import SettingError

Activation: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Features: TypeAlias = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


class QuantizedLayer(nn.Module):
    """Base of the layers that compute as a policy says.

    Parameters
    ----------
    policy : Policy

    Attributes
    ----------
    policy : Policy
        May be replaced at any time.
    chosen_bits : int or None
        Width that ``bits="auto"`` took in the layer's first step of training.
    replaces : tuple of Module
        The layer of DGL or PyG that `tango_gnn.convert` put this one in the place of.
    """

    # A tuple hides the layer from torch, which would list its parameters a second time.
    replaces: tuple[nn.Module, ...] = ()

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.chosen_bits: int | None = None

    @property
    def bits(self) -> int:
        """Width that the layer computes in, 32 for float32."""
        return (self.chosen_bits or WIDEST) if self.policy.bits == "auto" else self.policy.bits

    def current_policy(self, x: torch.Tensor) -> Policy:
        """Return the policy of this call: its width settled on input `x`, to the nearest in evaluation."""
        if not self.policy.quantizes:
            return self.policy
        if self.policy.bits == "auto" and self.chosen_bits is None and self.training:
            self.chosen_bits = choose_bits(x.detach(), self.policy)
        rounding = self.policy.rounding if self.training else "nearest"
        return replace(self.policy, bits=self.bits, rounding=rounding)


def quantized_layers(model: nn.Module) -> dict[str, QuantizedLayer]:
    """Return the layers of a model that have a policy, by their names, in the order of registration."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLayer)}


def set_policy(model: nn.Module, policy: Policy) -> nn.Module:
    """Give all layers of a model a policy, and `Policy.off` to the last if the policy keeps it.

    Parameters
    ----------
    model : Module
        Its last layer is the one registered last.
    policy : Policy

    Returns
    -------
    Module
        `model` itself.

    Raises
    ------
    SettingError
        No layer of the model takes a policy.

    Examples
    --------
    >>> model = nn.ModuleList([GraphConv(8, 8), GraphConv(8, 2)])
    >>> [layer.bits for layer in set_policy(model, Policy(bits=6))]
    [6, 32]
    """
    layers = list(quantized_layers(model).values())
    if not layers:
        raise SettingError(
            f"a {type(model).__name__} without layers of tango_gnn.nn",
            "a model that has some",
            "Build it with tango_gnn.nn, or swap its layers with tango_gnn.convert.",
        )
    for layer in layers:
        layer.policy = policy
        layer.chosen_bits = None
    if policy.keep_last:
        layers[-1].policy = Policy.off()
    return model


def is_relu(activation: Activation | None) -> bool:
    """Whether an activation is a ReLU, which an operator can apply as it writes."""
    return activation in (F.relu, torch.relu) or isinstance(activation, nn.ReLU)


def activate(activation: Activation | None, h: torch.Tensor) -> torch.Tensor:
    """Apply the activation of a layer to its result, in place where the gradient needs no more than that."""
    if is_relu(activation):
        return h.relu_()
    if activation is F.elu:
        return F.elu_(h)
    return h if activation is None else activation(h)


def check_in_degrees(graph: Graph, allow_zero_in_degree: bool) -> None:
    """Check that every destination has an in-edge, unless that is allowed.

    Raises
    ------
    SettingError
        Some have none.
    """
    if not allow_zero_in_degree and graph.has_zero_in_degree:
        raise SettingError(
            "There are 0-in-degree nodes in the graph, whose output would be invalid",
            "an in-edge for every node",
            "Add self-loops with dgl.add_self_loop(g) or Graph.add_self_loops(), or set "
            "allow_zero_in_degree to True when constructing the layer.",
        )


def pair_of(features: Features, graph: Graph) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of sources and of destinations.

    One tensor is both: the destinations of a block are the first of its sources.
    """
    if isinstance(features, tuple):
        return features
    return features, features if len(features) == graph.destinations else features[: graph.destinations]


def weights_of_edges(graph: Graph, edge_weight: torch.Tensor) -> torch.Tensor:
    """Return one weight for every edge, shape (edges, 1), in canonical order.

    Raises
    ------
    SettingError
        There are more or fewer.
    """
    if edge_weight.shape[0] != graph.edges or edge_weight.numel() != graph.edges:
        raise SettingError(
            f"edge_weight of shape {tuple(edge_weight.shape)}",
            f"shape ({graph.edges},)",
            "Pass one weight for every edge of the graph.",
        )
    return graph.canonical(edge_weight.reshape(-1, 1))
