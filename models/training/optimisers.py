"""Optimisers by name, as `darkroom train --optimiser` and `models.training.tasks` know them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: what a checkpoint keeps of a weight matrix, by the optimiser's name
MOMENTS: dict[str, set[str]] = {
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "adam": {"step", "exp_avg", "exp_avg_sq"},
    "muon": {"step", "exp_avg"},
    "momentum": {"momentum_buffer"},
    "sgd": set(),
}
#: coefficients of the quintic that drives singular values towards 1
_QUINTIC = (3.4445, -4.7750, 2.0315)


def moments(name: str, parameter: Tensor) -> set[str]:
    """Names of the state that the optimiser keeps of a parameter once it has taken a step."""
    return MOMENTS[name] | ({"exp_avg_sq"} if name == "muon" and parameter.ndim < 2 else set())


def build_optimiser(name: str, groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    """An optimiser over parameter groups with a `lr` to be set before every step.

    "sgd", "momentum" (0.9, Nesterov), "adam" (weight decay added to the gradient), "adamw" (decoupled) or "muon".
    Raises ValueError for another name.
    """
    if name == "muon":
        return Muon(groups, weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    if name == "adam":
        return torch.optim.Adam(groups, weight_decay=weight_decay, fused=True)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1e-3, weight_decay=weight_decay)
    if name == "momentum":
        return torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    raise ValueError(f"there is no optimiser {name!r}; there are {', '.join(MOMENTS)}")


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, so that every direction of a weight matrix learns at the same pace.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. Convolutions count as matrices of
    outputs by inputs x kernel; steps are scaled to the size of Adam's (Liu et al., "Muon is Scalable for LLM
    Training", 2025), so that learning rates carry over. Parameters of one dimension take Adam's own step.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        weight_decay: float = 1e-4,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ):
        super().__init__(groups, {"lr": 1e-3, "weight_decay": weight_decay, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros((), device=parameter.device)
                    state["exp_avg"] = torch.zeros_like(parameter)
                    if parameter.ndim < 2:
                        state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                direction = (
                    _adam(parameter.grad, state, group) if parameter.ndim < 2 else _muon(parameter, state, group)
                )
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix with singular values of about 1 (0.7 to 1.2), by five Newton-Schulz iterations."""
    a, b, c = _QUINTIC
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def _muon(parameter: nn.Parameter, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    assert parameter.grad is not None
    average = state["exp_avg"].lerp_(parameter.grad, 1 - group["momentum"])
    matrix = parameter.grad.lerp(average, group["momentum"]).reshape(len(parameter), -1)
    return (orthogonal(matrix) * 0.2 * max(matrix.shape) ** 0.5).reshape(parameter.shape)


def _adam(gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    (fast, slow), step = group["betas"], state["step"]
    mean = state["exp_avg"].lerp_(gradient, 1 - fast) / (1 - fast**step)
    square = state["exp_avg_sq"].lerp_(gradient.square(), 1 - slow) / (1 - slow**step)
    return mean / (square.sqrt() + 1e-8)
