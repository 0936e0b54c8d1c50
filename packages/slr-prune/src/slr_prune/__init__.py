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
from slr_prune._gradual import GradualPruner
from slr_prune._oneshot import OneShotPruner
from slr_prune._pruner import Pruner
from slr_prune._slr import SLRPruner
from slr_prune._structures import STRUCTURES, Structure, register_structure

__version__ = "0.1.0"

__all__ = [
    "STRUCTURES",
    "ADMMPruner",
    "GradualPruner",
    "OneShotPruner",
    "Pruner",
    "SLRPruner",
    "Structure",
    "__version__",
    "register_structure",
]
