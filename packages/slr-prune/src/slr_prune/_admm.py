"""ADMM pruning (Zhang et al., ECCV 2018, arXiv 1804.03294), the paper's baseline.

After every epoch, in the form with multipliers Lambda = rho U:

    Z = projection of W + Lambda / rho        Lambda = Lambda + rho (W - Z)
"""

from slr_prune._lagrangian import LagrangianPruner


class ADMMPruner(LagrangianPruner):
    """Alternate an epoch on W with the exact minimiser in Z and a multiplier step of size rho.

    The parameters are those of `LagrangianPruner`.
    """

    def iterate(self, loss: float) -> None:
        """Update Z, then the multipliers. See `LagrangianPruner.iterate`."""
        W = self.present()
        self.Z = self.project(W, self.multipliers)
        self.multipliers = {
            name: multiplier + self.rho * (W[name] - self.Z[name])
            for name, multiplier in self.multipliers.items()
        }
        self.accepted = (False, True)
