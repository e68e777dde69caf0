"""A first guess at missing pixels, from which the network starts: averages of what is known, coarse to fine."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: halvings; pixels further than the coarsest average reaches from anything known become 0
LEVELS = 4
_COARSEST = 9
REACH = 2**LEVELS * (_COARSEST // 2 + 3)


def fill(picture: Tensor, missing: Tensor) -> Tensor:
    """Replace pixels where `missing` (N x 1 x H x W, 0 or 1) is 1; H and W are multiples of 2 ** LEVELS.

    Known pixels stay as they are. A filled pixel depends on pixels at most `REACH` away.
    """
    known = 1 - missing
    return torch.where(missing > 0, _guess(picture * known, known, LEVELS), picture)


def _guess(weighted: Tensor, known: Tensor, levels: int) -> Tensor:
    """Average around every pixel: known neighbours where there are any, else the next coarser level."""
    if levels == 0:
        side = _COARSEST // 2
        total = F.avg_pool2d(weighted, _COARSEST, 1, side, count_include_pad=False)
        weight = F.avg_pool2d(known, _COARSEST, 1, side, count_include_pad=False)
        return torch.where(known > 0, weighted / known.clamp_min(1e-6), total / weight.clamp_min(1e-6))
    coarse = _guess(F.avg_pool2d(weighted, 2), F.avg_pool2d(known, 2), levels - 1)
    coarse = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.where(known > 0, weighted / known.clamp_min(1e-6), coarse)
