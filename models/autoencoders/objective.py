"""What an autoencoder is trained for: a weighted sum of terms by name, and how its input is spoiled on the way in.

Every term of pixels or latents is a picture's sum divided by its number of samples C H W, then the mean of the batch.
So weights are those of formulae with summed errors: "bce + kl" is the negative evidence bound per sample, the weight of
kl is beta, and "mse + 0.001*latent" is ||x - y||^2 + 0.001 ||z||^2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from models.autoencoders.similarity import ms_ssim

Generator = torch.Generator | None
#: terms that some forms compute on the way, and the one that needs two more encodings
OF_FORMS = {
    "kl": "divergence of the variational posterior from the standard normal prior, in nats",
    "codebook": "vector-quantised: distance of codes to encodings, and 0.25 times that of encodings to codes",
    "adversary": "adversarial: the encoder against the discriminator, and the discriminator against the encoder",
}
CONTRAST = "contrast"
CORRUPTIONS = ("noise", "mask")
_TERM = re.compile(r"(?:([0-9][0-9.]*(?:[eE][+-]?[0-9]+)?)\s*\*\s*)?([a-z_]+)")
#: not that of an exponent
_PLUS = re.compile(r"(?<![0-9.][eE])\+")
#: pixels a side of what a mask takes away, as a fraction of the picture's longer side
_HOLE = 1 / 7


@dataclass(frozen=True)
class Passage:
    """What one way through an autoencoder leaves behind.

    `logits` N x C x H x W before the sigmoid, `latent` N x d as it was decoded; scalar `terms` that the form offers to
    the objective; scalar `figures` to show.
    """

    logits: Tensor
    latent: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Corruption:
    """How pictures are spoiled in denoising and masked training, where the network is asked for the whole ones.

    "noise": Gaussian, `amount` its standard deviation (of 0..1), clipped to 0..1 (Vincent et al. 2008); "mask": a share
    `amount` of squares, a seventh of the picture's longer side, set to zero (He et al. 2022).
    """

    kind: str = ""
    amount: float = 0.0

    def __call__(self, picture: Tensor, generator: Generator = None) -> Tensor:
        """Spoil pictures, N x C x H x W in 0..1 to the same."""
        if self.kind == "noise":
            noise = torch.randn(picture.shape, device=picture.device, generator=generator)
            return (picture + self.amount * noise).clamp(0, 1)
        if self.kind == "mask":
            count, _, height, width = picture.shape
            side = max(1, round(max(height, width) * _HOLE))
            squares = (count, 1, -(-height // side), -(-width // side))
            kept = (torch.rand(squares, device=picture.device, generator=generator) >= self.amount).float()
            return picture * F.interpolate(kept, scale_factor=side)[..., :height, :width]
        return picture


@dataclass(frozen=True)
class Objective:
    """Weights of terms by name, in the order they were given, and the corruption of what is encoded."""

    weights: dict[str, float]
    corruption: Corruption = Corruption()


def parse_objective(text: str, corrupt: str = "") -> Objective:
    """Read an objective from text such as "mse + 0.1*ms_ssim + 0.001*latent", and its corruption from `corrupt`.

    A corruption is "noise:0.5", "mask:0.5" or "". Terms are those of `TERMS`, `OF_FORMS` and "contrast". Raises
    ValueError, naming what is wrong.
    """
    weights: dict[str, float] = {}
    for part in _PLUS.split(text):
        match = _TERM.fullmatch(part.strip())
        if not match:
            raise ValueError(f"loss {text!r}: {part.strip()!r} is not a term; write it like 'mse + 0.001*latent'")
        name, weight = match[2], _number(match[1] or "1")
        if name not in (*TERMS, *OF_FORMS, CONTRAST):
            names = ", ".join((*TERMS, *OF_FORMS, CONTRAST))
            raise ValueError(f"loss {text!r}: there is no term {name!r}; there are {names}")
        if name in weights:
            raise ValueError(f"loss {text!r}: {name} is there twice; give it one weight")
        if not 0 <= weight <= 1e6:
            raise ValueError(f"loss {text!r}: the weight of {name} must be a number from 0 to 1e6")
        weights[name] = weight
    if not any(weights.values()):
        raise ValueError(f"loss {text!r}: every weight is zero; give at least one term a weight")
    return Objective(weights, parse_corruption(corrupt))


def parse_corruption(text: str) -> Corruption:
    """Read a corruption, "noise:SIGMA" (to 2) or "mask:SHARE" (below 1); "" is none.

    Raises ValueError for any other.
    """
    if not text:
        return Corruption()
    kind, _, amount = text.partition(":")
    highest = {"noise": 2.0, "mask": 0.99}.get(kind)
    if highest is None:
        raise ValueError(f"corruption {text!r}: there is no {kind!r}; write it like 'noise:0.5' or 'mask:0.5'")
    if not 0 < _number(amount) <= highest:
        raise ValueError(f"corruption {text!r}: the amount must be above 0 and at most {highest}")
    return Corruption(kind, _number(amount))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _bce(picture: Tensor, passage: Passage) -> Tensor:
    return F.binary_cross_entropy_with_logits(passage.logits, picture)


def _of_latent(picture: Tensor, penalty: Tensor) -> Tensor:
    """Reduce penalties, N x d, to a scalar: summed over a picture, divided by its number of samples."""
    return penalty.sum(1).mean() / picture[0].numel()


#: terms that every form has: of the picture wished for, N x C x H x W in 0..1, and the passage
TERMS: dict[str, Callable[[Tensor, Passage], Tensor]] = {
    "mse": lambda picture, passage: (passage.logits.sigmoid() - picture).pow(2).mean(),
    "mae": lambda picture, passage: (passage.logits.sigmoid() - picture).abs().mean(),
    "bce": _bce,
    "ms_ssim": lambda picture, passage: 1 - ms_ssim(passage.logits.sigmoid(), picture).mean(),
    "latent": lambda picture, passage: _of_latent(picture, passage.latent.pow(2)),
    "sparsity": lambda picture, passage: _of_latent(picture, passage.latent.abs()),
}
