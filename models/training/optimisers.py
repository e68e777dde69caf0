"""Optimisers by name, as `darkroom train --optimiser` and `models.training.tasks` know them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from models.codec.prior import IntegerLayer

OPTIMISERS = ("sgd", "momentum", "adam", "adamw", "muon", "soap")
#: weights of x (a + b x^2) / (1 + c x^2), which brings 0.003..1 nearest to 1, to 0.35..1
_HALLEY = (121.158, 3609.47, 3729.63)
#: weights of x (a + b x^2 + c x^4), which brings 0.35..1 nearest to 1, to 0.925..1.075
_QUINTIC = (3.20548, -5.00631, 2.87569)
#: SOAP learns a basis of the longer side of a matrix up to this length, and renews bases after so many steps
_LONGEST_SIDE, _RENEWED_EVERY = 256, 10


def matrices(network: nn.Module) -> set[str]:
    """Name the parameters of a network that are matrices of layers, from inputs to outputs.

    They are weights of linear and recurrent layers, of convolutions and transposed convolutions without groups, and
    of integer layers that are not depthwise. Tables, code books, lapped transforms, depthwise kernels, biases and
    gains are not, whatever their shape.
    """
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, layer in network.named_modules()
        for name, _ in layer.named_parameters(recurse=False)
        if _is_matrix(layer, name)
    }


def _is_matrix(layer: nn.Module, name: str) -> bool:
    if isinstance(layer, nn.RNNBase):
        return name.startswith("weight")
    if isinstance(layer, IntegerLayer):
        return name == "weight" and not layer.depthwise
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d):
        return name == "weight" and layer.groups == 1
    return name == "weight" and isinstance(layer, nn.Linear)


def moments(name: str, parameter: Tensor, matrix: bool) -> dict[str, tuple[int, ...]]:
    """Tell what an optimiser keeps of a parameter once it has taken a step: names and shapes.

    `matrix` says whether the parameter is one of `matrices`.
    """
    shape = tuple(parameter.shape)
    if name == "sgd":
        return {}
    if name == "momentum":
        return {"momentum_buffer": shape}
    if name == "muon" and matrix:
        return {"exp_avg": shape}
    if name == "soap" and matrix:
        shape = tuple(as_matrix(parameter).shape)
        bases = {side: (shape[side == "columns"],) * 2 for side in _turned_sides(parameter)}
        turned = {f"{part}_{side}": square for side, square in bases.items() for part in ("covariance", "basis")}
        return {"step": (), "exp_avg": shape, "exp_avg_sq": shape, **turned}
    return {"step": (), "exp_avg": shape, "exp_avg_sq": shape}


def build_optimiser(name: str, groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    """Build an optimiser over parameter groups with a `lr` to be set before every step.

    "sgd", "momentum" (0.9, Nesterov), "adam" (weight decay added to the gradient), "adamw" (decoupled), "muon" or
    "soap". The last two treat groups with `matrix` True in their own way, see `matrices`, and take AdamW's step of all
    others. Raises ValueError for another name.
    """
    if name == "muon":
        return Muon(groups, weight_decay)
    if name == "soap":
        return Soap(groups, weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    if name == "adam":
        return torch.optim.Adam(groups, weight_decay=weight_decay, fused=True)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1e-3, weight_decay=weight_decay)
    if name == "momentum":
        return torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    raise ValueError(f"there is no optimiser {name!r}; there are {', '.join(OPTIMISERS)}")


class MatrixOptimiser(torch.optim.Optimizer):
    """AdamW (0.9, 0.999) for all parameters but those of groups with `matrix` True, which a subclass steps."""

    def __init__(self, groups: list[dict[str, Any]], weight_decay: float, **defaults: Any):
        super().__init__(groups, {"lr": 1e-3, "weight_decay": weight_decay, "matrix": False, **defaults})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        stepped: list[tuple[nn.Parameter, dict[str, Any]]] = []
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["matrix"]:
                stepped += [(parameter, group) for parameter in parameters]
            else:
                self._step_others(parameters, group)
        directions = self.directions([parameter for parameter, _ in stepped])
        for (parameter, group), direction in zip(stepped, directions, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])

    def directions(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        """Update the state of parameters that are matrices; return their steps at rate 1, of the parameters' shapes."""
        raise NotImplementedError

    def _step_others(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        if not parameters:
            return
        adamw(
            list(parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


class Muon(MatrixOptimiser):
    """Momentum whose step is made orthogonal, so that every direction of a weight matrix learns at the same pace.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. Convolutions count as matrices of
    outputs by inputs x kernel; steps are scaled to the size of Adam's (Liu et al., "Muon is Scalable for LLM
    Training", 2025), so that learning rates carry over.
    """

    momentum = 0.95

    def directions(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        if not parameters:
            return []
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {"exp_avg": torch.zeros_like(parameter)}
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        averages = [self.state[parameter]["exp_avg"] for parameter in parameters]
        torch._foreach_lerp_(averages, gradients, 1 - self.momentum)
        looked_ahead = torch._foreach_lerp(gradients, averages, self.momentum)
        return [
            direction.reshape(parameter.shape) * (0.2 * max(direction.shape) ** 0.5)
            for parameter, direction in zip(parameters, orthogonal([as_matrix(t) for t in looked_ahead]), strict=True)
        ]


class Soap(MatrixOptimiser):
    """Adam in the eigenbasis of the gradients' covariances (Vyas et al., arXiv 2409.11321, 2024).

    The longer side of a matrix keeps its own basis where it exceeds a limit. The bases are renewed every ten steps by
    one step of orthogonal iteration. The first step only begins the covariances; both moments are kept in the bases.
    """

    forgetting, epsilon = 0.05, 1e-8

    def directions(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        return [self._direction(parameter) for parameter in parameters]

    def _direction(self, parameter: nn.Parameter) -> Tensor:
        assert parameter.grad is not None
        gradient, state = as_matrix(parameter.grad), self.state[parameter]
        sides = _turned_sides(parameter)
        if not state:
            state |= {"step": torch.zeros((), device=parameter.device)}
            state |= {"exp_avg": torch.zeros_like(gradient), "exp_avg_sq": torch.zeros_like(gradient)}
            for side in sides:
                state[f"covariance_{side}"] = self.forgetting * _covariance(gradient, side)
                state[f"basis_{side}"] = torch.linalg.eigh(state[f"covariance_{side}"])[1]
            return torch.zeros_like(parameter)
        state["step"] += 1
        step = state["step"].item()
        bases = {side: state[f"basis_{side}"] for side in sides}
        turned = _turned(gradient, bases)
        state["exp_avg"].lerp_(turned, self.forgetting)
        state["exp_avg_sq"].lerp_(turned.square(), self.forgetting)
        correction = 1 - (1 - self.forgetting) ** step
        size = (state["exp_avg_sq"] / correction).sqrt_().add_(self.epsilon)
        direction = _turned(state["exp_avg"] / correction / size, {side: basis.T for side, basis in bases.items()})
        for side in sides:
            state[f"covariance_{side}"].lerp_(_covariance(gradient, side), self.forgetting)
        if step % _RENEWED_EVERY == 0:
            for side in sides:
                self._renew(state, side)
        return direction.reshape(parameter.shape)

    def _renew(self, state: dict[str, Tensor], side: str) -> None:
        covariance, old = state[f"covariance_{side}"], state[f"basis_{side}"]
        spread = covariance @ old
        # the orthogonal iteration wants the largest first
        order = (old * spread).sum(0).argsort(descending=True, stable=True)
        new = torch.linalg.qr(spread[:, order])[0]
        axis = 0 if side == "rows" else 1
        state["exp_avg_sq"] = state["exp_avg_sq"].index_select(axis, order)
        state["exp_avg"] = _turned(state["exp_avg"], {side: old.T @ new})
        state[f"basis_{side}"] = new


def as_matrix(weight: Tensor) -> Tensor:
    """Return a layer's weight as a matrix, its first dimension by all others."""
    return weight.reshape(len(weight), -1)


def orthogonal(given: list[Tensor]) -> list[Tensor]:
    """Lift the singular values of matrices to about 1 (0.925 to 1.075), all matrices of equal shape at once.

    Those below 0.003 of the largest end lower. A step of Halley's iteration (Nakatsukasa, Bai and Gygi, "Optimizing
    Halley's iteration for computing the matrix polar decomposition", 2010) and a quintic (as in Muon) are taken on a
    matrix times its own transpose, which has only its short side; that takes half as long as Muon's five quintics.
    """
    buckets: dict[tuple[int, int], list[int]] = {}
    for index, matrix in enumerate(given):
        buckets.setdefault((min(matrix.shape), max(matrix.shape)), []).append(index)
    found = list(given)
    for indices in buckets.values():
        wide = torch.stack([_transposed_if_tall(given[index]) for index in indices])
        for index, lifted in zip(indices, _lifted(wide), strict=True):
            found[index] = lifted if given[index].shape == lifted.shape else lifted.T
    return found


def _transposed_if_tall(matrix: Tensor) -> Tensor:
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _lifted(wide: Tensor) -> Tensor:
    """Lift the singular values of B x m x n, m <= n, to about 1."""
    product = wide @ wide.mT
    # no singular value of the product is larger
    largest = product.norm(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    product /= largest
    unit = torch.eye(wide.shape[1], device=wide.device, dtype=wide.dtype)
    a, b, c = _HALLEY
    first = b / c * unit + (a - b / c) * torch.cholesky_inverse(torch.linalg.cholesky_ex(unit + c * product)[0])
    product = first @ product @ first
    a, b, c = _QUINTIC
    second = a * unit + torch.baddbmm(product, product, product, beta=b, alpha=c)
    return (second @ first / largest.sqrt()) @ wide


def _turned_sides(weight: Tensor) -> list[str]:
    """List the sides whose basis is learned: the shorter one, and the longer one up to a limit."""
    sizes = {"rows": len(weight), "columns": weight.numel() // len(weight)}
    return [side for side, size in sizes.items() if size <= max(_LONGEST_SIDE, min(sizes.values()))]


def _covariance(matrix: Tensor, side: str) -> Tensor:
    return matrix @ matrix.T if side == "rows" else matrix.T @ matrix


def _turned(matrix: Tensor, bases: dict[str, Tensor]) -> Tensor:
    """Turn the rows and columns of a matrix into other bases."""
    if "rows" in bases:
        matrix = bases["rows"].T @ matrix
    return matrix @ bases["columns"] if "columns" in bases else matrix
