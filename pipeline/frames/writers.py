"""Writing pictures, one after the other, to one file: GIF, animated WebP and PNG, pages of TIFF, video, `.npy`.

| format | samples            | alpha           | timing                | kept of each frame                          |
|--------|--------------------|-----------------|-----------------------|---------------------------------------------|
| gif    | 256 colours        | on or off       | hundredths a frame    | exactly, if it has at most 256 colours      |
| webp   | 8 bits             | yes             | milliseconds a frame  | with loss; exactly at quality 100           |
| apng   | 8 bits             | yes             | milliseconds a frame  | exactly                                     |
| tiff   | 8, 16 bits         | yes             | none                  | exactly, with its profile; sizes may differ |
| mp4, mov | 8 bits           | laid over white | one rate              | MPEG-4 Part 2, with loss                    |
| avi    | 8 bits             | laid over white | one rate              | Motion JPEG, with loss                      |
| webm   | 8 bits             | laid over white | one rate              | VP9, with loss                              |
| mkv    | 8 bits             | laid over white | one rate              | FFV1, exactly                               |
| npy    | 8, 16 bits         | yes             | none                  | exactly; all of one kind                    |

Frames of GIF, WebP and PNG that equal the one before are joined with it by the libraries: they play the same. Odd sides
of a video are made even.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import PictureError
from pipeline.frames.tiff_pages import PageWriter
from pipeline.frames.video import CODECS, write_video
from pipeline.pictures import tiff
from pipeline.pictures.encode import DEFAULT_QUALITY
from pipeline.pictures.metadata.embed import for_pillow, into_png
from pipeline.pictures.metadata.fit import fit
from pipeline.pictures.picture import Metadata, Picture, to_8bit
from pipeline.pictures.transparency import eased, over

#: formats that frames can be put together in, and the endings of the files they give
ENDINGS = {
    "gif": (".gif",),
    "webp": (".webp",),
    "apng": (".apng", ".png"),
    "tiff": (".tiff", ".tif"),
    "mp4": (".mp4", ".m4v"),
    "mov": (".mov",),
    "avi": (".avi",),
    "webm": (".webm",),
    "mkv": (".mkv",),
    "npy": (".npy",),
}

#: what holds their metadata, by its name in `pipeline.pictures.metadata.fit`; videos and stacks hold none
_CONTAINERS = {"gif": "gif", "webp": "webp", "apng": "png"}

#: most bytes that the frames of an animation may take, which its library holds all at once
ANIMATION_LIMIT = 2_000_000_000
#: most frames of a video, whose slowest frames are repeated to keep the time
_REPEATS_LIMIT = 1_000_000
_FASTEST = 100.0


def write_frames(
    path: str, format: str, frames: Iterable[Picture], timing: Sequence[float], quality: int | None
) -> tuple[str, ...]:
    """Write frames, in their order, to a local file; return the names of metadata that it could not hold.

    An animation has the metadata of its first frame, a TIFF those of each.

    `timing` are the seconds that each is shown (where the format has time). `quality` is 1..100, of WebP alone. Frames
    are taken one at a time, but GIF, WebP and PNG are held in memory whole. Raises PictureError: unsupported (sizes or
    kinds of frames differ where they must not, more frames a second than can be), too_large.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise PictureError("unsupported", f"{format}: there is no frame")
    frames = itertools.chain([first], frames)
    if format == "tiff":
        return _write_pages(path, frames)
    height, width, channels = first.pixels.shape
    fitted = fit(first.metadata, _CONTAINERS.get(format, ""), width, height, max(channels, 3))
    if format == "npy":
        _write_stack(path, frames, len(timing))
    elif format in CODECS:
        rate, repeats = steady(timing)
        shown = (over(to_8bit(one.pixels), 1) for one in _of_one_size(frames))
        in_colour = (np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels for pixels in shown)
        times = zip(in_colour, repeats, strict=True)
        write_video(path, format, rate, itertools.chain.from_iterable(itertools.repeat(*pair) for pair in times))
    else:
        _write_animation(path, format, frames, timing, quality, fitted.metadata)
    return fitted.dropped


def steady(timing: Sequence[float]) -> tuple[float, list[int]]:
    """Return a rate at which frames shown for so many seconds can follow each other, and how often each is repeated.

    The rate is that of the shortest frame, 100 a second at most; where all are alike every frame is shown once.
    Raises PictureError ("unsupported") for more than a million frames.
    """
    shortest = max(min((seconds for seconds in timing if seconds > 0), default=0.1), 1 / _FASTEST)
    repeats = [max(1, round(seconds / shortest)) for seconds in timing]
    if sum(repeats) > _REPEATS_LIMIT:
        raise PictureError("unsupported", "some frames are shown so long that they would be repeated a million times")
    return 1 / shortest, repeats


