"""Adversarial attacks on all tasks of a multi-task model, and its robustness, task by task.

An attack is made of a model and its tasks, and called with images and targets:

    attack = DGBA(model, tasks, eps=8 / 255, steps=10)
    adversarial = attack(images, targets)

`evaluate` and `damage` measure what it does to every task, `suite.standard` how robust a model is.
"""

from dgba._apgd import APGD, APGDRestart
from dgba._attack import Ascent, Attack, Best
from dgba._auto_saga import AutoSAGA
from dgba._combinations import Bounded, Combination, GradientBalance, MaxMin, register_combination
from dgba._dgba import DGBA
from dgba._fgsm import FGSM, IFGSM
from dgba._mim import MIM
from dgba._pgd import PGD
from dgba._programs import DualStep, IntegerStep, coupled_step, dual_step, integer_step, pixel_box
from dgba._square import Square
from dgba._tasks import Task, classification, depth, edges, keypoints, losses_of, normals, segmentation
from dgba.evaluation import (
    Comparison,
    Damage,
    Evaluation,
    TransferMatrix,
    compare,
    damage,
    damage_interval,
    damage_per_rise,
    eps_curve,
    evaluate,
    log_ratio,
    relative_loss_change,
    transfer_matrix,
    worst_case,
)

__version__ = "0.1.0"

__all__ = [
    "APGD",
    "DGBA",
    "FGSM",
    "IFGSM",
    "MIM",
    "PGD",
    "APGDRestart",
    "Ascent",
    "Attack",
    "AutoSAGA",
    "Best",
    "Bounded",
    "Combination",
    "Comparison",
    "Damage",
    "DualStep",
    "Evaluation",
    "GradientBalance",
    "IntegerStep",
    "MaxMin",
    "Square",
    "Task",
    "TransferMatrix",
    "__version__",
    "classification",
    "compare",
    "coupled_step",
    "damage",
    "damage_interval",
    "damage_per_rise",
    "depth",
    "dual_step",
    "edges",
    "eps_curve",
    "evaluate",
    "integer_step",
    "keypoints",
    "log_ratio",
    "losses_of",
    "normals",
    "pixel_box",
    "register_combination",
    "relative_loss_change",
    "segmentation",
    "transfer_matrix",
    "worst_case",
]
