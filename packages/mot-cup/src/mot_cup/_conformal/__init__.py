"""The parts of `mot_cup.conformal`, which is their public face."""
