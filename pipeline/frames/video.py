"""Short videos through OpenCV's FFmpeg: MP4, MOV, AVI, Matroska and WebM, frame by frame.

Only files that begin like one of these are handed to FFmpeg: others, playlists above all, could make it open the files
they name. Frames are taken to follow each other at the rate the file announces. Videos are written as MPEG-4 Part 2
(mp4, mov), Motion JPEG (avi), VP9 (webm) and, without loss, FFV1 (mkv): the codecs that OpenCV's wheels have.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, BinaryIO

# FFmpeg would print what it thinks of bad files; read when it is first used
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from pipeline.errors import PictureError

#: how the formats that are written are coded
CODECS = {"mp4": "mp4v", "mov": "mp4v", "avi": "MJPG", "webm": "VP90", "mkv": "FFV1"}
_MOVIE_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip")
_RATES = (0.01, 1000.0)


def video_format(head: bytes) -> str | None:
    """Return mp4, avi or mkv (WebM too), by a file's first 12 bytes or more; None for what is no video."""
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "mkv"
    return "mp4" if head[4:8] in (b"ftyp", *_MOVIE_BOXES) else None


class Video:
    """An open video, at its first frame. Not safe to call from several threads at once.

    `count` is how many frames it announces; `rate` frames a second, None where it gives none.
    Raises PictureError: not_an_image, corrupt (FFmpeg does not read it), too_large (frames of more than `pixel_limit`
    pixels).
    """

    def __init__(self, source: str | BinaryIO, pixel_limit: int | None = None):
        self.source, self.pixel_limit = source, pixel_limit
        self._open()

    def _open(self) -> None:
        if isinstance(self.source, str):
            with open(self.source, "rb") as file:
                self.format = video_format(file.read(64))
        else:
            self.source.seek(0)
            self.format = video_format(self.source.read(64))
            self.source.seek(0)
        if self.format is None:
            raise PictureError("not_an_image", "the first bytes are those of no video that is read: MP4, MOV, AVI, MKV")
        source: Any = self.source
        self.capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, [])
        self.position = 0
        width, height = (int(self.capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        self.pixels = width * height
        if not self.capture.isOpened() or width < 1 or height < 1:
            raise PictureError("corrupt", f"{self.format}: FFmpeg finds no video in it that it can decode")
        if self.pixel_limit is not None and self.pixels > self.pixel_limit:
            said = f"frames of {self.pixels:,} pixels; the limit is {self.pixel_limit:,}"
            raise PictureError("too_large", f"{self.format}: {said}")
        self.count = max(1, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if _RATES[0] <= rate <= _RATES[1] else None

    def read(self, frame: int) -> np.ndarray:
        """Read one frame: H x W x 3 RGB, uint8, upright; quick where frames are read in their order.

        Raises PictureError: truncated where the video ends before, corrupt for a frame that cannot be decoded.
        """
        if frame < self.position:
            self.capture.release()
            self._open()
        pixels = None
        while self.position <= frame:
            if not self.capture.grab():
                said = f"the video ends after {self.position} of the {self.count} frames it announces"
                raise PictureError("truncated", f"{self.format}: {said}")
            self.position += 1
        pixels = self.capture.retrieve()[1]
        if pixels is None or pixels.ndim != 3:
            raise PictureError("corrupt", f"{self.format}: this frame cannot be decoded")
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        """Close the video."""
        self.capture.release()


def write_video(path: str, format: str, rate: float, frames: Iterable[np.ndarray]) -> None:
    """Write frames, H x W x 3 RGB uint8 of one size, as a video of `rate` frames a second to a local file.

    An odd last row or column is doubled: these codecs want even sides. Raises PictureError ("unsupported").
    """
    writer = None
    for pixels in frames:
        height, width = pixels.shape[:2]
        even = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if writer is None:
            code = cv2.VideoWriter.fourcc(*CODECS[format])
            writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, code, rate, (even.shape[1], even.shape[0]))
            if not writer.isOpened():
                raise PictureError("unsupported", f"{format}: this OpenCV has no {CODECS[format]} encoder")
        writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
    if writer is not None:
        writer.release()
