"""A decoded picture, its metadata, and crops of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.errors import PictureError

#: told from a header how many pixels there will be and how many bytes each takes, before they are allocated; may wait,
#: and may raise PictureError; told twice of one picture, the first counts
Reserve = Callable[[int, int], None]


def at_once(pixels: int, pixel_bytes: int) -> None:
    """Do nothing: the `Reserve` of callers that need not wait for memory."""


@dataclass(frozen=True)
class Resolution:
    """How densely pixels lie, across and down: pixels per inch, or only their ratio where it is not `absolute`."""

    x: float
    y: float
    absolute: bool = True

    def scaled(self, across: float, down: float) -> Resolution:
        """Return the resolution of a picture that has so many times as many pixels on the same paper."""
        return Resolution(self.x * across, self.y * down, self.absolute)

    def turned(self, orientation: int) -> Resolution:
        """Return the resolution of a picture of an EXIF orientation (1..8) once it is upright."""
        return Resolution(self.y, self.x, self.absolute) if orientation >= 5 else self


@dataclass(frozen=True)
class ColourTag:
    """What a file says of its colours without an ICC profile.

    `cicp`: colour primaries, transfer characteristics (both as ITU-T H.273 numbers them) and whether samples have the
    full range. `gamma` is that of the samples (0.45455 for 1/2.2), `chromaticities` x and y of white, red, green and
    blue, as PNG's gAMA and cHRM give them.
    """

    cicp: tuple[int, int, bool] | None = None
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Metadata:
    """All that the file said of the picture besides its pixels.

    `format` is lower case ("jpeg", "png", "webp", "tiff", "bmp", "gif", "jpeg2000", "avif", "drk", …);
    `mode` is the file's own colour model ("grey", "grey+alpha", "rgb", "rgb+alpha", "palette", "cmyk", …);
    `bit_depth` is the bits per sample stored in the file (1..32; of a .drk stream those of its original);
    `orientation` is the EXIF orientation (1..8) found in the file; the pixels are already upright.
    `exif` is a raw EXIF block (beginning with the TIFF header, orientation reset to 1) or None;
    `xmp` is a packet (XML), `iptc` IPTC-IIM records, `text` pairs of a keyword and a text (PNG; comments).
    `damage` says in words what a decoder filled in or could not check, None where nothing was; `omitted` says what else
    the file holds that is not in the pixels, such as further bands or frames; `lost` names metadata that nothing here
    keeps ("extended XMP").
    """

    format: str
    mode: str
    bit_depth: int
    orientation: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    damage: str | None = None
    omitted: str | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    resolution: Resolution | None = None
    colour: ColourTag | None = None
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """One decoded picture.

    `pixels` is H x W x C, C-contiguous, uint8 or uint16 (full range 0..255 or 0..65535),
    C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha; alpha is straight (not premultiplied), always last.
    """

    key: str
    pixels: np.ndarray
    metadata: Metadata = field(default_factory=lambda: Metadata("none", "rgb", 8))

    @property
    def colour(self) -> np.ndarray:
        """The pixels without alpha: H x W x 1 or H x W x 3."""
        channels = self.pixels.shape[2]
        return self.pixels[:, :, : channels - 1] if channels in (2, 4) else self.pixels

    @property
    def alpha(self) -> np.ndarray | None:
        """The alpha channel, H x W x 1, or None."""
        return self.pixels[:, :, -1:] if self.pixels.shape[2] in (2, 4) else None


def kept(said: Metadata, which: str) -> Metadata:
    """Return metadata with "all" of them, with only what the colours mean ("colour"), or with "none"."""
    if which == "all":
        return said
    bare = Metadata(said.format, said.mode, said.bit_depth, said.orientation, damage=said.damage, omitted=said.omitted)
    return replace(bare, icc=said.icc, colour=said.colour) if which == "colour" else bare


def rescaled(source: Picture, developed: Picture) -> Metadata:
    """Return a source's metadata with the resolution at which the developed picture is as large on paper."""
    said = source.metadata
    if said.resolution is None:
        return said
    down, across = (a / b for a, b in zip(developed.pixels.shape[:2], source.pixels.shape[:2], strict=True))
    return replace(said, resolution=said.resolution.scaled(across, down))


@dataclass(frozen=True)
class Crop:
    """A part of a picture, in pixels."""

    left: int
    top: int
    width: int
    height: int


def parse_crop(text: str | None) -> Crop | None:
    """Parse `LEFT,TOP,WIDTH,HEIGHT`, four whole numbers, as a crop; None stays None."""
    return None if text is None else Crop(*map(int, text.split(",")))


def check_crop(crop: Crop, width: int, height: int) -> None:
    """Raise PictureError unless the crop lies within a picture of this size."""
    if min(crop.width, crop.height) < 1 or crop.left + crop.width > width or crop.top + crop.height > height:
        raise PictureError(
            "step_failed",
            f"the crop {crop.left},{crop.top},{crop.width},{crop.height} (left, top, width, height) leaves the "
            f"picture of {width} x {height} pixels",
        )


def cropped(picture: Picture, crop: Crop) -> Picture:
    """Return a picture cut down to a crop. Raises PictureError when the crop leaves the picture."""
    check_crop(crop, picture.pixels.shape[1], picture.pixels.shape[0])
    part = picture.pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    return replace(picture, pixels=np.ascontiguousarray(part))


def join_alpha(colour: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Join colour (H x W x 1|3) and alpha (H x W x 1 or None) into pixels again."""
    return colour if alpha is None else np.concatenate([colour, alpha], axis=2)


def to_8bit(pixels: np.ndarray) -> np.ndarray:
    """Round uint16 pixels (0..65535) to uint8 (0..255); uint8 passes through."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def unpremultiply(pixels: np.ndarray) -> np.ndarray:
    """Turn colour multiplied by alpha into straight colour: H x W x 2|4, uint8 or uint16; alpha is left as it is."""
    top = np.iinfo(pixels.dtype).max
    alpha = pixels[:, :, -1:].astype(np.uint64)
    colour = (pixels[:, :, :-1].astype(np.uint64) * top + alpha // 2) // np.maximum(alpha, 1)
    return np.concatenate([np.minimum(colour, top).astype(pixels.dtype), pixels[:, :, -1:]], axis=2)
