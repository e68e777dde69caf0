"""The prior as it is trained: hyperprior and context in simulated integer arithmetic.

What decides a probability must be the same on every machine, so the layers from the hyper latent z to means and
scales are integer arithmetic: weights are whole multiples of 1/1024, activations whole numbers in fixed ranges, and
every division is a shift. Training runs the same arithmetic in floating point with straight-through gradients (Balle
et al., Integer Networks for Data Compression with Latent-Variable Models, ICLR 2019); `models.codec.integer_prior`
runs it exactly.

Latents are coded in four steps. Channels fall into four groups (channel mod 4), positions into four classes (their
place in a 2 x 2 square); step s codes group (s + class) mod 4 at every position. Each step after the first thus
knows, at every position, other channels of the same place and the same channels of its neighbours (the quadtree
partition of DCVC-DC, Li et al. 2023; checkerboard: arXiv 2103.15306).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.codec.transforms import dct_order

#: qualities run from 1 (smallest) to this (best)
QUALITIES = 64
#: gains and biases are learned at so many qualities and interpolated between them
ANCHORS = 8
#: symbols of z; larger ones are clipped
HYPER_LIMIT = 31
#: standard deviations of the coder's tables: LEVELS of them, log-spaced
LEVELS = 64
SMALLEST_SCALE, LARGEST_SCALE = 0.08, 80.0
#: residuals the context sees are clipped to this
CONTEXT_LIMIT = 31
#: means are whole multiples of 1/16 step, within this many steps
MEAN_LIMIT = 1023
STEPS = 4
#: one hyper latent for 4 x 4 latents
HYPER_STRIDE = 4

WEIGHT_BITS, ACTIVATION_BITS, MEAN_BITS, LEVEL_BITS = 10, 4, 4, 2
ACTIVATION_LIMIT = 255
WEIGHT_LIMIT = 2047
_LAMBDA = (0.0008, 0.25)


def rate_weight(quality: Tensor) -> Tensor:
    """Compute lambda of the loss lambda * 255^2 * MSE + bpp, log-spaced over the qualities 1..64."""
    low, high = (math.log(value) for value in _LAMBDA)
    return torch.exp(low + (quality - 1) / (QUALITIES - 1) * (high - low))


def at_quality(anchors: Tensor, quality: Tensor) -> Tensor:
    """Interpolate anchors (ANCHORS x C) linearly at N qualities in 1..64: N x C."""
    position = (quality - 1) / (QUALITIES - 1) * (ANCHORS - 1)
    lower = position.floor().clamp(0, ANCHORS - 2)
    fraction = (position - lower)[:, None]
    lower = lower.long()
    return anchors[lower] * (1 - fraction) + anchors[lower + 1] * fraction


class HyperAnalysis(nn.Module):
    """The hyper analysis: scaled latents N x M x h x w (h, w multiples of 4) to N x Z x h/4 x w/4, before rounding.

    Only the encoder uses it.
    """

    def __init__(self, latents: int = 320, width: int = 128, hyper: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * latents, width, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.LeakyReLU(0.1),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * width, width, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.LeakyReLU(0.1),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * width, hyper, 1),
        )

    def forward(self, scaled: Tensor) -> Tensor:
        return self.layers(torch.cat([scaled * 0.1, torch.log1p(scaled.abs())], 1))


class IntegerLayer(nn.Module):
    """A 1 x 1 convolution (or a depthwise one) whose weights are whole multiples of 1/1024; see `integer_prior`."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, scale: float = 1.0):
        super().__init__()
        fan_in = inputs if kernel == 1 else kernel * kernel
        self.depthwise = kernel > 1
        self.weight = nn.Parameter(torch.randn(outputs, inputs if kernel == 1 else 1, kernel, kernel))
        self.weight.data *= scale * math.sqrt(2 / fan_in)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * 2**WEIGHT_BITS
        weight = (weight + (weight.round() - weight).detach()).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT) / 2**WEIGHT_BITS
        groups = x.shape[1] if self.depthwise else 1
        return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2, groups=groups)


