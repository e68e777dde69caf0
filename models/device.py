"""Where networks run: which device, which library, and how memory goes back to the system in between."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from models.errors import DeviceError

#: what computes a restoration network; auto is onnx for .onnx files, torch for all others
Runtime = Literal["auto", "torch", "onnx"]
#: the drivers of GPUs that PyTorch can use as "cuda": NVIDIA's by their library, AMD's by their device
_LIBRARIES, _AMD = ("libcuda.so.1", "nvcuda.dll"), Path("/dev/kfd")


def choose_device(device: str) -> str:
    """Choose the device that "auto" stands for: "cuda" where there is one, else "cpu".

    Any other device is returned as it is, and must be there. PyTorch is imported only where the driver of a GPU is
    installed. Raises DeviceError for a GPU that is not there.
    """
    if device == "cpu":
        return device
    count = _gpus()
    if device == "auto":
        return "cuda" if count else "cpu"
    if not count:
        raise DeviceError(f"--device {device}: {_missing()}; take --device cpu, or auto")
    number = int(device.partition(":")[2] or 0)
    if number >= count:
        there = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"--device {device}: there is no such GPU here; there is {there}")
    return device


def give_back() -> None:
    """Return freed memory to the system where the C library (glibc) would keep it; do nothing elsewhere.

    Networks allocate blocks of some ten megabytes in many sizes and from several threads, and what glibc keeps of them
    for later came to 240 MB of 1,590 when a picture of 12 megapixels was compressed.
    """
    trim = _trim()
    if trim:
        trim(0)


def _gpus() -> int:
    """Count the GPUs that PyTorch can use here."""
    if not _has_driver():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _missing() -> str:
    if not _has_driver():
        return "no driver of a GPU is installed here"
    import torch

    built = torch.version.cuda or torch.version.hip
    return "PyTorch finds no GPU here" if built else "the PyTorch that is installed here is one without GPUs"


@lru_cache(maxsize=1)
def _has_driver() -> bool:
    return _AMD.exists() or any(_loads(name) for name in _LIBRARIES)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@lru_cache(maxsize=1)
def _trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
