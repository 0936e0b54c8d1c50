"""Read a file of ``slr_prune.save`` with torch alone: copy this function into your program.

>>> state = load_with_torch("pruned.pt")                     # doctest: +SKIP
>>> model.load_state_dict(state)                             # doctest: +SKIP
>>> weight = state["fc1.weight"].to_sparse_csr()             # doctest: +SKIP
>>> output = (weight @ x.T).T + state["fc1.bias"]            # doctest: +SKIP

For weights in blocks, ``to_sparse_bsr((16, 16))`` in place of ``to_sparse_csr()``.
"""

import math
import zlib

import torch


def load_with_torch(path: str) -> dict[str, torch.Tensor]:
    """Return the state dict of the plain model, pruned weights as zeros."""
    state = {}
    for name, entry in torch.load(path, weights_only=True)["tensors"].items():
        if not isinstance(entry, torch.Tensor):
            shape, values = entry["shape"], entry["values"]
            packed = bytearray(zlib.decompress(bytes(entry["mask"].tolist())))
            bits = torch.frombuffer(packed, dtype=torch.uint8)[:, None] >> torch.arange(8) & 1
            kept = bits.bool().flatten()[: math.prod(shape)].view(shape)
            entry = torch.zeros(shape, dtype=values.dtype)
            entry[kept] = values
        state[name] = entry
    return state
