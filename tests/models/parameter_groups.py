"""Parameters of a network as its optimiser wants them."""

from __future__ import annotations

from typing import Any

from torch import nn

from models.training.optimisers import matrices


def parameter_groups(network: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Two groups, matrices and all others, by name."""
    among = matrices(network)
    named = list(network.named_parameters())
    return [
        {"params": chosen, "lr": rate, "matrix": matrix}
        for matrix in (True, False)
        if (chosen := [(name, parameter) for name, parameter in named if (name in among) == matrix])
    ]
