"""The attack's step as a program: in integers with a solver, and by its dual for whole batches.

To first order, task t gains <G_t, d> from a perturbation d, with G_t the gradient of its loss (or of its
loss over its clean loss). The paper's step maximises sum_t <G_t, d> over whole pixel values,

    lo_i <= d_i <= hi_i,    lo_i = max(-eps, -x_i),    hi_i = min(eps, 255 - x_i).

Nothing couples the d_i, so each goes to its bound: the closed form of `dgba._norms.steepest`, which is
integral as it stands. A solver is an oracle for it, and is needed where tasks or pixels are coupled: the
worst task's gain, gains that must reach a floor or stay below a ceiling, a number of pixels. That is
`integer`, exact, one image at a time, in seconds. For whole batches there is `dual`: without a
bound on pixels, the relaxation has only as many multipliers as there are tasks, and all but about as
many entries of its solution are integral.
"""

from dgba._programs.dual import DualStep, dual_step
from dgba._programs.integer import IntegerStep, coupled_step, integer_step, pixel_box

__all__ = ["DualStep", "IntegerStep", "coupled_step", "dual_step", "integer_step", "pixel_box"]