class Prior(nn.Module):
    """The prior: gains, hyper latents' densities, and means and scales of the latents, as trained."""

    def __init__(self, latents: int = 320, hyper: int = 64, width: int = 128):
        super().__init__()
        weight = rate_weight(torch.linspace(1, QUALITIES, ANCHORS))
        # the step that balances rate and distortion for a uniform quantiser, in units where white is 1
        step = 5.1 / weight.sqrt() / 255
        self.log_gain = nn.Parameter((-step.log())[:, None].repeat(1, latents))
        self.hyper_mean = nn.Parameter(torch.zeros(ANCHORS, hyper))
        self.hyper_log_scale = nn.Parameter(torch.zeros(ANCHORS, hyper))
        self.first = IntegerLayer(hyper, 4 * width)
        self.first_quality = nn.Parameter(torch.zeros(ANCHORS, 4 * width))
        self.second_mix = IntegerLayer(width, width, 3)
        self.second = IntegerLayer(width, 4 * width)
        self.third_mix = IntegerLayer(width, width, 3)
        self.embed = IntegerLayer(latents, width)
        self.around = IntegerLayer(width, width, 5)
        self.join = IntegerLayer(3 * width, 3 * width // 2)
        #: the context knows which groups of channels are known at its own place
        self.join_step = nn.Parameter(torch.zeros(STEPS, 4, 3 * width // 2))
        self.mean = IntegerLayer(3 * width // 2, latents, scale=0.1)
        self.level = IntegerLayer(3 * width // 2, latents, scale=0.1)
        deviation = torch.tensor([_expected_deviation(*coefficient) for coefficient in dct_order(latents)])
        expected = deviation[None] * self.log_gain.detach().exp()
        self.level_quality = nn.Parameter(level_of(expected.clamp(SMALLEST_SCALE, LARGEST_SCALE)) / 2**LEVEL_BITS)

    def gain(self, quality: Tensor) -> Tensor:
        """Compute N x M gains at N qualities in 1..64, fractions allowed."""
        return at_quality(self.log_gain, quality).exp()

    def hyper_bits(self, hyper: Tensor, quality: Tensor) -> Tensor:
        """Estimate the bits of each number of z, N x Z x h x w, under a logistic density per channel and quality.

        z is rounded, or has uniform noise.
        """
        mean = at_quality(self.hyper_mean, quality)[:, :, None, None]
        precision = torch.exp(-at_quality(self.hyper_log_scale, quality))[:, :, None, None]
        distance = (hyper - mean).abs()
        mass = torch.sigmoid((0.5 - distance) * precision) - torch.sigmoid((-0.5 - distance) * precision)
        return -torch.log2(mass.clamp_min(1e-9))

    def features(self, hyper: Tensor, quality: Tensor) -> Tensor:
        """Compute features N x C x h x w of rounded z, N x Z x h/4 x w/4."""
        x = self.first(hyper) + at_quality(self.first_quality, quality)[:, :, None, None]
        x = activate(F.pixel_shuffle(x, 2))
        x = activate(self.second_mix(x))
        x = activate(F.pixel_shuffle(self.second(x), 2))
        return activate(self.third_mix(x))

    def parameters_of(
        self, features: Tensor, known: Tensor, step: int, classes: Tensor, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute means in steps and levels in 0..63, N x M x h x w, of what a step codes.

        Both are whole multiples of their grid. `features` are N x C x h x w, `known` the symbols of earlier steps, N x
        M x h x w, `classes` each position's class, h x w.
        """
        signed = requantise(self.embed(known), ACTIVATION_BITS, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)
        around = activate(self.around(signed))
        bias = self.join_step[step][classes].permute(2, 0, 1)
        x = self.join(torch.cat([features, around, activate(signed)], 1)) + bias
        x = activate(x)
        mean = requantise(self.mean(x), MEAN_BITS, -MEAN_LIMIT * 16, MEAN_LIMIT * 16)
        level = self.level(x) + at_quality(self.level_quality, quality)[:, :, None, None]
        return mean, requantise(level * 2**LEVEL_BITS, 0, 0, LEVELS - 1)


def activate(x: Tensor) -> Tensor:
    """Apply ReLU, onto the grid of activations."""
    return requantise(x, ACTIVATION_BITS, 0, ACTIVATION_LIMIT)


def requantise(x: Tensor, bits: int, low: int, high: int) -> Tensor:
    """Round to multiples of 2^-bits (halves up) and clip to low..high of those, gradients straight through."""
    scaled = x * 2**bits
    scaled = scaled + (torch.floor(scaled + 0.5) - scaled).detach()
    return scaled.clamp(low, high) / 2**bits


def level_of(scale: Tensor) -> Tensor:
    """Compute the level of a standard deviation, not rounded."""
    return (scale / SMALLEST_SCALE).log() / math.log(LARGEST_SCALE / SMALLEST_SCALE) * (LEVELS - 1)


def scale_of(level: Tensor) -> Tensor:
    """Compute the standard deviation of a level, the inverse of `level_of`."""
    return SMALLEST_SCALE * torch.exp(level * (math.log(LARGEST_SCALE / SMALLEST_SCALE) / (LEVELS - 1)))


def laplace_bits(residual: Tensor, scale: Tensor) -> Tensor:
    """Estimate the bits of each residual under a zero-mean Laplace density, integrated over cells of width 1.

    `scale` is the standard deviation. What a good prior leaves of image transforms has heavier tails than the normal
    density.
    """
    spread = scale * math.sqrt(0.5)
    distance = residual.abs()
    inner = 1 - 0.5 * (torch.exp((distance.clamp_max(0.5) - 0.5) / spread) + torch.exp(-(distance + 0.5) / spread))
    outer = 0.5 * torch.exp(-(distance.clamp_min(0.5) - 0.5) / spread) * (1 - torch.exp(-1 / spread))
    return -torch.log2(torch.where(distance < 0.5, inner, outer).clamp_min(1e-9))


def position_classes(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Compute each position's place in its 2 x 2 square, 0..3 row by row: height x width."""
    rows = torch.arange(height, device=device)[:, None] % 2
    return rows * 2 + torch.arange(width, device=device)[None, :] % 2


def step_mask(latents: int, classes: Tensor, step: int) -> Tensor:
    """Build a mask M x h x w, true where the step codes."""
    group = torch.arange(latents, device=classes.device)[:, None, None] % 4
    return group == (step + classes[None]) % 4


def _expected_deviation(component: int, v: int, u: int) -> float:
    """Estimate the standard deviation of an orthonormal 16 x 16 DCT coefficient of photographs, white = 1.

    Spectra of photographs fall as 1/f.
    """
    return (4.0 if component == 0 else 1.0) / (1 + 2.0 * (v * v + u * u) ** 0.55)
