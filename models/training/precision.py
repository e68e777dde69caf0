"""The precision in which convolutions are trained on each device. Weights and what a rate depends on stay float32."""

from __future__ import annotations

import torch

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def choose_precision(precision: str, device: str) -> str:
    """Choose what "auto" stands for: the fastest that the device computes natively.

    That is bfloat16, float16 (older GPUs) or float32; any other precision is returned as it is.
    """
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return "bfloat16" if native else "float32"


def autocast(precision: str, device: str) -> torch.autocast:
    """Return the context in which a loss is computed at a precision on a device."""
    return torch.autocast(torch.device(device).type, getattr(torch, precision), enabled=precision != "float32")


def gradient_scaler(precision: str, device: str) -> torch.amp.GradScaler:
    """Return a scaler that keeps small gradients from vanishing in float16, and passes over steps that overflow it.

    At any other precision it does nothing.
    """
    return torch.amp.GradScaler(torch.device(device).type, enabled=precision == "float16")


def memory_format(precision: str, device: str) -> torch.memory_format:
    """Choose channels last where convolutions are faster that way: on GPUs, and on CPUs in half precision."""
    channels_last = device.startswith("cuda") or precision != "float32"
    return torch.channels_last if channels_last else torch.contiguous_format
