"""The denoisers that ours is measured beside, as published, with random weights: only their speed counts."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class DnCNN(nn.Module):
    """Zhang et al., 2017, blind and for colour: 20 convolutions of 64 channels; normalisation is part of them."""

    def __init__(self) -> None:
        super().__init__()
        middle = [layer for _ in range(18) for layer in (_conv(64, 64), nn.ReLU())]
        self.layers = nn.Sequential(_conv(3, 64), nn.ReLU(), *middle, _conv(64, 3))

    def forward(self, picture: Tensor) -> Tensor:
        return picture - self.layers(picture)


class FFDNet(nn.Module):
    """Zhang et al., 2018, for colour: 12 convolutions of 96 channels at half the resolution, told the noise level."""

    def __init__(self) -> None:
        super().__init__()
        middle = [layer for _ in range(10) for layer in (_conv(96, 96), nn.ReLU())]
        self.layers = nn.Sequential(_conv(13, 96), nn.ReLU(), *middle, _conv(96, 12))

    def forward(self, picture: Tensor) -> Tensor:
        folded = nn.functional.pixel_unshuffle(picture, 2)
        level = torch.full_like(folded[:, :1], 25 / 255)
        return nn.functional.pixel_shuffle(self.layers(torch.cat([folded, level], 1)), 2)


class DRUNet(nn.Module):
    """Zhang et al., 2021, for colour: a U-Net of 64 to 512 channels, told the noise level; sides are multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 128, 256, 512)
        pairs = list(pairwise(widths))
        self.head = _conv(4, 64, bias=False)
        self.down = nn.ModuleList(
            nn.Sequential(*_blocks(a), nn.Conv2d(a, b, 2, stride=2, bias=False)) for a, b in pairs
        )
        self.body = nn.Sequential(*_blocks(512))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False), *_blocks(a)) for a, b in reversed(pairs)
        )
        self.tail = _conv(64, 3, bias=False)

    def forward(self, picture: Tensor) -> Tensor:
        level = torch.full_like(picture[:, :1], 25 / 255)
        features = [self.head(torch.cat([picture, level], 1))]
        for down in self.down:
            features.append(down(features[-1]))
        x = self.body(features[-1])
        for up in self.up:
            x = up(x + features.pop())
        return self.tail(x + features.pop())


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(_conv(width, width, bias=False), nn.ReLU(), _conv(width, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _blocks(width: int) -> list[_Block]:
    return [_Block(width) for _ in range(4)]


def _conv(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
