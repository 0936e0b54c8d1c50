"""Retrain-free pruning of PyTorch models by surrogate Lagrangian relaxation.

>>> pruner = SLRPruner(model, {"fc1": 0.98, "fc2": 0.96})     # doctest: +SKIP
>>> for epoch in range(epochs):                               # doctest: +SKIP
...     for x, y in loader:
...         loss = cross_entropy(model(x), y)
...         (loss + pruner.penalty()).backward()
...         optimizer.step(); pruner.constrain(); optimizer.zero_grad()
...     pruner.step(mean_loss)
>>> pruner.finalize()                                         # doctest: +SKIP
"""

from slr_prune._admm import ADMMPruner
from slr_prune._compact import compact, remove_channels
from slr_prune._cost import Cost, LayerCost, cost
from slr_prune._example import DeviationError
from slr_prune._files import load, save
from slr_prune._gradual import GradualPruner
from slr_prune._history import History, Iteration
from slr_prune._latency import LatencySearch, latency, sparsity_for_latency
from slr_prune._oneshot import OneShotPruner
from slr_prune._onnx import export_onnx
from slr_prune._program import export_program
from slr_prune._pruner import Pruner
from slr_prune._reload import load_compacted
from slr_prune._sensitivity import SensitivityScan, sensitivity_scan
from slr_prune._slr import SLRPruner
from slr_prune._sparse_layers import BlockSparseLinear, GatheredLayer, SparseLayer, SparseLinear
from slr_prune._sparsify import LayerSparsity, densify, describe_sparsity, sparsify
from slr_prune._structures import STRUCTURES, Structure, get_structure, least_sparsity, register_structure
from slr_prune._targets import erk, from_sensitivity, global_magnitude, uniform

__version__ = "0.1.0"

__all__ = [
    "STRUCTURES",
    "ADMMPruner",
    "BlockSparseLinear",
    "Cost",
    "DeviationError",
    "GatheredLayer",
    "GradualPruner",
    "History",
    "Iteration",
    "LatencySearch",
    "LayerCost",
    "LayerSparsity",
    "OneShotPruner",
    "Pruner",
    "SLRPruner",
    "SensitivityScan",
    "SparseLayer",
    "SparseLinear",
    "Structure",
    "__version__",
    "compact",
    "cost",
    "densify",
    "describe_sparsity",
    "erk",
    "export_onnx",
    "export_program",
    "from_sensitivity",
    "get_structure",
    "global_magnitude",
    "latency",
    "least_sparsity",
    "load",
    "load_compacted",
    "register_structure",
    "remove_channels",
    "save",
    "sensitivity_scan",
    "sparsify",
    "sparsity_for_latency",
    "uniform",
]
