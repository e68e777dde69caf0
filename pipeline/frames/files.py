"""Files that hold several pictures: animations, pages, videos, stacks of slices; how many there are, and each of them.

| what                            | counted by                              | a frame has                              |
|---------------------------------|-----------------------------------------|------------------------------------------|
| GIF, animated WebP, APNG, AVIFS | its structure                           | its duration; composed as a viewer would |
| TIFF                            | its chain of directories                | all that a TIFF of one page would have   |
| MP4, MOV, AVI, MKV, WebM        | its header                              | 1 / rate as its duration                 |
| .npy, idx (.gz)                 | its header                              |                                          |
"""

from __future__ import annotations

import gzip
import mmap
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
from PIL import AvifImagePlugin, GifImagePlugin, PngImagePlugin, WebPImagePlugin

from pipeline.errors import PictureError
from pipeline.frames.arrays import idx_layout, npy_layout, slice_of
from pipeline.frames.tiff_pages import page_offsets, single_page
from pipeline.frames.video import Video, video_format
from pipeline.pictures.decode import decode, explain, turn_upright
from pipeline.pictures.headers import PNG_SIGNATURE, profile_fits
from pipeline.pictures.metadata.exif import orientation_of
from pipeline.pictures.metadata.read import describe
from pipeline.pictures.picture import Metadata, Picture, Reserve, at_once

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
ARRAYS = (".npy", ".idx", ".idx.gz", "-ubyte", "-ubyte.gz")
#: how the names of files end that may hold several pictures
SUFFIXES = (".gif", ".webp", ".apng", ".avifs", ".tif", ".tiff", *VIDEOS, *ARRAYS)

_HEAD = 64


class _Gif(GifImagePlugin.GifImageFile):
    """Pillow's GIF reader, which here refuses frames that reach outside the canvas.

    Pillow would make the canvas as large as such a frame says, after its size has been checked.
    """

    opened = False
    canvas: tuple[int, int]

    def _open(self) -> None:
        super()._open()
        self.opened = True

    @property
    def _size(self) -> tuple[int, int]:
        return self.canvas

    @_size.setter
    def _size(self, size: tuple[int, int]) -> None:
        if self.opened:
            raise PictureError("corrupt", f"gif: a frame reaches to {size}, outside the canvas of {self.canvas}")
        self.canvas = size


_ANIMATIONS: dict[str, Any] = {
    "gif": _Gif,
    "webp": WebPImagePlugin.WebPImageFile,
    "png": PngImagePlugin.PngImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
}
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Frame:
    """One frame, without a key, and for how long it is shown, in seconds; None where the file does not say."""

    picture: Picture
    duration_s: float | None


class Frames(Protocol):
    """An open file of frames.

    Where `in_order`, `read` is quick only for frames after the last one read, and must not be called from several
    threads at once. `pixels` is the number of pixels of any frame; 0 where frames differ: each then tells `reserve`
    its own.
    """

    in_order: bool
    pixels: int

    def read(self, frame: int, reserve: Reserve = at_once) -> Frame:
        """Read a frame by its number, from 0; `reserve` may wait for memory. Raises PictureError."""

    def close(self) -> None:
        """Close the file."""


def count_frames(file: BinaryIO, most: int) -> int:
    """Count the pictures in a file: 1 where it is of no kind that may hold several; counting may end at `most` + 1.

    Reads headers and structure, decodes nothing. Raises PictureError.
    """
    kind = _kind(file)
    file.seek(0)
    if kind == "tiff":
        # reduced copies alone: of a camera raw, whose picture lies elsewhere
        return max(1, len(page_offsets(file, most)))
    if kind == "npy":
        return npy_layout(file).count
    if kind == "idx":
        return idx_layout(file).count
    if kind == "video":
        video = Video(file)
        video.close()
        return video.count
    if kind in _ANIMATIONS:
        try:
            return int(_ANIMATIONS[kind](file).n_frames)
        except Exception as error:
            raise explain(error, kind) from error
    return 1


def open_frames(path: str, pixel_limit: int) -> Frames:
    """Open a local file of frames of at most `pixel_limit` pixels. Raises PictureError, OSError."""
    with open(path, "rb") as file:
        kind = _kind(file)
    if kind == "tiff":
        return _Pages(path, pixel_limit)
    if kind in ("npy", "idx"):
        return _Slices(path, kind, pixel_limit)
    if kind in _ANIMATIONS:
        return _Animation(path, kind, pixel_limit)
    # whatever it is named, only what looks like a video is opened as one
    return _VideoFrames(path, pixel_limit)


def _kind(file: BinaryIO) -> str:
    """Return the kind of several pictures that the file may hold, by its first bytes; "" for none."""
    head = file.read(_HEAD)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith(PNG_SIGNATURE):
        file.seek(0)
        return "png" if b"acTL" in file.read(4096) else ""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        # most WebP are one picture: their bytes need not be fetched to know it
        return "webp" if head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2 else ""
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in (8, *range(16, min(len(head), int.from_bytes(head[:4], "big")), 4))}
        if b"avis" in brands:
            return "avif"
        if brands & {b"avif", b"heic", b"heix", b"mif1", b"msf1"}:
            return ""
    if head[:4] in _TIFFS:
        # a camera raw, all of whose directories are one picture
        return "" if head[8:10] == b"CR" else "tiff"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"\0\0\x08") or (head.startswith(b"\x1f\x8b") and _is_zipped_idx(file)):
        return "idx"
    return "video" if video_format(head) else ""


