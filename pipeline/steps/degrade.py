"""Degradations, for measuring restorations: noise, JPEG artefacts, blur, bad light, shrinking and holes.

Every step takes H x W x 1|3, uint8 (0..255) or uint16 (0..65535), and gives the same dtype back. Strengths are in
8-bit levels at both depths. The seeded ones draw from the generator they are given and nothing else, so the same
seed and key give the same picture in every run, in any order, on any number of machines. The degradations that
restoration networks are trained on are defined in `models.restoration.degradations`; their steps here are computed by
it, and import PyTorch when they run, or are compared with it in a test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from pipeline.pictures.picture import to_8bit
from pipeline.steps import codecs
from pipeline.steps.arrays import row_slices, to_levels, white_level, with_channels
from pipeline.steps.geometry import resample
from pipeline.steps.registry import Parameters, pixel_step

if TYPE_CHECKING:
    from torch import Tensor


class Seeded(Parameters):
    """Parameters of a step that draws at random."""

    seed: int = Field(
        default=0, ge=0, lt=1 << 63, description="seed; together with the picture's key it fixes what is drawn"
    )


class GaussianNoise(Seeded):
    """Parameters of `gaussian_noise`."""

    sigma: float = Field(default=25.0, ge=0, le=255, description="standard deviation of the noise, in 8-bit levels")


class PoissonNoise(Seeded):
    """Parameters of `poisson_noise`."""

    photons: float = Field(
        default=100.0, gt=0, le=1e9, description="photons that a white sample stands for; fewer is noisier"
    )


class CameraNoise(Seeded):
    """Parameters of `camera_noise`."""

    photons: float = Field(
        default=300.0, gt=0, le=1e9, description="photons that a white sample stands for; fewer is noisier"
    )
    sigma: float = Field(default=4.0, ge=0, le=255, description="standard deviation of read noise, in 8-bit levels")
    correlation: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of the noise that neighbours have in common, as demosaicking leaves it",
    )


class SaltAndPepper(Seeded):
    """Parameters of `salt_and_pepper`."""

    fraction: float = Field(
        default=0.05, ge=0, le=1, description="fraction of the pixels hit, half of them white, half black"
    )


class JpegArtifacts(Parameters):
    """Parameters of `jpeg_artifacts`."""

    quality: int = Field(default=10, ge=1, le=100, description="JPEG quality")


class Blur(Parameters):
    """Parameters of `blur`."""

    kind: Literal["gaussian", "motion"] = Field(
        default="gaussian", description="gaussian uses sigma; motion length and angle"
    )
    sigma: float = Field(default=1.6, ge=0.1, le=100, description="standard deviation of the Gaussian, in pixels")
    length: float = Field(default=15.0, ge=1, le=255, description="length of the motion, in pixels")
    angle: float = Field(
        default=0.0, ge=-360, le=360, description="direction of the motion, degrees anticlockwise from right"
    )


class Downscale(Parameters):
    """Parameters of `downscale`."""

    factor: float = Field(default=2.0, ge=1, le=64, description="how many times smaller each side becomes")
    antialias: bool = Field(
        default=True, description="smooth before sampling, as a camera does; false lets detail alias"
    )


class LowLight(Parameters):
    """Parameters of `low_light`."""

    exposure: float = Field(default=0.2, gt=0, le=1, description="factor on linear light; 1 changes nothing")


class LowContrast(Parameters):
    """Parameters of `low_contrast`."""

    contrast: float = Field(default=0.5, ge=0, le=1, description="share of the contrast that is left")
    pivot: float = Field(default=0.5, ge=0, le=1, description="grey that values are drawn towards, 0 black to 1 white")


class ColourCast(Parameters):
    """Parameters of `colour_cast`."""

    red: float = Field(default=1.25, gt=0, le=10, description="factor on red's linear light")
    green: float = Field(default=1.0, gt=0, le=10, description="factor on green's linear light")
    blue: float = Field(default=0.75, gt=0, le=10, description="factor on blue's linear light")


class RealisticDegradation(CameraNoise):
    """Parameters of `realistic_degradation`."""

    factor: int = Field(default=2, ge=1, le=8, description="how many times smaller each side becomes")
    blur: float = Field(default=1.0, ge=0.1, le=100, description="standard deviation of a Gaussian, in pixels")
    quality: int = Field(default=70, ge=1, le=100, description="JPEG quality")


class Holes(Seeded):
    """Parameters of `holes`."""

    kind: Literal["squares", "scratches"] = Field(
        default="squares", description="squares, or scratches: bent lines of two straight parts"
    )
    count: int = Field(default=8, ge=0, le=10_000, description="number of holes; they may overlap")
    size: int = Field(
        default=16,
        ge=1,
        le=10_000,
        description="side of a square, or width of a scratch, in pixels; not used where fraction is given",
    )
    fraction: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="area of all squares together as a fraction of the picture, overlaps counted twice",
    )

    @model_validator(mode="after")
    def _fraction_is_of_squares(self) -> Self:
        if self.fraction is not None and self.kind != "squares":
            raise ValueError("fraction is for squares; give scratches a count and a size")
        return self


def generator_for(seed: int, key: str) -> np.random.Generator:
    """Return the generator that a seeded step is given for one picture, alike on every platform and in every process.

    Seeded with SHA-256 of the seed and the picture's key. Every seeded step of a branch gets a fresh one, so
    steps with the same seed draw the same things.
    """
    digest = hashlib.sha256(f"{seed}\n{key}".encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


@pixel_step(GaussianNoise, seeded=True, version=2)
def gaussian_noise(pixels: np.ndarray, parameters: GaussianNoise, generator: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise, rounded and clipped to the dtype as a real file would be."""
    from models.restoration import degradations as spoil

    return _in_rows(pixels, lambda rows: spoil.gaussian_noise(rows, parameters.sigma, generator))


