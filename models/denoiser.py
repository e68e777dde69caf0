"""A blind denoiser: a bias-free residual U-Net of plain convolutions.

The trunk is DRUNet (Zhang et al., "Plug-and-Play Image Restoration with Deep Denoiser Prior", 2021) scaled down and
without its noise map. Without biases the network scales with its input, so noise levels it never saw still come out
right (Mohan et al., "Robust and Interpretable Blind Image Denoising via Bias-Free CNNs", 2020).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from models.inference import Apply, tiled


class Denoiser(nn.Module):
    """N x 3 x H x W float in 0..1 (noisy) to the same shape (clean, not clipped). Any H and W.

    `widths` are the channels of the four scales; every scale has `blocks` residual blocks on the way down and up.
    The receptive field is finite (`reach` pixels to each side), so tiles with that much overlap equal the whole.
    """

    #: height and width are padded to a multiple of this inside
    multiple = 8

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 128), blocks: int = 2):
        super().__init__()
        self.blocks = blocks
        self.head = _conv(3, widths[0])
        self.down = nn.ModuleList(_residual_blocks(width, blocks) for width in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in pairwise(widths))
        self.body = _residual_blocks(widths[-1], blocks)
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_residual_blocks(width, blocks) for width in widths[:-1])
        self.tail = _conv(widths[0], 3)

    @property
    def reach(self) -> int:
        """Pixels a result may depend on in each direction, rounded up to a multiple of `multiple`."""
        scales = len(self.down)
        reach = 2 + sum(2 * 2 * self.blocks * 2**scale for scale in range(scales)) + 2 * self.blocks * 2**scales
        reach += 2**scales - 1  # the strided convolutions look ahead by up to this much
        return -(-reach // self.multiple) * self.multiple

    def forward(self, noisy: Tensor) -> Tensor:
        height, width = noisy.shape[-2:]
        right, bottom = -width % self.multiple, -height % self.multiple
        x = features = self.head(F.pad(noisy, (0, right, 0, bottom), mode="replicate"))
        skipped = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            features = blocks(features)
            skipped.append(features)
            features = shrink(features)
        features = self.body(features)
        for blocks, enlarge in zip(reversed(self.up), reversed(self.enlarge), strict=True):
            features = blocks(enlarge(features) + skipped.pop())
        return noisy - self.tail(features + x)[:, :, :height, :width]


def denoise_picture(
    network: Denoiser, noisy: Tensor | np.ndarray, apply: Apply, tile: int = 512, **conversions: Any
) -> Tensor:
    """A whole picture through the network, in tiles when it is large: 3 x H x W in 0..1 to the same, not clipped.

    `conversions` are `before` and `after` of `tiled`: with them any other kind of pixels goes in and comes out.
    """
    # tiles must begin where the strided convolutions' grid does
    clean = tiled(network, noisy, apply, tile=tile, halo=network.reach, multiple=network.multiple, **conversions)
    return clean[:, : noisy.shape[1], : noisy.shape[2]]


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), no bias, no normalisation."""

    def __init__(self, width: int):
        super().__init__()
        self.first = _conv(width, width)
        self.second = _conv(width, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


def _residual_blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
