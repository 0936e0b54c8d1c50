"""What this machine is, as far as this process may use it."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

# The instruction sets that decide which kernels can run, as the kernel names them.
_FEATURES = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)


@dataclass(frozen=True)
class CudaDevice:
    """One CUDA device.

    Attributes
    ----------
    name : str
    memory_bytes : int
    capability : str
        Compute capability: ``"9.0"``.
    """

    name: str
    memory_bytes: int
    capability: str


@dataclass(frozen=True)
class Hardware:
    """A machine, as far as this process may use it.

    Attributes
    ----------
    cpu : str
        Model name of the processor.
    architecture : str
        ``"x86_64"``, ``"aarch64"``.
    features : tuple of str
        Instruction sets that matter to kernels, named as in ``/proc/cpuinfo``.
    logical_cores : int
        Hardware threads that this process may run on (its affinity).
    physical_cores : int
        Cores under those threads.
    memory_bytes : int
        Memory of the machine.
    cuda : tuple of CudaDevice
        Empty without torch, or when torch sees no device.
    """

    cpu: str
    architecture: str
    features: tuple[str, ...]
    logical_cores: int
    physical_cores: int
    memory_bytes: int
    cuda: tuple[CudaDevice, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain values that `json` can write."""
        plain = dataclasses.asdict(self)
        plain["features"] = list(self.features)
        plain["cuda"] = list(plain["cuda"])
        return plain


def describe(*, import_torch: bool = False) -> Hardware:
    """Describe this machine; takes milliseconds.

    Parameters
    ----------
    import_torch : bool
        Import torch, where it is installed, to look for CUDA devices. By default they are looked
        for only when torch was imported already, because importing it takes seconds.

    Returns
    -------
    Hardware
    """
    cpu = _cpu_information()
    logical = _usable_threads()
    return Hardware(
        cpu=cpu.get("model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        features=_features(cpu.get("flags") or cpu.get("Features") or ""),
        logical_cores=len(logical),
        physical_cores=_physical_cores(logical),
        memory_bytes=psutil.virtual_memory().total,
        cuda=_cuda_devices(import_torch),
    )


def _cpu_information() -> dict[str, str]:
    """Fields of the first processor in ``/proc/cpuinfo``."""
    try:
        first, *_ = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _features(flags: str) -> tuple[str, ...]:
    present = set(flags.split())
    return tuple(feature for feature in _FEATURES if feature in present)


def _usable_threads() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(logical: set[int]) -> int:
    """Cores under the hardware threads; as many as threads where Linux does not say."""
    cores = set()
    for thread in logical:
        siblings = Path(f"/sys/devices/system/cpu/cpu{thread}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text(encoding="ascii").strip())
        except OSError:
            return len(logical)
    return len(cores)


def _cuda_devices(import_torch: bool) -> tuple[CudaDevice, ...]:
    if not (import_torch or "torch" in sys.modules):
        return ()
    try:
        import torch
    except ImportError:
        return ()
    if not torch.cuda.is_available():
        return ()
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return tuple(
        CudaDevice(device.name, device.total_memory, f"{device.major}.{device.minor}")
        for device in properties
    )