@pixel_step(PoissonNoise, seeded=True)
def poisson_noise(pixels: np.ndarray, parameters: PoissonNoise, generator: np.random.Generator) -> np.ndarray:
    """Add shot noise: each sample becomes a Poisson count of photons, scaled back, rounded and clipped."""
    gain = white_level(pixels) / parameters.photons
    result = np.empty_like(pixels, order="C")
    for rows in row_slices(pixels):
        result[rows] = to_levels(generator.poisson(pixels[rows] / gain) * gain, pixels.dtype)
    return result


@pixel_step(CameraNoise, seeded=True)
def camera_noise(pixels: np.ndarray, parameters: CameraNoise, generator: np.random.Generator) -> np.ndarray:
    """Add shot noise and read noise, some of it common to neighbours, rounded and clipped."""
    from models.restoration import degradations as spoil

    strengths = (parameters.photons, parameters.sigma, parameters.correlation)
    return _in_rows(pixels, lambda rows: spoil.camera_noise(rows, *strengths, generator))


@pixel_step(SaltAndPepper, seeded=True)
def salt_and_pepper(pixels: np.ndarray, parameters: SaltAndPepper, generator: np.random.Generator) -> np.ndarray:
    """Set pixels at random places to black or white, all channels of a pixel together."""
    result = pixels.copy(order="C")
    for rows in row_slices(pixels):
        draw = generator.random(pixels[rows].shape[:2])
        result[rows][draw < parameters.fraction] = white_level(pixels)
        result[rows][draw < parameters.fraction / 2] = 0
    return result


@pixel_step(JpegArtifacts, mixes="neighbours")
def jpeg_artifacts(pixels: np.ndarray, parameters: JpegArtifacts) -> np.ndarray:
    """Take the picture through JPEG and back (chroma halved, 4:2:0), which leaves its artefacts.

    JPEG has 8 bits: uint16 comes back as uint16 with 8-bit values (multiples of 257). Raises
    PictureError("step_failed") when a side is longer than JPEG allows (65500).
    """
    settings = codecs.Jpeg(quality=parameters.quality, subsampling="4:2:0")
    return _in_depth(codecs.decode_opencv(codecs.encode_jpeg(to_8bit(pixels), settings)), pixels.dtype)


@pixel_step(Blur, version=2, mixes="means")
def blur(pixels: np.ndarray, parameters: Blur) -> np.ndarray:
    """Blur with a Gaussian, or smear along a straight motion."""
    if parameters.kind == "gaussian":
        # left to itself, OpenCV cuts the Gaussian shorter in 8-bit pictures than in 16-bit ones
        side = 2 * int(np.ceil(4 * parameters.sigma)) + 1
        return with_channels(cv2.GaussianBlur(pixels, (side, side), parameters.sigma))
    import torch

    from models.restoration import degradations as spoil

    side = 2 * int(np.ceil(parameters.length / 2)) + 3
    kernels = spoil.motion_kernels(torch.tensor([parameters.length]), torch.tensor([parameters.angle]), side)
    return with_channels(cv2.filter2D(pixels, -1, kernels[0].numpy()))


@pixel_step(LowLight)
def low_light(pixels: np.ndarray, parameters: LowLight) -> np.ndarray:
    """Darken by a factor on linear light (sRGB assumed), as if exposed for a shorter time."""
    from models.restoration import degradations as spoil

    return _in_rows(pixels, lambda rows: spoil.low_light(rows, parameters.exposure))


@pixel_step(LowContrast)
def low_contrast(pixels: np.ndarray, parameters: LowContrast) -> np.ndarray:
    """Flatten the contrast: all values are drawn towards one grey."""
    from models.restoration import degradations as spoil

    return _in_rows(pixels, lambda rows: spoil.low_contrast(rows, parameters.contrast, parameters.pivot))


