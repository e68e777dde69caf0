"""Degradations, for measuring restorations: noise, JPEG artefacts, blur, shrinking and holes.

Every step takes H x W x 1|3, uint8 (0..255) or uint16 (0..65535), and gives the same dtype back. Strengths are in
8-bit levels at both depths. The seeded ones draw from the generator they are given and nothing else, so the same
seed and key give the same picture in every run, in any order, on any number of machines.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from pipeline.picture import to_8bit
from pipeline.steps import codecs
from pipeline.steps.arrays import level_step, row_slices, to_levels, white_level, with_channels
from pipeline.steps.geometry import resample
from pipeline.steps.registry import Parameters, pixel_step


class Seeded(Parameters):
    seed: int = Field(
        default=0, ge=0, lt=1 << 63, description="seed; together with the picture's key it fixes what is drawn"
    )


class GaussianNoise(Seeded):
    sigma: float = Field(default=25.0, ge=0, le=255, description="standard deviation of the noise, in 8-bit levels")


class PoissonNoise(Seeded):
    photons: float = Field(
        default=100.0, gt=0, le=1e9, description="photons that a white sample stands for; fewer is noisier"
    )


class SaltAndPepper(Seeded):
    fraction: float = Field(
        default=0.05, ge=0, le=1, description="fraction of the pixels hit, half of them white, half black"
    )


class JpegArtifacts(Parameters):
    quality: int = Field(default=10, ge=1, le=100, description="JPEG quality")


class Blur(Parameters):
    kind: Literal["gaussian", "motion"] = Field(
        default="gaussian", description="gaussian uses sigma; motion length and angle"
    )
    sigma: float = Field(default=1.6, ge=0.1, le=100, description="standard deviation of the Gaussian, in pixels")
    length: float = Field(default=15.0, ge=1, le=255, description="length of the motion, in pixels")
    angle: float = Field(
        default=0.0, ge=-360, le=360, description="direction of the motion, degrees anticlockwise from right"
    )


class Downscale(Parameters):
    factor: float = Field(default=2.0, ge=1, le=64, description="how many times smaller each side becomes")
    antialias: bool = Field(
        default=True, description="smooth before sampling, as a camera does; false lets detail alias"
    )


class Holes(Seeded):
    count: int = Field(default=8, ge=0, le=10_000, description="number of square holes; they may overlap")
    size: int = Field(
        default=16, ge=1, le=10_000, description="side of a hole in pixels; not used where fraction is given"
    )
    fraction: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="area of all holes together as a fraction of the picture, overlaps counted twice",
    )


def generator_for(seed: int, key: str) -> np.random.Generator:
    """The generator a seeded step is given for one picture: the same on every platform and in every process.

    Seeded with SHA-256 of the seed and the picture's key. Every seeded step of a branch gets a fresh one, so
    steps with the same seed draw the same things.
    """
    digest = hashlib.sha256(f"{seed}\n{key}".encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


@pixel_step(GaussianNoise, seeded=True)
def gaussian_noise(pixels: np.ndarray, parameters: GaussianNoise, generator: np.random.Generator) -> np.ndarray:
    """Additive white Gaussian noise, rounded and clipped to the dtype as a real file would be."""
    strength = np.float32(parameters.sigma * level_step(pixels))
    result = np.empty_like(pixels, order="C")
    for rows in row_slices(pixels):
        noise = generator.standard_normal(pixels[rows].shape, dtype=np.float32)
        result[rows] = to_levels(pixels[rows] + noise * strength, pixels.dtype)
    return result


@pixel_step(PoissonNoise, seeded=True)
def poisson_noise(pixels: np.ndarray, parameters: PoissonNoise, generator: np.random.Generator) -> np.ndarray:
    """Shot noise: each sample becomes a Poisson count of photons, scaled back, rounded and clipped."""
    gain = white_level(pixels) / parameters.photons
    result = np.empty_like(pixels, order="C")
    for rows in row_slices(pixels):
        result[rows] = to_levels(generator.poisson(pixels[rows] / gain) * gain, pixels.dtype)
    return result


@pixel_step(SaltAndPepper, seeded=True)
def salt_and_pepper(pixels: np.ndarray, parameters: SaltAndPepper, generator: np.random.Generator) -> np.ndarray:
    """Black and white pixels at random places, all channels of a pixel together."""
    result = pixels.copy(order="C")
    for rows in row_slices(pixels):
        draw = generator.random(pixels[rows].shape[:2])
        result[rows][draw < parameters.fraction] = white_level(pixels)
        result[rows][draw < parameters.fraction / 2] = 0
    return result


@pixel_step(JpegArtifacts)
def jpeg_artifacts(pixels: np.ndarray, parameters: JpegArtifacts) -> np.ndarray:
    """What a round trip through JPEG (chroma halved, 4:2:0) leaves.

    JPEG has 8 bits: uint16 comes back as uint16 with 8-bit values (multiples of 257). Raises
    PictureError("step_failed") when a side is longer than JPEG allows (65500).
    """
    settings = codecs.Jpeg(quality=parameters.quality, subsampling="4:2:0")
    decoded = codecs.decode_opencv(codecs.encode_jpeg(to_8bit(pixels), settings))
    return decoded if pixels.dtype == np.uint8 else decoded.astype(np.uint16) * np.uint16(257)


@pixel_step(Blur)
def blur(pixels: np.ndarray, parameters: Blur) -> np.ndarray:
    """Gaussian blur, or the smear of a straight motion."""
    if parameters.kind == "gaussian":
        return with_channels(cv2.GaussianBlur(pixels, (0, 0), parameters.sigma))
    return with_channels(cv2.filter2D(pixels, -1, motion_kernel(parameters.length, parameters.angle)))


@pixel_step(Downscale, resizes=True)
def downscale(pixels: np.ndarray, parameters: Downscale) -> np.ndarray:
    """Shrink by a factor with the cubic kernel of super-resolution benchmarks (a = -0.5, antialiased).

    Sides are rounded and never become less than 1. Without antialiasing every new pixel is the nearest old one.
    """
    height, width = (max(1, round(side / parameters.factor)) for side in pixels.shape[:2])
    if parameters.antialias:
        return resample(pixels, width, height, "cubic")
    return with_channels(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


@pixel_step(Holes, seeded=True)
def holes(pixels: np.ndarray, parameters: Holes, generator: np.random.Generator) -> np.ndarray:
    """Black square holes at random places; `inpaint` with mask: holes and the same settings finds them again."""
    result = pixels.copy(order="C")
    result[hole_mask(pixels.shape[0], pixels.shape[1], parameters, generator)] = 0
    return result


def hole_mask(height: int, width: int, parameters: Holes, generator: np.random.Generator) -> np.ndarray:
    """Where the holes are: bool, H x W. Fixed by the size, the parameters and the state of the generator."""
    side = parameters.size
    if parameters.fraction is not None and parameters.count:
        side = max(1, round((parameters.fraction * height * width / parameters.count) ** 0.5))
    tall, wide = min(side, height), min(side, width)
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(parameters.count):
        top, left = generator.integers(height - tall + 1), generator.integers(width - wide + 1)
        mask[top : top + tall, left : left + wide] = True
    return mask


def motion_kernel(length: float, angle: float) -> np.ndarray:
    """A line of `length` pixels through the centre, drawn by bilinear splats: float32, odd sides, sum 1."""
    steps = np.linspace(-(length - 1) / 2, (length - 1) / 2, 8 * int(np.ceil(length)) + 1)
    radius = int(np.ceil(length / 2)) + 1
    across = steps * np.cos(np.radians(angle)) + radius
    down = -steps * np.sin(np.radians(angle)) + radius
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    left, top = np.floor(across).astype(int), np.floor(down).astype(int)
    for right in (0, 1):
        for below in (0, 1):
            share = np.abs(1 - right - (across - left)) * np.abs(1 - below - (down - top))
            np.add.at(kernel, (top + below, left + right), share)
    return (kernel / kernel.sum()).astype(np.float32)
