"""Files of several pictures, made on the spot: animations, pages, videos, stacks."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests.picture_files import smooth

#: seconds that the frames of animations made here are shown, over and over
DURATIONS = (0.1, 0.04, 0.25)
RATE = 12.5


def moving(count: int, height: int = 24, width: int = 32, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    """Frames, count x H x W x C: a square that moves over a picture of few colours; every frame is another."""
    ground = smooth(height, width, channels, dtype) // 64 * 64
    frames = np.stack([ground] * count)
    for number in range(count):
        left = number % (width - 6)
        frames[number, 4:10, left : left + 6] = np.iinfo(dtype).max
        frames[number, 0, 0] = number % 256
    return frames


def animation(frames: np.ndarray, format: str, **options: Any) -> bytes:
    """GIF, WEBP (without loss) or PNG (animated)."""
    images = [Image.fromarray(frame) for frame in frames]
    milliseconds = [round(1000 * DURATIONS[n % len(DURATIONS)]) for n in range(len(images))]
    options = {"lossless": True, "exact": True} | options if format == "WEBP" else options
    file = io.BytesIO()
    images[0].save(file, format, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, **options)
    return file.getvalue()


def pages(frames: Sequence[np.ndarray], **options: Any) -> bytes:
    """A TIFF of many pages by OpenCV, 8 or 16 bits, H x W x 3 RGB or H x W x 1 each."""
    turned = [cv2.cvtColor(f, cv2.COLOR_RGB2BGR) if f.shape[2] == 3 else f for f in frames]
    return cv2.imencodemulti(".tiff", turned)[1].tobytes()


def video(path: Path, frames: np.ndarray, code: str, rate: float = RATE) -> Path:
    """A video of frames, count x H x W x 3 RGB."""
    size = (frames.shape[2], frames.shape[1])
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), rate, size)
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def stack(array: np.ndarray) -> bytes:
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def idx(frames: np.ndarray, zipped: bool = False) -> bytes:
    """The bytes of an idx file of count x H x W uint8 pictures."""
    data = b"\0\0\x08\x03" + struct.pack(">III", *frames.shape) + frames.tobytes()
    return gzip.compress(data) if zipped else data


#: name and maker of a file of each kind, from count x H x W x 3 uint8 frames
KINDS: dict[str, Callable[[np.ndarray], bytes]] = {
    "walk.gif": lambda frames: animation(frames, "GIF"),
    "walk.webp": lambda frames: animation(frames, "WEBP"),
    "walk.apng": lambda frames: animation(frames, "PNG"),
    "walk.tiff": pages,
    "walk.npy": stack,
}
