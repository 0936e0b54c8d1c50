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
from slr_prune._compact import remove_channels
from slr_prune._gradual import GradualPruner
from slr_prune._history import History, Iteration
from slr_prune._oneshot import OneShotPruner
from slr_prune._pruner import Pruner
from slr_prune._sensitivity import SensitivityScan, sensitivity_scan
from slr_prune._slr import SLRPruner
from slr_prune._structures import STRUCTURES, Structure, get_structure, least_sparsity, register_structure
from slr_prune._targets import erk, from_sensitivity, global_magnitude, uniform

__version__ = "0.1.0"

__all__ = [
    "STRUCTURES",
    "ADMMPruner",
    "GradualPruner",
    "History",
    "Iteration",
    "OneShotPruner",
    "Pruner",
    "SLRPruner",
    "SensitivityScan",
    "Structure",
    "__version__",
    "erk",
    "from_sensitivity",
    "get_structure",
    "global_magnitude",
    "least_sparsity",
    "register_structure",
    "remove_channels",
    "sensitivity_scan",
    "uniform",
]