def _write_pages(path: str, frames: Iterable[Picture]) -> tuple[str, ...]:
    dropped: dict[str, None] = {}
    with open(path, "wb") as file:
        writer = PageWriter(file)
        for one in frames:
            pixels = one.pixels
            if pixels.shape[2] == 2 and pixels.dtype == np.uint16:
                # hardly any reader knows grey with alpha in 16 bits
                pixels = pixels[:, :, [0, 0, 0, 1]]
            height, width, channels = pixels.shape
            fitted = fit(one.metadata, "tiff", width, height, channels)
            dropped |= dict.fromkeys(fitted.dropped)
            writer.add(tiff.encode(pixels, fitted.metadata))
    return tuple(dropped)


def _write_stack(path: str, frames: Iterable[Picture], count: int) -> None:
    kind: tuple[tuple[int, ...], np.dtype] | None = None
    with open(path, "wb") as file:
        for number, one in enumerate(frames):
            pixels = one.pixels
            if kind is None:
                kind = (pixels.shape, pixels.dtype)
                shape = (count, *(pixels.shape if pixels.shape[2] > 1 else pixels.shape[:2]))
                header: Any = {"descr": pixels.dtype.newbyteorder("<").str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            if (pixels.shape, pixels.dtype) != kind:
                raise PictureError(
                    "unsupported",
                    f"npy: frame {number} is {pixels.shape} {pixels.dtype}, those before {kind[0]} {kind[1]}; "
                    "put them together as tiff, or develop them to one kind",
                )
            file.write(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())


def _write_animation(
    path: str, format: str, frames: Iterable[Picture], timing: Sequence[float], quality: int | None, said: Metadata
) -> None:
    # the libraries go through them more than once
    lossless = format == "apng" or (format == "webp" and quality == 100)
    first, *rest = _images(format, frames, lossless)
    milliseconds = [round(1000 * seconds) for seconds in timing]
    options: dict[str, Any] = {"save_all": True, "duration": milliseconds, "loop": 0}
    if format == "gif":
        # what a frame does not show is not to shine through from the one before
        options |= {"disposal": 2 if "transparency" in first.info else 0, "optimize": False}
    elif format == "webp":
        quality = quality or DEFAULT_QUALITY["webp"]
        options |= {"quality": quality, "method": 2, "lossless": lossless, "exact": True} | for_pillow(said)
    try:
        first.save(path, "PNG" if format == "apng" else format.upper(), append_images=rest, **options)
    except (OSError, ValueError) as error:
        raise PictureError("unsupported", f"{format} cannot hold these frames: {error}") from error
    if format == "apng":
        plain = Path(path).read_bytes()
        Path(path).write_bytes(into_png(plain, said))


def _images(format: str, frames: Iterable[Picture], lossless: bool) -> Iterator[Image.Image]:
    held = 0
    for one in _of_one_size(frames):
        pixels = to_8bit(one.pixels if lossless else eased(one.pixels))
        held += 4 * pixels.shape[0] * pixels.shape[1]
        if held > ANIMATION_LIMIT:
            said = f"more than {ANIMATION_LIMIT // 1_000_000:,} MB of frames; put them together as mp4, mkv or tiff"
            raise PictureError("too_large", f"{format}: {said}")
        # of one mode, so that the libraries need not turn one into another
        grey = pixels.shape[2] <= 2
        colour = np.repeat(pixels[:, :, :1], 3, axis=2) if grey else pixels[:, :, :3]
        if pixels.shape[2] in (2, 4):
            colour = np.concatenate([colour, pixels[:, :, -1:]], axis=2)
        yield _with_palette(colour) if format == "gif" else Image.fromarray(colour)


def _with_palette(pixels: np.ndarray) -> Image.Image:
    """Reduce H x W x 3|4 pixels to 256 colours: their own if they fit, and one for what is transparent."""
    opaque = pixels[:, :, 3] >= 128 if pixels.shape[2] == 4 else np.ones(pixels.shape[:2], bool)
    room = 256 - (not opaque.all())
    packed = pixels[:, :, :3].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, places = np.unique(packed[opaque], return_inverse=True)
    indices = np.full(pixels.shape[:2], room, np.uint8) if room < 256 else np.empty(pixels.shape[:2], np.uint8)
    if len(colours) <= room:
        indices[opaque] = places
        palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8)
    else:
        reduced = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])).quantize(room)
        indices[opaque] = np.asarray(reduced)[opaque]
        palette = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
    full = np.zeros((256, 3), np.uint8)
    full[: len(palette)] = palette
    height, width = pixels.shape[:2]
    image = Image.frombytes("P", (width, height), indices.tobytes())
    image.putpalette(full.tobytes())
    if room < 256:
        image.info["transparency"] = room
    return image


def _of_one_size(frames: Iterable[Picture]) -> Iterator[Picture]:
    size: tuple[int, ...] = ()
    for number, one in enumerate(frames):
        size = size or one.pixels.shape[:2]
        if one.pixels.shape[:2] != size:
            height, width = one.pixels.shape[:2]
            said = f"frame {number} has {width} x {height} pixels, those before {size[1]} x {size[0]}"
            raise PictureError("unsupported", f"{said}; put them together as tiff")
        yield one
