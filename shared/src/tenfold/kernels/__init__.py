"""Operators, each once by name, each with up to three implementations.

``reference``
    Plain torch: slow, and right by inspection. Any floating-point type and device.
``native``
    C++ with run-time choice of the instruction set: on the CPU, float32 and, where an operator takes
    quantised tensors, int8.
``triton``
    Triton kernels: the same types on CUDA devices.

Every function picks the best that fits its arguments. To force one, pass ``implementation=``, work
inside `use`, or set the environment variable ``TENFOLD_KERNELS``.

>>> import torch
>>> from tenfold import kernels
>>> weight = torch.eye(3).to_sparse_csr()
>>> kernels.csr_matmul(weight.crow_indices(), weight.col_indices(), weight.values(), torch.ones(3, 2))
tensor([[1., 1.],
        [1., 1.],
        [1., 1.]])
"""

from tenfold.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        "tenfold.kernels was imported without torch",
        "torch to be installed",
        "Run: pip install 'tenfold[torch]'",
    ) from error

from tenfold.kernels._availability import instruction_sets
from tenfold.kernels._bsr import bsr_linear, bsr_matmul
from tenfold.kernels._csr import csr_linear, csr_matmul
from tenfold.kernels._edge_attention import edge_attention, edge_attention_backward
from tenfold.kernels._edge_sum import edge_sum
from tenfold.kernels._group_norms import group_norms, group_topk_mask
from tenfold.kernels._int8_matmul import int8_matmul
from tenfold.kernels._quantize import absmax, positive_bits, quantize
from tenfold.kernels._registry import IMPLEMENTATIONS, Operator, operators
from tenfold.kernels._sddmm import sddmm_u_add_v, sddmm_u_dot_v
from tenfold.kernels._selection import picks, use
from tenfold.kernels._spmm import spmm_copy_u, spmm_u_mul_e
from tenfold.kernels._topk_mask import topk_mask

__all__ = [
    "IMPLEMENTATIONS",
    "Operator",
    "absmax",
    "bsr_linear",
    "bsr_matmul",
    "csr_linear",
    "csr_matmul",
    "edge_attention",
    "edge_attention_backward",
    "edge_sum",
    "group_norms",
    "group_topk_mask",
    "instruction_sets",
    "int8_matmul",
    "operators",
    "picks",
    "positive_bits",
    "quantize",
    "sddmm_u_add_v",
    "sddmm_u_dot_v",
    "spmm_copy_u",
    "spmm_u_mul_e",
    "topk_mask",
    "use",
]
