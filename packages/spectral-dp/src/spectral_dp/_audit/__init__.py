"""Audits of privacy claims: of one noised step, and of a whole training."""
