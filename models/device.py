"""Which device networks run on."""

from __future__ import annotations

import torch


def choose_device(device: str) -> str:
    """ "auto" becomes "cuda" where there is one, else "cpu"; anything else is taken as it is."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
