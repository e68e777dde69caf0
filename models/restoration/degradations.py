"""What spoils photographs, as seeded functions over whole batches, on the device of the batch.

Training draws strengths for every picture in `models.restoration.tasks`; the pipeline's degradation steps use the same
definitions with given strengths. Pictures are N x C x H x W float32 in 0..1, RGB or grey (`jpeg` and `colour_cast` take
RGB alone), of any N, H and W; strengths are tensors of N numbers, or numbers for all. Nothing is clipped or rounded
except by `stored` and `jpeg`. On a GPU nothing here waits for it. Not for half precision: call them outside autocast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CPU = torch.device("cpu")
Strength = Tensor | float
#: PyTorch's, on the picture's device (None: its own one there), or NumPy's, which draws the same on every machine
Generator = torch.Generator | np.random.Generator | None

#: ITU-T T.81, annex K: quantisation of luma and chroma at quality 50
_LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)
#: JFIF: Y, Cb - 128, Cr - 128 of R, G, B
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = (
    (1.0, 0.0, 1.402),
    (1.0, -0.344136286, -0.714136286),
    (1.0, 1.772, 0.0),
)
#: the 3 x 3 binomial filter, scaled so that it keeps the variance of white noise: its squares add up to 36 / 256
_BINOMIAL = tuple(tuple(a * b / 6 for a in (1.0, 2.0, 1.0)) for b in (1.0, 2.0, 1.0))


def gaussian_noise(picture: Tensor, sigma: Strength, generator: Generator = None) -> Tensor:
    """Add white Gaussian noise of standard deviation `sigma` in 8-bit levels."""
    return picture + _each(sigma, picture) / 255 * _normal(picture.shape, picture.device, generator)


def camera_noise(
    picture: Tensor,
    photons: Strength,
    sigma: Strength,
    correlation: Strength,
    generator: Generator = None,
) -> Tensor:
    """Add shot noise of `photons` at white and read noise of `sigma` 8-bit levels, blurred over its neighbours.

    Counts of photons are taken as normal. `correlation` in 0..1 mixes in noise smoothed by a 3 x 3 binomial filter (of
    the same variance), as demosaicking leaves it.
    """
    height, width = picture.shape[-2:]
    variance = picture.clamp_min(0) / _each(photons, picture) + (_each(sigma, picture) / 255) ** 2
    white = _normal(picture.shape, picture.device, generator)
    around = _normal((*picture.shape[:2], height + 2, width + 2), picture.device, generator)
    kernel = _constant(_BINOMIAL, picture.device)[None, None]
    smooth = F.conv2d(around.flatten(0, 1)[:, None], kernel).reshape(picture.shape)
    share = _each(correlation, picture)
    return picture + variance.sqrt() * ((1 - share).sqrt() * white + share.sqrt() * smooth)


def stored(picture: Tensor) -> Tensor:
    """Round and clip pictures as an 8-bit file would hold them."""
    return (picture * 255).round().clamp(0, 255) / 255


def jpeg(picture: Tensor, quality: Strength) -> Tensor:
    """Take pictures through baseline JPEG and back, chroma halved (4:2:0), at libjpeg's qualities 1..100.

    Quantisation is libjpeg's; decoding interpolates chroma bilinearly and computes in float32, so values are within a
    few levels of what a library gives, and mostly equal.
    """
    height, width = picture.shape[-2:]
    padded = F.pad(stored(picture) * 255, (0, -width % 16, 0, -height % 16), mode="replicate")
    planes = torch.einsum("cd,ndhw->nchw", _constant(_TO_YCC, picture.device), padded)
    luma = _quantised(planes[:, :1].round() - 128, quality, _LUMA_STEPS) + 128
    chroma = _quantised(F.avg_pool2d(planes[:, 1:].round(), 2), quality, _CHROMA_STEPS)
    chroma = F.interpolate(chroma.round(), scale_factor=2, mode="bilinear", align_corners=False)
    planes = torch.cat([luma.round().clamp(0, 255), chroma], 1)
    decoded = torch.einsum("cd,ndhw->nchw", _constant(_TO_RGB, picture.device), planes)
    return stored(decoded[:, :, :height, :width] / 255)


def blur(picture: Tensor, kernels: Tensor) -> Tensor:
    """Blur every picture by convolution with its own kernel: N x k x k, k odd.

    Borders are mirrored, without the edge itself.
    """
    count, channels, height, width = picture.shape
    if count == 0:
        return picture
    side = kernels.shape[-1]
    mirrored = picture.index_select(2, _mirrored(height, side // 2, picture.device))
    mirrored = mirrored.index_select(3, _mirrored(width, side // 2, picture.device))
    grouped = mirrored.reshape(1, count * channels, height + side - 1, width + side - 1)
    weight = kernels.flip(-1, -2)[:, None].repeat_interleave(channels, 0)
    return F.conv2d(grouped, weight, groups=count * channels).reshape(picture.shape)


def gaussian_kernels(sigma: Tensor, side: int) -> Tensor:
    """Make Gaussian kernels N x side x side, sum 1, of N standard deviations in pixels."""
    offsets = torch.arange(side, device=sigma.device) - side // 2
    row = torch.exp(-(offsets**2) / (2 * sigma[:, None] ** 2))
    row = row / row.sum(1, keepdim=True)
    return row[:, :, None] * row[:, None, :]


def motion_kernels(length: Tensor, angle: Tensor, side: int) -> Tensor:
    """Make kernels N x side x side, sum 1, of straight lines.

    They have N lengths in pixels and angles in degrees anticlockwise from right. A length of 1 or less is no motion; a
    line longer than `side` is cut.
    """
    points = torch.linspace(-0.5, 0.5, 8 * side + 1, device=length.device)
    steps = points * (length[:, None] - 1).clamp_min(0)
    radians = torch.deg2rad(angle)[:, None]
    across, down = steps * radians.cos() + side // 2, -steps * radians.sin() + side // 2
    places = torch.arange(side, device=length.device, dtype=torch.float32)
    columns = (1 - (across[:, :, None] - places).abs()).clamp_min(0)
    rows = (1 - (down[:, :, None] - places).abs()).clamp_min(0)
    kernels = torch.einsum("npr,npc->nrc", rows, columns)
    return kernels / kernels.sum((1, 2), keepdim=True)


def downscale(picture: Tensor, factor: int) -> Tensor:
    """Divide sides by a whole factor with the cubic kernel of super-resolution benchmarks: a = -0.5, antialiased.

    Sides that the factor does not divide are cut to a multiple of it first, as the benchmarks do; none becomes less
    than 1.
    """
    height, width = (max(1, side // factor) for side in picture.shape[-2:])
    return F.interpolate(
        picture[:, :, : height * factor, : width * factor],
        size=(height, width),
        mode="bicubic",
        align_corners=False,
        antialias=True,
    )


def missing_pixels(picture: Tensor, fraction: Strength, generator: Generator = None) -> Tensor:
    """Draw a mask N x 1 x H x W, 1 where a pixel is missing: each one with a chance of `fraction`."""
    draw = uniform((len(picture), 1, *picture.shape[-2:]), picture.device, generator)
    return (draw < _each(fraction, picture)).float()


def missing_boxes(picture: Tensor, count: int, side: Strength, generator: Generator = None) -> Tensor:
    """Draw a mask N x 1 x H x W, 1 inside `count` squares of `side` whole pixels at random places; they may overlap.

    Where the picture is smaller than a square, it reaches from edge to edge.
    """
    place = uniform((len(picture), count, 2), picture.device, generator)
    side = _each(side, picture)
    height, width = picture.shape[-2:]
    rows = torch.arange(height, device=picture.device)[None, None, :, None]
    columns = torch.arange(width, device=picture.device)[None, None, None, :]
    top = (place[:, :, :1, None] * ((height - side).clamp_min(0) + 1)).floor()
    left = (place[:, :, 1:, None] * ((width - side).clamp_min(0) + 1)).floor()
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return inside.any(1, keepdim=True).float()


def missing_strokes(picture: Tensor, count: int, thickness: Strength, generator: Generator = None) -> Tensor:
    """Draw a mask N x 1 x H x W, 1 on `count` scratches: bent lines of two straight parts, `thickness` pixels wide.

    A line thinner than a pixel is drawn one pixel wide.
    """
    height, width = picture.shape[-2:]
    rows = torch.arange(height, device=picture.device, dtype=torch.float32)
    columns = torch.arange(width, device=picture.device, dtype=torch.float32)
    mask = torch.zeros_like(picture[:, 0], dtype=torch.bool)
    points = stroke_points(height, width, len(picture), count, generator, picture.device)
    for start, end in stroke_parts(points):
        mask |= on_stroke(rows, columns, start, end, thickness)
    return mask[:, None].float()


def stroke_points(
    height: int, width: int, pictures: int, count: int, generator: Generator = None, device: torch.device = CPU
) -> Tensor:
    """Draw where scratches begin, bend and end in pictures of a size: pictures x count x 3 x 2 (row, column)."""
    points = uniform((pictures, count, 3, 2), device, generator)
    return points * _constant((height - 1.0, width - 1.0), device)


def stroke_parts(points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the beginnings and ends, N x 2 each, of the straight parts of scratches."""
    for stroke in points.unbind(1):
        yield stroke[:, 0], stroke[:, 1]
        yield stroke[:, 1], stroke[:, 2]


