"""Kernels, hardware models, data sets and experiment records under the tenfold packages.

Importing `tenfold` is cheap and needs no torch: the parts are imported by name,
`tenfold.kernels` (needs the extra ``tenfold[torch]``), `tenfold.hardware`,
`tenfold.data` and `tenfold.experiment`.
"""

from tenfold.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    MissingExtraError,
    OutputError,
    SettingError,
    TenfoldError,
    UnknownNameError,
)

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "DataError",
    "DivergedError",
    "MissingExtraError",
    "OutputError",
    "SettingError",
    "TenfoldError",
    "UnknownNameError",
    "__version__",
]
