"""The restoration network: a bias-free residual U-Net of plain convolutions, with a stem and a tail for its task.

The trunk is DRUNet (Zhang et al., "Plug-and-Play Image Restoration with Deep Denoiser Prior", 2021) scaled down. It
works at half the resolution of what it gives, where a CPU computes convolutions best: pictures that keep their size
are folded 2 x 2 into channels first (FFDNet, Zhang et al. 2018), pictures that are enlarged are not, so that all
tasks share one trunk. Without biases the network scales with its input, so noise levels it never saw still come out
right (Mohan et al., "Robust and Interpretable Blind Image Denoising via Bias-Free CNNs", 2020).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.restoration import fill, light

#: what a network may be told besides the picture
CONDITIONS = (None, "level", "mask", "sample")


class RestorationNetwork(nn.Module):
    """A restoration network: N x 3 x H x W float in 0..1 to N x 3 x sH x sW (not clipped), s being `scale`.

    Any H and W.

    `widths` are the channels of the trunk's scales; every scale has `blocks` residual blocks on the way down and up.
    (Nine networks of the default sizes, 1.05 million parameters each, take 19 MB in half precision.) A network with a
    `condition` is also told one plane N x 1 x H x W, None standing for zeros: "level" is any number, such as a noise
    level; "mask" is 1 where pixels are missing, which are then all that changes. One whose condition is "sample" is
    told pixels of the whole picture, N x 3 x 64 x 64 (`light.sample`; None: those of what it is given), and sets
    exposure, contrast and cast right before the U-Net looks at it. The receptive field is finite (`reach` pixels of the
    input to each side): tiles with that much overlap, begun at multiples of `multiple`, equal the whole. Raises
    ValueError for sizes that no trained network has.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128),
        blocks: int = 2,
        scale: int = 1,
        condition: str | None = None,
    ):
        super().__init__()
        # sizes may come from a file: what they ask for is bounded before it is allocated
        if not (1 <= len(widths) <= 6 and all(1 <= width <= 512 for width in widths) and 0 <= blocks <= 8):
            raise ValueError(f"widths {widths} and {blocks} blocks: at most 6 widths to 512, and 8 blocks")
        if scale not in (1, 2, 3, 4) or condition not in CONDITIONS:
            raise ValueError(f"scale {scale} and condition {condition!r}: 1 to 4, and one of {CONDITIONS}")
        self.widths, self.blocks, self.scale, self.condition = tuple(widths), blocks, scale, condition
        self.fold = 2 if scale == 1 else 1
        planes = (4 if condition in ("level", "mask") else 3) * self.fold**2
        if condition == "sample":
            self.light = light.LightEstimator()
        self.stem = _conv(planes, widths[0])
        self.down = nn.ModuleList(_residual_blocks(width, blocks) for width in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in pairwise(widths))
        self.body = _residual_blocks(widths[-1], blocks)
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_residual_blocks(width, blocks) for width in widths[:-1])
        self.tail = _conv(widths[0], 3 * (self.fold * scale) ** 2)

    @property
    def sizes(self) -> dict[str, Any]:
        """Keyword arguments that build a network of the same form."""
        return {"widths": list(self.widths), "blocks": self.blocks, "scale": self.scale, "condition": self.condition}

    @property
    def multiple(self) -> int:
        """The number of which input heights and widths are padded to a multiple inside."""
        own = self.fold * 2 ** len(self.down)
        return max(own, 2**fill.LEVELS) if self.condition == "mask" else own

    @property
    def reach(self) -> int:
        """Input pixels a result may depend on in each direction, rounded up to a multiple of `multiple`."""
        scales = len(self.down)
        reach = 2 + sum(2 * 2 * self.blocks * 2**scale for scale in range(scales)) + 2 * self.blocks * 2**scales
        reach += 2**scales - 1  # the strided convolutions look ahead by up to this much
        reach = reach * self.fold + (fill.REACH if self.condition == "mask" else 0)
        return -(-reach // self.multiple) * self.multiple

    def forward(self, picture: Tensor, condition: Tensor | None = None) -> Tensor:
        height, width = picture.shape[-2:]
        if self.condition == "sample":
            picked = light.sample(picture) if condition is None else condition
            picture, condition = light.undo(picture, self.light(picked)), None
        elif self.condition and condition is None:
            condition = torch.zeros_like(picture[:, :1])
        planes = picture if condition is None else torch.cat([picture, condition], 1)
        planes = F.pad(planes, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")
        if self.condition == "mask":
            planes = torch.cat([fill.fill(planes[:, :3], planes[:, 3:]), planes[:, 3:]], 1)
        features = self.trunk(self.stem(F.pixel_unshuffle(planes, self.fold)))
        change = F.pixel_shuffle(self.tail(features), self.fold * self.scale)
        restored = (_enlarged(planes[:, :3], self.scale) + change)[:, :, : height * self.scale, : width * self.scale]
        if condition is None or self.condition != "mask":
            return restored
        return torch.lerp(picture, restored, condition)

    def trunk(self, x: Tensor) -> Tensor:
        """Take features through the U-Net, N x widths[0] x h x w to the same.

        Sides h and w are multiples of 2 ** (scales - 1).
        """
        features, skipped = x, []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            features = blocks(features)
            skipped.append(features)
            features = shrink(features)
        features = self.body(features)
        for blocks, enlarge in zip(reversed(self.up), reversed(self.enlarge), strict=True):
            features = blocks(enlarge(features) + skipped.pop())
        return features + x


class ResidualBlock(nn.Module):
    """A residual block, x + conv(relu(conv(x))), without bias and normalisation."""

    def __init__(self, width: int):
        super().__init__()
        self.first = _conv(width, width)
        self.second = _conv(width, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


def _enlarged(picture: Tensor, scale: int) -> Tensor:
    if scale == 1:
        return picture
    return F.interpolate(picture, scale_factor=scale, mode="bicubic", align_corners=False)


def _residual_blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
