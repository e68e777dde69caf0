"""MS-SSIM that can be learnt from, on small pictures, too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
#: a smaller term would have a gradient without bounds
_LEAST = 1e-4


def ms_ssim(picture: Tensor, reference: Tensor) -> Tensor:
    """Compute multi-scale structural similarity (Wang, Simoncelli & Bovik 2003), N values in about 0..1.

    Differentiable. N x C x H x W float32 in 0..1, both. Five scales of 2 x 2 means from a short side of 176 pixels,
    four from 88, three from 44, two from 22, else one, the paper's weights divided by their sum; under 11 pixels the
    Gaussian window (11 x 11, sigma 1.5) is the largest odd one that fits.
    """
    short = min(picture.shape[-2:])
    scales = max([n for n in range(1, 6) if short >= _WINDOW << (n - 1)], default=1)
    total = sum(_WEIGHTS[:scales])
    product = torch.ones(picture.shape[:2], device=picture.device)
    for scale in range(scales):
        if scale > 0:
            picture, reference = _halved(picture), _halved(reference)
        structure, whole = _similarity(picture, reference)
        term = whole if scale == scales - 1 else structure
        product = product * term.clamp_min(_LEAST) ** (_WEIGHTS[scale] / total)
    return product.mean(1)


def _similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Compute N x C means of the contrast-structure term and of SSIM over the valid area."""
    window = min(_WINDOW, (min(a.shape[-2:]) - 1) // 2 * 2 + 1)
    mean_a, mean_b = _blurred(a, window), _blurred(b, window)
    variance_a = _blurred(a * a, window) - mean_a * mean_a
    variance_b = _blurred(b * b, window) - mean_b * mean_b
    covariance = _blurred(a * b, window) - mean_a * mean_b
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a * mean_a + mean_b * mean_b + _C1)
    return structure.mean((2, 3)), (structure * luminance).mean((2, 3))


def _blurred(planes: Tensor, window: int) -> Tensor:
    distance = torch.arange(window, device=planes.device, dtype=torch.float32) - window // 2
    kernel = torch.exp(-(distance**2) / (2 * _SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(planes.shape[1], 1, 1, window)
    rows = F.conv2d(planes, kernel, groups=planes.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=planes.shape[1])


def _halved(picture: Tensor) -> Tensor:
    height, width = picture.shape[-2:]
    return F.avg_pool2d(F.pad(picture, (0, width % 2, 0, height % 2), mode="replicate"), 2)
