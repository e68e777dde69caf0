"""What is known of the latents before any is seen: a factorised density, and the gains that set the rate.

One density per channel serves every quality: the latent value has a mixture-of-logistics density, quality q multiplies
it by a gain before rounding, and a symbol's probability is the density's mass over the rounding cell. Gains are learned
at a few anchors and interpolated geometrically between them (asymmetric gained VAE, arXiv 2003.02012).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.codec.transforms import dct_order

#: qualities run from 1 (smallest) to this (best)
QUALITIES = 64
#: symbols are int8
SYMBOL_LIMIT = 127
_ANCHORS = 8
_MIXTURES = 3
_LAMBDA = (0.0005, 0.0600)


def rate_weight(quality: Tensor) -> Tensor:
    """Lambda of the loss lambda * 255^2 * MSE + bpp, log-spaced over the qualities."""
    low, high = (math.log(value) for value in _LAMBDA)
    return torch.exp(low + (quality - 1) / (QUALITIES - 1) * (high - low))


class Prior(nn.Module):
    """Gains and densities of M latent channels."""

    def __init__(self, latents: int = 192):
        super().__init__()
        weight = rate_weight(torch.linspace(1, QUALITIES, _ANCHORS))
        # the step that balances rate and distortion for a uniform quantiser, in units where white is 1
        step = 5.1 / weight.sqrt() / 255
        self.log_gain = nn.Parameter((-step.log())[:, None].repeat(1, latents))
        deviation = torch.tensor([_expected_deviation(*coefficient) for coefficient in dct_order(latents)])
        spread = torch.tensor([0.3, 0.9, 2.5])
        self.log_scale = nn.Parameter((deviation[:, None] * spread * 0.55).log())
        self.mean = nn.Parameter(torch.zeros(latents, _MIXTURES))
        self.weight = nn.Parameter(torch.zeros(latents, _MIXTURES))

    def gain(self, quality: Tensor) -> Tensor:
        """Quality, N values in 1..64, fractions allowed, to N x M gains."""
        position = (quality - 1) / (QUALITIES - 1) * (_ANCHORS - 1)
        lower = position.floor().clamp(0, _ANCHORS - 2)
        fraction = (position - lower)[:, None]
        lower = lower.long()
        return torch.exp(self.log_gain[lower] * (1 - fraction) + self.log_gain[lower + 1] * fraction)

    def bits(self, symbols: Tensor, gain: Tensor) -> Tensor:
        """Symbols N x M x h x w (rounded, or with uniform noise) under gains N x M to bits, same shape."""
        # symbols / gain has the density; the rounding cell is 1 / gain wide
        value = (symbols / gain[:, :, None, None]).unsqueeze(-1)
        half = (0.5 / gain)[:, :, None, None, None]
        shape = (1, -1, 1, 1, _MIXTURES)
        mean = self.mean.view(shape)
        precision = torch.exp(-self.log_scale).view(shape)
        # mass of a cell, taken on the side of the mean where the sigmoids do not saturate
        distance = (value - mean).abs()
        mass = torch.sigmoid((half - distance) * precision) - torch.sigmoid((-half - distance) * precision)
        weight = F.softmax(self.weight, dim=1).view(shape)
        return -torch.log2((weight * mass).sum(-1).clamp_min(1e-9))


def _expected_deviation(component: int, v: int, u: int) -> float:
    """Standard deviation of an orthonormal 16 x 16 DCT coefficient of photographs, white = 1 (spectra fall as 1/f)."""
    return (4.0 if component == 0 else 1.0) / (1 + 2.0 * (v * v + u * u) ** 0.55)