def on_stroke(rows: Tensor, columns: Tensor, start: Tensor, end: Tensor, thickness: Strength) -> Tensor:
    """Tell which pixels of h rows and w columns are on straight lines, `thickness` wide: bool, N x h x w."""
    # anything thinner than a pixel would have gaps
    radius = _each(thickness, start)[:, 0].clamp_min(1) / 2
    return _distance(rows[:, None], columns, start, end) <= radius


def low_light(picture: Tensor, exposure: Strength) -> Tensor:
    """Multiply linear light by `exposure` (1 leaves the picture as it is, 0.1 is dark); the result is sRGB again."""
    return to_srgb(to_linear(picture) * _each(exposure, picture))


def low_contrast(picture: Tensor, contrast: Strength, pivot: Strength) -> Tensor:
    """Draw values towards `pivot` (0..1) until `contrast` of their spread is left."""
    return torch.lerp(_each(pivot, picture).expand_as(picture), picture, _each(contrast, picture))


def colour_cast(picture: Tensor, gains: Tensor) -> Tensor:
    """Multiply linear light of R, G and B by gains, N x 3; the result is sRGB again."""
    return to_srgb(to_linear(picture) * gains[:, :, None, None])


def to_linear(picture: Tensor) -> Tensor:
    """Convert sRGB (IEC 61966-2-1) to linear light; negative values are scaled as those near black are."""
    high = ((picture.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(picture <= 0.04045, picture / 12.92, high)


def to_srgb(light: Tensor) -> Tensor:
    """Convert linear light to sRGB, the inverse of `to_linear`."""
    high = 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, light * 12.92, high)


def uniform(shape: tuple[int, ...], device: torch.device, generator: Generator) -> Tensor:
    """Draw numbers in 0..1 of a shape, float32, on a device."""
    if isinstance(generator, np.random.Generator):
        return torch.from_numpy(generator.random(shape, dtype=np.float32)).to(device)
    return torch.rand(shape, generator=generator, device=device)


def _quantised(plane: Tensor, quality: Strength, steps: tuple[tuple[int, ...], ...]) -> Tensor:
    quality = _each(quality, plane).clamp(1, 100)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    table = ((_constant(steps, plane.device) * percent + 50) / 100).floor().clamp(1, 255)[:, :, None, None]
    basis = _cosines(plane.device)
    count, channels, height, width = plane.shape
    blocks = plane.reshape(count, channels, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ ((coefficients / table).round() * table) @ basis
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(plane.shape)


@lru_cache(maxsize=8)
def _cosines(device: torch.device) -> Tensor:
    """Return the orthonormal 8-point DCT-II, 8 x 8."""
    row, column = torch.arange(8, device=device)[:, None], torch.arange(8, device=device)
    basis = torch.cos((2 * column + 1) * row * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    # copied to a GPU once: every copy from unpinned memory would wait for all that is under way there
    return torch.tensor(values, dtype=torch.float32, device=device)


def _mirrored(length: int, margin: int, device: torch.device) -> Tensor:
    """List the indices of a side with `margin` more before and after it, back and forth as often as that takes."""
    period = max(1, 2 * length - 2)
    places = torch.arange(-margin, length + margin, device=device) % period
    return torch.minimum(places, period - places) if length > 1 else places


def _distance(rows: Tensor, columns: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Compute pixels' distances from segments, N x H x W; start and end are N x 2 (row, column)."""
    along = (end - start)[:, :, None, None]
    down, across = rows - start[:, :1, None], columns - start[:, 1:, None]
    share = (down * along[:, 0] + across * along[:, 1]) / (along**2).sum(1).clamp_min(1e-6)
    share = share.clamp(0, 1)
    return ((down - share * along[:, 0]) ** 2 + (across - share * along[:, 1]) ** 2).sqrt()


def _each(strength: Strength, picture: Tensor) -> Tensor:
    """Return a strength as N x 1 x 1 x 1, or 1 x 1 x 1 x 1 for all."""
    if isinstance(strength, Tensor):
        return strength.to(picture.device, torch.float32).reshape(-1, 1, 1, 1)
    return torch.full((1, 1, 1, 1), float(strength), device=picture.device)


def _normal(shape: tuple[int, ...], device: torch.device, generator: Generator) -> Tensor:
    if isinstance(generator, np.random.Generator):
        return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)).to(device)
    return torch.randn(shape, generator=generator, device=device)
