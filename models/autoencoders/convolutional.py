"""The convolutional autoencoder, and the encoder and decoder that other forms share with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.autoencoders import bounds
from models.autoencoders.interface import Autoencoder, calm


class ConvolutionalAutoencoder(Autoencoder):
    """A convolutional autoencoder, whose every width halves the sides.

    (16, 32) turns a digit into 32 x 7 x 7 features, (64, 128, 256) suits CIFAR-10. The latent is a vector of `latent`
    numbers behind a linear layer, or for None the map of `channels` (None: the last width) x h x w behind a 1 x 1
    convolution, flattened. `blocks` residual blocks follow every halving and precede every doubling. `dropout` is that
    of whole feature maps; `tied` decoders use the encoder's kernels.
    """

    form = "convolutional"

    def __init__(
        self,
        shape: Any,
        widths: Any = (16, 32),
        latent: int | None = 32,
        channels: int | None = None,
        blocks: int = 0,
        tied: bool = False,
        dropout: float = 0.0,
        projection: int = 0,
    ):
        sizes = map_sizes(shape, widths, blocks)
        if latent is not None and channels is not None:
            raise ValueError(f"latent {latent} and channels {channels}: give one of them, the other is None")
        channels_kept = bounds.whole("channels", sizes[0] if channels is None else channels, 1, 512)
        size = channels_kept * sizes[1] * sizes[2] if latent is None else bounds.whole("latent", latent, 1, 65536)
        bounds.number("dropout", dropout, 0, 0.9)
        super().__init__(shape, size, projection)
        self.tied = bounds.flag("tied", tied)
        self.map = sizes
        self.encoder = Encoder(self.shape, widths, blocks, dropout)
        self.decoder = Decoder(self.shape, widths, blocks, tied)
        if latent is None:
            self.to_latent: nn.Module = nn.Sequential(nn.Conv2d(sizes[0], channels_kept, 1), nn.Flatten())
            back: nn.Module = nn.Conv2d(channels_kept, sizes[0], 1)
            self.from_latent = nn.Sequential(nn.Unflatten(1, (channels_kept, *sizes[1:])), back)
        else:
            self.to_latent = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(sizes), latent))
            self.from_latent = nn.Sequential(nn.Linear(latent, math.prod(sizes)), nn.Unflatten(1, sizes))

    def features(self, picture: Tensor) -> Tensor:
        return self.encoder(picture).float()

    def encode(self, picture: Tensor) -> Tensor:
        return self.to_latent(self.encoder(picture)).float()

    def last_layer(self, latent: Tensor) -> Tensor:
        return self.decoder(self.from_latent(latent), self.encoder.kernels() if self.tied else None)


class Encoder(nn.Module):
    """The encoder: N x C x H x W in 0..1 to activated features N x widths[-1] x h x w, where h and w are rounded up."""

    def __init__(self, shape: tuple[int, int, int], widths: Any, blocks: int, dropout: float = 0.0):
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise((shape[0], *widths)))
        self.stages = nn.ModuleList(_stage(width, blocks) for width in widths)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        x = F.pad(picture, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate") - 0.5
        for shrink, stage in zip(self.shrink, self.stages, strict=True):
            x = self.dropout(stage(shrink(x)))
        return x

    def kernels(self) -> list[Tensor]:
        """Return the kernels of the strided convolutions, first to last."""
        return [weight for weight in self.shrink.parameters() if weight.ndim == 4]


class Decoder(nn.Module):
    """The decoder: N x widths[-1] x h x w to logits N x C x H x W.

    If `tied`, it is given the encoder's kernels each time.
    """

    def __init__(self, shape: tuple[int, int, int], widths: Any, blocks: int, tied: bool = False):
        super().__init__()
        self.height, self.width = shape[1:]
        pairs = list(pairwise((shape[0], *widths)))[::-1]
        self.stages = nn.ModuleList(_stage(width, blocks) for _, width in pairs)
        if tied:
            self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width, _ in pairs)
        else:
            self.enlarge = nn.ModuleList(nn.ConvTranspose2d(b, a, 4, 2, 1) for a, b in pairs)
            calm(self.enlarge[-1])

    def forward(self, features: Tensor, kernels: list[Tensor] | None = None) -> Tensor:
        x = features
        for stage, enlarge in zip(self.stages, self._layers(kernels), strict=True):
            x = enlarge(stage(x))
        return x[..., : self.height, : self.width]

    def _layers(self, kernels: list[Tensor] | None) -> list[Callable[[Tensor], Tensor]]:
        if kernels is None:
            return list(self.enlarge)
        pairs = zip(reversed(kernels), self.biases, strict=True)
        return [partial(F.conv_transpose2d, weight=kernel, bias=bias, stride=2, padding=1) for kernel, bias in pairs]


class ResidualBlock(nn.Module):
    """A residual block: x + conv(gelu(norm(conv(gelu(norm(x))))))."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            _norm(width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            _norm(width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def map_sizes(shape: Any, widths: Any, blocks: Any) -> tuple[int, int, int]:
    """Compute F, h and w of the encoder's features. Raises ValueError for sizes out of bounds."""
    widths = bounds.widths("widths", widths, 6, 512)
    bounds.whole("blocks", blocks, 0, 8)
    if min(widths) < 4:
        raise ValueError(f"widths {list(widths)}: every one must be at least 4")
    _, height, width = bounds.picture_shape(shape)
    multiple = 2 ** len(widths)
    return widths[-1], -(-height // multiple), -(-width // multiple)


def _stage(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)), _norm(width), nn.GELU())


def _norm(width: int) -> nn.GroupNorm:
    """Build a normalisation in groups of 8 channels where that divides; it keeps no statistics of batches."""
    return nn.GroupNorm(math.gcd(width, max(1, width // 8)), width)