def _is_zipped_idx(file: BinaryIO) -> bool:
    file.seek(0)
    try:
        return gzip.GzipFile(fileobj=file).read(3) == b"\0\0\x08"
    except (OSError, EOFError, zlib.error):
        return False


class _Animation:
    in_order = True

    def __init__(self, path: str, kind: str, pixel_limit: int):
        self.kind = kind
        try:
            # a plugin of its own rather than Image.open, which would try them all on hostile bytes
            self.image = _ANIMATIONS[kind](path)
        except Exception as error:
            raise explain(error, kind) from error
        self.pixels = self.image.size[0] * self.image.size[1]
        if self.pixels > pixel_limit:
            self.image.close()
            raise PictureError("too_large", f"{kind}: frames of {self.pixels:,} pixels; the limit is {pixel_limit:,}")
        self.said = _said_of(path, kind, self.image.info)

    def read(self, frame: int, reserve: Reserve = at_once) -> Frame:
        try:
            self.image.seek(frame)
            self.image.load()
            mode = "RGBA" if self.image.has_transparency_data else "RGB"
            pixels = np.array(self.image if self.image.mode == "L" else self.image.convert(mode))
        except Exception as error:
            raise explain(error, self.kind) from error
        pixels = np.ascontiguousarray(np.atleast_3d(turn_upright(pixels, self.said.orientation)))
        icc = self.said.icc
        model = {1: "grey", 3: "rgb", 4: "rgb+alpha"}[pixels.shape[2]]
        said = replace(
            self.said,
            mode="palette" if self.kind == "gif" else model,
            icc=icc if icc and profile_fits(icc, pixels.shape[2]) else None,
        )
        milliseconds = self.image.info.get("duration")
        return Frame(Picture("", pixels, said), None if milliseconds is None else float(milliseconds) / 1000)

    def close(self) -> None:
        self.image.close()


def _said_of(path: str, kind: str, info: Mapping[str, Any]) -> Metadata:
    """Return what an animation says of all its frames, and the orientation that they are yet to be turned by.

    `info` is Pillow's, which alone reads EXIF of AVIF.
    """
    exif = info.get("exif") if isinstance(info.get("exif"), bytes) else None
    plain = Metadata(kind, "", 8, icc=info.get("icc_profile"), exif=exif and exif.removeprefix(b"Exif\0\0"))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # what reads bytes reads mapped ones
        said = describe(cast(bytes, data), kind, replace(plain, xmp=info.get("xmp")))
    if said.exif is None:
        return said
    orientation, exif = orientation_of(said.exif)
    resolution = said.resolution and said.resolution.turned(orientation)
    return replace(said, orientation=orientation, exif=exif, resolution=resolution)


class _Pages:
    in_order = False
    pixels = 0

    def __init__(self, path: str, pixel_limit: int):
        self.path, self.pixel_limit = path, pixel_limit
        with open(path, "rb") as file:
            self.pages = page_offsets(file, 1 << 20)

    def read(self, frame: int, reserve: Reserve = at_once) -> Frame:
        if frame >= len(self.pages):
            raise PictureError("truncated", f"tiff: {len(self.pages)} pages are left")
        with open(self.path, "rb") as file:
            page = single_page(file, self.pages[frame])
        return Frame(decode(page, pixel_limit=self.pixel_limit, reserve=reserve), None)

    def close(self) -> None:
        pass


class _VideoFrames:
    in_order = True

    def __init__(self, path: str, pixel_limit: int):
        self.video = Video(path, pixel_limit)
        self.pixels = self.video.pixels

    def read(self, frame: int, reserve: Reserve = at_once) -> Frame:
        picture = Picture("", self.video.read(frame), Metadata(str(self.video.format), "rgb", 8))
        return Frame(picture, 1 / self.video.rate if self.video.rate else None)

    def close(self) -> None:
        self.video.close()


class _Slices:
    def __init__(self, path: str, kind: str, pixel_limit: int):
        with open(path, "rb") as file:
            self.layout = npy_layout(file) if kind == "npy" else idx_layout(file)
            file.seek(0)
            self.in_order = file.read(2) == b"\x1f\x8b"
        self.pixels = self.layout.height * self.layout.width
        if self.pixels > pixel_limit:
            raise PictureError("too_large", f"{kind}: slices of {self.pixels:,} pixels; the limit is {pixel_limit:,}")
        self.open: Callable[[], Any] = partial(gzip.open if self.in_order else open, path, "rb")
        self.stream: Any = self.open() if self.in_order else None

    def read(self, frame: int, reserve: Reserve = at_once) -> Frame:
        start = self.layout.offset + frame * self.layout.slice_bytes
        if self.stream is not None:
            self._seek(start)
            pixels = slice_of(self.layout, self.stream)
        else:
            with self.open() as file:
                file.seek(start)
                pixels = slice_of(self.layout, file)
        mode = ("grey", "grey+alpha", "rgb", "rgb+alpha")[pixels.shape[2] - 1]
        return Frame(Picture("", pixels, Metadata(self.layout.format, mode, 8 * pixels.itemsize)), None)

    def _seek(self, start: int) -> None:
        try:
            self.stream.seek(start)
        except (OSError, EOFError, zlib.error) as error:
            raise PictureError("corrupt", f"{self.layout.format}: {error}") from error

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
