"""Stacks of slices: `.npy` arrays (D x H x W or D x H x W x C, uint8 or uint16) and the idx files of MNIST.

Headers are read with bounds and compared with the file's size before any sample is; nothing is ever unpickled.
An array of three axes is always a stack of grey pictures.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np

from pipeline.errors import PictureError

_HEADER_LIMIT = 4096
_NPY = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
#: headers are Python literals, and CPython 3.11 fails now and then where two threads parse at once
#: (https://github.com/python/cpython/issues/106905); filters of warnings are the process's, too
_PARSING = threading.Lock()


@dataclass(frozen=True)
class Layout:
    """The place of a stack's slices in its file.

    There are `count` slices of height x width x channels samples, from byte `offset` on.
    """

    format: str
    count: int
    height: int
    width: int
    channels: int
    dtype: np.dtype
    offset: int

    @property
    def slice_bytes(self) -> int:
        """Bytes of one slice."""
        return self.height * self.width * self.channels * self.dtype.itemsize


def npy_layout(file: BinaryIO) -> Layout:
    """Read the layout of a `.npy` file, open at its start.

    Raises PictureError: truncated (the file has fewer bytes than its header says), unsupported (other types, other
    axes, Fortran's order), corrupt.
    """
    try:
        version = np.lib.format.read_magic(file)
        with _PARSING, warnings.catch_warnings():
            # what numpy says of headers that Python 2 wrote
            warnings.simplefilter("ignore")
            shape, fortran, dtype = _NPY[version](file, max_header_size=_HEADER_LIMIT)
    except KeyError as error:
        raise PictureError("unsupported", "npy: a version of the format that is not read; save it again") from error
    except (
        ValueError,
        TypeError,
        SyntaxError,
        EOFError,
        UnicodeError,
        RecursionError,
        MemoryError,
        TokenError,
    ) as error:
        raise PictureError("corrupt", f"npy: {error}"[:300]) from error
    if dtype not in (np.dtype("u1"), np.dtype("<u2"), np.dtype(">u2")):
        raise PictureError("unsupported", f"npy: samples of type {dtype} are not read; save uint8 or uint16")
    if fortran:
        raise PictureError("unsupported", "npy: Fortran's order is not read; save numpy.ascontiguousarray(array)")
    channels = shape[3] if len(shape) == 4 else 1
    if len(shape) not in (3, 4) or not 1 <= channels <= 4:
        raise PictureError("unsupported", f"npy: an array of {shape} is no stack of D x H x W or D x H x W x 1..4")
    return _checked(Layout("npy", shape[0], shape[1], shape[2], channels, dtype, file.tell()), file)


def idx_layout(file: BinaryIO) -> Layout:
    """Read the layout of an idx file of pictures (N x H x W unsigned bytes), open at its start; it may be gzipped.

    Raises PictureError: truncated, unsupported (labels, other types), corrupt.
    """
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    inner: Any = gzip.GzipFile(fileobj=file) if zipped else file
    try:
        head = inner.read(16)
    except (OSError, EOFError, zlib.error) as error:
        raise PictureError("corrupt", f"idx: {error}") from error
    if len(head) < 16 or head[:3] != b"\0\0\x08" or head[3] != 3:
        raise PictureError("unsupported", "idx: only pictures are read, N x H x W unsigned bytes; these are none")
    count, height, width = struct.unpack(">III", head[4:])
    layout = Layout("idx", count, height, width, 1, np.dtype("u1"), 16)
    return layout if zipped else _checked(layout, file)


def slice_of(layout: Layout, file: BinaryIO) -> np.ndarray:
    """Read the slice that begins where the file stands: H x W x C, uint8 or uint16. Raises PictureError."""
    try:
        data = file.read(layout.slice_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise PictureError("corrupt", f"{layout.format}: {error}") from error
    if len(data) < layout.slice_bytes:
        raise PictureError("truncated", f"{layout.format}: the file ends inside this slice")
    pixels = np.frombuffer(data, layout.dtype).reshape(layout.height, layout.width, layout.channels)
    return pixels.astype(layout.dtype.newbyteorder("="))


def _checked(layout: Layout, file: BinaryIO) -> Layout:
    # numpy's header reader lets negative sizes pass
    if min(layout.count, layout.height, layout.width) < 1:
        raise PictureError("corrupt", f"{layout.format}: a stack without a slice, or slices without a pixel")
    have = file.seek(0, io.SEEK_END) - layout.offset
    if math.prod((layout.count, layout.slice_bytes)) > have:
        said = f"{layout.count} slices of {layout.slice_bytes:,} bytes are announced, {max(0, have):,} bytes are there"
        raise PictureError("truncated", f"{layout.format}: {said}")
    return layout
