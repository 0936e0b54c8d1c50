"""One-shot magnitude pruning: train as usual, remove the smallest at the end."""

from slr_prune._pruner import Pruner


class OneShotPruner(Pruner):
    """Leave training alone; `finalize` removes what is smallest. The parameters are `Pruner`'s."""
