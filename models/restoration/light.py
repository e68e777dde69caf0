"""Light, contrast and colour of a whole picture, estimated from a sample of its pixels, and undone at every pixel.

What spoils the light of a picture is global and pointwise: exposure, contrast and the colour of the light. A small
estimator looks at pixels picked from all over the picture; every tile is then corrected alike, so that tiles equal the
whole, as in curve estimators such as Zero-DCE (Guo et al., 2020) and learned colour constancy (FC4, Hu et al., 2017).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.restoration.degradations import to_linear, to_srgb

#: pixels a side of a sample
SAMPLE = 64
_TAIL = (0, 0.002, 0.005, 0.01, 0.02, 0.05)
_SHARES = (*_TAIL, *(tenth / 10 for tenth in range(1, 10)), *(1 - share for share in reversed(_TAIL)))
#: logarithms of strengths: the middle of their range, and half its width
_EXPOSURES, _CONTRASTS = (-1.05, 1.6), (-0.6, 0.8)
_WIDTHS = (32, 64, 96, 128)


def sample(picture: Tensor) -> Tensor:
    """Pick pixels on a regular grid over N x C x H x W, N x C x 64 x 64; small pictures repeat theirs."""
    rows, columns = (torch.tensor(grid(side), device=picture.device) for side in picture.shape[-2:])
    return picture[..., rows, :][..., columns]


def grid(side: int) -> list[int]:
    """List which 64 of `side` rows or columns a sample is made of."""
    return [(2 * place + 1) * side // (2 * SAMPLE) for place in range(SAMPLE)]


class LightEstimator(nn.Module):
    """An estimator of what was done to the light: a sample N x 3 x 64 x 64 (0..1) to N x 6 x 1 x 1, see `undo`."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip((3, *_WIDTHS), _WIDTHS, strict=False)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.first = nn.Linear(2 * _WIDTHS[-1] + 3 * len(_SHARES), 128)
        self.second = nn.Linear(128, 64)
        self.last = nn.Linear(64, 6)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, picked: Tensor) -> Tensor:
        features = picked * 2 - 1
        for convolution in self.convolutions:
            features = F.relu(convolution(features))
        ordered = picked.flatten(2).sort(2).values
        quantiles = ordered[:, :, [round(share * (SAMPLE**2 - 1)) for share in _SHARES]].flatten(1) * 2 - 1
        known = torch.cat([features.mean((2, 3)), features.amax((2, 3)), quantiles], 1)
        estimate = self.last(F.relu(self.second(F.relu(self.first(known)))))
        return estimate[:, :, None, None]


def undo(picture: Tensor, estimate: Tensor) -> Tensor:
    """Undo exposure, contrast and colour cast of N x 3 x H x W in 0..1 by `LightEstimator`'s estimate.

    Channels of the estimate, each squashed by tanh to its range: exposure of linear light, 1/14 to 1.7; contrast, 1/4
    to 1.2; the pivot it was lost around; gains of R, G and B, 0.55 to 1.8. Zeros leave the picture as it is.
    """
    exposure = torch.exp(_EXPOSURES[0] + _EXPOSURES[1] * torch.tanh(estimate[:, 0:1] + _unchanged(*_EXPOSURES)))
    contrast = torch.exp(_CONTRASTS[0] + _CONTRASTS[1] * torch.tanh(estimate[:, 1:2] + _unchanged(*_CONTRASTS)))
    pivot = 0.5 + 0.5 * torch.tanh(estimate[:, 2:3])
    gains = torch.exp(0.6 * torch.tanh(estimate[:, 3:6]))
    even = to_srgb(to_linear(picture) / gains)
    full = ((even - pivot) / contrast + pivot).clamp(0.0, 1.5)
    return to_srgb(to_linear(full) / exposure).clamp(0.0, 1.5)


def _unchanged(middle: float, half: float) -> float:
    """Compute where tanh must be taken for the logarithm of a strength to be 0, which changes nothing."""
    return math.atanh(-middle / half)
