"""From pixels to latents and back: a learned lapped transform plus a residual network on each side.

The linear paths start as the 16 x 16 block DCT of YCbCr and its inverse, so that training begins where block
transform coding ends and spends its steps on what a fixed transform cannot do: overlap between blocks (lapped
transforms, Malvar 1990), prediction across them, and repair of quantisation on the way back. A linear shortcut beside
non-linear transforms is also what AuxT (arXiv 2501.13751) found to speed convergence.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: pixels per latent position in each direction
STRIDE = 16
#: kernel of the lapped transform: one block and half a neighbour on each side
_KERNEL = 32


class Analysis(nn.Module):
    """The analysis: N x 3 x H x W in 0..1 (H, W multiples of 16) to N x M x H/16 x W/16, before gain and rounding."""

    def __init__(self, width: int = 128, latents: int = 320, blocks: int = 3):
        super().__init__()
        self.lapped = LappedAnalysis(latents)
        self.residual = nn.Sequential(
            nn.PixelUnshuffle(8),
            nn.Conv2d(192, width, 1),
            *(Block(width) for _ in range(blocks)),
            nn.Conv2d(width, latents, 3, stride=2, padding=1),
        )
        _start_at_zero(self.residual[-1])

    def forward(self, picture: Tensor) -> Tensor:
        centred = picture - 0.5
        return self.lapped(centred) + self.residual(centred)


class Synthesis(nn.Module):
    """The synthesis: latents to a picture N x 3 x 16h x 16w, not clipped.

    The input is N x (M + 1) x h x w: M latents (after rounding and inverse gain) and a plane that holds the quality as
    a fraction in 0..1, by which the network knows how coarse the rounding was.
    """

    def __init__(self, width: int = 128, latents: int = 320, blocks: int = 5):
        super().__init__()
        self.lapped = LappedSynthesis(latents)
        self.residual = nn.Sequential(
            nn.Conv2d(latents + 1, width * 4, 1),
            nn.PixelShuffle(2),
            *(Block(width) for _ in range(blocks)),
            nn.Conv2d(width, 192, 1),
            nn.PixelShuffle(8),
        )
        _start_at_zero(self.residual[-2])

    def forward(self, latents: Tensor) -> Tensor:
        return self.lapped(latents[:, :-1]) + self.residual(latents) + 0.5


class LappedAnalysis(nn.Module):
    """A convolution of 32 x 32 kernels with stride 16, as one matrix product over unfolded blocks.

    On a CPU that is faster than the convolution, and in half precision too coarse: the largest latents have hundreds of
    steps. So it stays in float32 under autocast.
    """

    def __init__(self, latents: int):
        super().__init__()
        self.weight = nn.Parameter(lapped_dct(latents))

    def forward(self, picture: Tensor) -> Tensor:
        with torch.autocast(picture.device.type, enabled=False):
            blocks = F.unfold(picture.to(self.weight.dtype), _KERNEL, stride=STRIDE, padding=STRIDE // 2)
            latents = self.weight.flatten(1) @ blocks
        return latents.view(len(picture), -1, picture.shape[2] // STRIDE, picture.shape[3] // STRIDE)


class LappedSynthesis(nn.Module):
    """The inverse of `LappedAnalysis`: a transposed convolution, as a matrix product folded onto the picture."""

    def __init__(self, latents: int):
        super().__init__()
        self.weight = nn.Parameter(lapped_dct(latents))

    def forward(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            blocks = self.weight.flatten(1).T @ latents.to(self.weight.dtype).flatten(2)
            size = (latents.shape[2] * STRIDE, latents.shape[3] * STRIDE)
            return F.fold(blocks, size, _KERNEL, stride=STRIDE, padding=STRIDE // 2)


class Block(nn.Module):
    """Depthwise mixing in space, then a gated feed-forward in channels, each added to its input (as in DCVC-RT)."""

    def __init__(self, width: int):
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(width, width, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.Conv2d(width, width, 1),
        )
        self.widen = nn.Conv2d(width, width * 4, 1)
        self.narrow = nn.Conv2d(width * 2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        gate, value = self.widen(x).chunk(2, dim=1)
        return x + self.narrow(F.relu(gate) * value)


def dct_order(latents: int) -> list[tuple[int, int, int]]:
    """List which DCT coefficient each latent starts as: (component Y=0 Cb=1 Cr=2, vertical, horizontal frequency).

    Seven tenths are luma, the rest is split between the chroma components; low frequencies first. At 320 latents the
    plain transform keeps Kodak at 43.5 dB; a smaller share of luma keeps less.
    """
    chroma = latents * 3 // 20
    frequencies = sorted(((v, u) for v in range(16) for u in range(16)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
    counts = (latents - 2 * chroma, chroma, chroma)
    return [(c, v, u) for c, count in enumerate(counts) for v, u in frequencies[:count]]


def lapped_dct(latents: int) -> Tensor:
    """Build orthonormal DCT-II kernels over YCbCr (orthonormal too), latents x 3 x 32 x 32, zero outside the block."""
    colour = np.array([[1, 1, 1], [-1, -1, 2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]])
    position = np.arange(16)
    basis = np.array([np.cos(math.pi * (position + 0.5) * k / 16) for k in range(16)]) * math.sqrt(2 / 16)
    basis[0] /= math.sqrt(2)
    kernels = np.zeros((latents, 3, _KERNEL, _KERNEL), np.float32)
    for index, (component, v, u) in enumerate(dct_order(latents)):
        kernels[index, :, 8:24, 8:24] = colour[component][:, None, None] * np.outer(basis[v], basis[u])
    return torch.from_numpy(kernels)


def _start_at_zero(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Conv2d)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
