"""Audits of whether a mechanism, or a whole training, is as private as it claims.

An audit can refute a claim, never prove one.
"""

from spectral_dp._audit._gaussian import gaussian_delta, gaussian_epsilon
from spectral_dp._audit.one_run import OneRunAudit, epsilon_lower_bound, one_run_audit, one_run_p_value
from spectral_dp._audit.single_step import (
    CanaryAudit,
    ClippingCheck,
    Mechanism,
    SingleStepAudit,
    check_clipping,
    frequency_canaries,
    repeat,
    single_step_audit,
)

__all__ = [
    "CanaryAudit",
    "ClippingCheck",
    "Mechanism",
    "OneRunAudit",
    "SingleStepAudit",
    "check_clipping",
    "epsilon_lower_bound",
    "frequency_canaries",
    "gaussian_delta",
    "gaussian_epsilon",
    "one_run_audit",
    "one_run_p_value",
    "repeat",
    "single_step_audit",
]