@pixel_step(ColourCast)
def colour_cast(pixels: np.ndarray, parameters: ColourCast) -> np.ndarray:
    """Multiply the linear light of red, green and blue (sRGB assumed) by a factor each; grey pictures keep theirs."""
    if pixels.shape[2] == 1:
        return pixels.copy(order="C")
    import torch

    from models.restoration import degradations as spoil

    gains = torch.tensor([[parameters.red, parameters.green, parameters.blue]])
    return _in_rows(pixels, lambda rows: spoil.colour_cast(rows, gains))


@pixel_step(Downscale, resizes=True, version=2, mixes="means")
def downscale(pixels: np.ndarray, parameters: Downscale) -> np.ndarray:
    """Shrink by a factor with the cubic kernel of super-resolution benchmarks (a = -0.5, antialiased).

    Sides are rounded and never become less than 1. Without antialiasing every new pixel is the nearest old one.
    """
    height, width = (max(1, round(side / parameters.factor)) for side in pixels.shape[:2])
    if parameters.antialias:
        return resample(pixels, width, height, "cubic", exact=True)
    return with_channels(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


@pixel_step(RealisticDegradation, seeded=True, resizes=True, mixes="neighbours")
def realistic_degradation(
    pixels: np.ndarray, parameters: RealisticDegradation, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Blur, shrink, add a camera's noise and compress with JPEG: what a picture from the web has been through.

    JPEG has 8 bits: uint16 comes back as uint16 with 8-bit values. Without a generator, as alpha comes, the picture is
    only made smaller.
    Raises PictureError("step_failed") when a side of the result is longer than JPEG allows (65500).
    """
    smaller = Downscale(factor=parameters.factor)
    if generator is None:
        return downscale(pixels, smaller)
    small = downscale(blur(to_8bit(pixels), Blur(sigma=parameters.blur)), smaller)
    noisy = camera_noise(small, parameters, generator)
    return _in_depth(jpeg_artifacts(noisy, JpegArtifacts(quality=parameters.quality)), pixels.dtype)


@pixel_step(Holes, seeded=True)
def holes(pixels: np.ndarray, parameters: Holes, generator: np.random.Generator) -> np.ndarray:
    """Make black holes at random places, which `inpaint` and `repair` find again (mask: holes, same settings)."""
    result = pixels.copy(order="C")
    result[hole_mask(pixels.shape[0], pixels.shape[1], parameters, generator)] = 0
    return result


def hole_mask(height: int, width: int, parameters: Holes, generator: np.random.Generator) -> np.ndarray:
    """Return where the holes are: bool, H x W. Fixed by the size, the parameters and the state of the generator."""
    if parameters.kind == "scratches":
        return _scratch_mask(height, width, parameters, generator)
    side = parameters.size
    if parameters.fraction is not None and parameters.count:
        side = max(1, round((parameters.fraction * height * width / parameters.count) ** 0.5))
    tall, wide = min(side, height), min(side, width)
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(parameters.count):
        top, left = generator.integers(height - tall + 1), generator.integers(width - wide + 1)
        mask[top : top + tall, left : left + wide] = True
    return mask


def _scratch_mask(height: int, width: int, parameters: Holes, generator: np.random.Generator) -> np.ndarray:
    import torch

    from models.restoration import degradations as spoil

    mask = np.zeros((height, width), dtype=bool)
    points = spoil.stroke_points(height, width, 1, parameters.count, generator)
    for start, end in spoil.stroke_parts(points):
        # only what a line may touch is looked at, a few rows at a time
        low, high = torch.minimum(start, end)[0].tolist(), torch.maximum(start, end)[0].tolist()
        top, left = (max(0, int(place - parameters.size)) for place in low)
        bottom, right = (int(place + parameters.size) + 1 for place in high)
        around = mask[top:bottom, left:right]
        columns = torch.arange(left, left + around.shape[1], dtype=torch.float32)
        for part in row_slices(around):
            rows = torch.arange(top, top + around.shape[0], dtype=torch.float32)[part]
            around[part] |= spoil.on_stroke(rows, columns, start, end, parameters.size)[0].numpy()
    return mask


def _in_depth(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return 8-bit values in a dtype: for uint16 they are multiplied by 257."""
    return pixels if dtype == np.uint8 else pixels.astype(np.uint16) * np.uint16(257)


def _in_rows(pixels: np.ndarray, change: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Change a picture a few rows at a time, as 1 x C x h x w float32 in 0..1; rounded and clipped."""
    import torch

    white = white_level(pixels)
    result = np.empty_like(pixels, order="C")
    for rows in row_slices(pixels, samples=1 << 20):
        picture = torch.from_numpy(pixels[rows].astype(np.float32)).permute(2, 0, 1)[None] / white
        result[rows] = to_levels((change(picture)[0] * white).permute(1, 2, 0).numpy(), pixels.dtype)
    return result
