"""A 64-bit hash that is alike for similar pictures: for finding duplicates, rescaled and recompressed copies."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.pictures.transparency import shown


def perceptual_hash(pixels: np.ndarray) -> str:
    """Return the DCT hash of a picture, as it is shown where it has alpha, as 16 hexadecimal digits.

    `pixels` is H x W x 1..4, uint8 or uint16. The luma is brought to 32 x 32; the bits tell which of its 8 x 8 lowest
    frequencies (without the constant row and column) lie above their median. Copies that were rescaled or recompressed
    differ in few bits; unrelated pictures differ in about 32.
    """
    pixels = shown(pixels)
    colour = pixels.shape[2] == 3
    luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if colour else np.ascontiguousarray(pixels[:, :, 0])
    # Halving first is several times faster than one large step to an odd scale, and area means are kept all the same.
    while min(luma.shape) >= 256:
        even = luma[: luma.shape[0] // 2 * 2, : luma.shape[1] // 2 * 2]
        luma = cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small / np.float32(np.iinfo(pixels.dtype).max))[1:9, 1:9]
    # Rounded, so that the noise of single precision decides nothing in flat pictures.
    low = np.round(low, 4)
    return np.packbits(low > np.median(low)).tobytes().hex()
