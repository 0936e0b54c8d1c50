"""What this machine is, and models of machines it is not.

>>> from tenfold import hardware
>>> here = hardware.describe()
>>> "avx2" in here.features, here.physical_cores
(True, 2)

A package that models another machine (an accelerator, a network) registers it by name with
`register_model`, and an experiment takes it from there with `get_model`.
"""

from tenfold.hardware._describe import CudaDevice, Hardware, describe
from tenfold.hardware._models import HardwareModel, get_model, models, register_model

__all__ = [
    "CudaDevice",
    "Hardware",
    "HardwareModel",
    "describe",
    "get_model",
    "models",
    "register_model",
]
