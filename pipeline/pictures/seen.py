"""Figures of pictures with alpha: of what is seen of them.

- **Compared** with another picture with alpha, both are laid over black and over white, and every figure is the mean of
  the two; so a change of alpha counts as much as it changes what is seen. A pixel counts by its alpha, the larger of
  the two, so that empty ground around a picture makes no figure better. Where only one has alpha, as beside a JPEG
  file, it is laid over white, and all pixels count alike.
- **Described** alone, what is fully transparent has the colours around it, and pixels count by their alpha.
- Without alpha, or with alpha that is opaque everywhere, figures are those of `pipeline.pictures.metrics`.
"""

from __future__ import annotations

import numpy as np

from pipeline.pictures.metrics import MAX_PSNR, compare, describe, psnr_of
from pipeline.pictures.picture import to_8bit
from pipeline.pictures.transparency import colour_of, has_alpha, is_transparent, over, weights_of, without_alpha

Figures = dict[str, float | None]


def compare_seen(pixels: np.ndarray, reference: np.ndarray) -> Figures:
    """Return mse, psnr, ssim, ms_ssim and mae of what is seen of two pictures, H x W x 1..4 uint8 or uint16.

    All are None if the sizes differ.
    """
    if not is_transparent(pixels) and not is_transparent(reference):
        return _compare(without_alpha(pixels), without_alpha(reference))
    if not has_alpha(pixels) or not has_alpha(reference):
        return _compare(over(to_8bit(pixels), 1), over(to_8bit(reference), 1))
    if pixels.shape[:2] != reference.shape[:2]:
        return _compare(pixels[:, :, :-1], reference[:, :, :-1])
    first, second = to_8bit(pixels), to_8bit(reference)
    weights = np.maximum(first[:, :, -1], second[:, :, -1]).astype(np.float32) / 255
    same = pixels.__array_interface__ == reference.__array_interface__
    if same or not weights.any():
        return {"mse": 0.0, "psnr": MAX_PSNR, "ssim": 1.0, "ms_ssim": 1.0, "mae": 0.0}
    figures = [compare(over(first, level), over(second, level), weights) for level in (0, 1)]
    means: Figures = {name: sum(one[name] or 0.0 for one in figures) / 2 for name in figures[0]}
    return means | {"psnr": psnr_of(means["mse"] or 0.0)}


def describe_seen(pixels: np.ndarray) -> dict[str, float]:
    """Return entropy, contrast, sharpness, colourfulness and noise_sigma of what is seen of H x W x 1..4 pixels."""
    return (
        describe(colour_of(pixels), weights_of(pixels)) if is_transparent(pixels) else describe(without_alpha(pixels))
    )


def psnr_seen(pixels: np.ndarray, reference: np.ndarray) -> float:
    """Return the PSNR in dB of `compare_seen`, of pictures of one size."""
    return compare_seen(pixels, reference)["psnr"] or 0.0


def _compare(colour: np.ndarray, reference: np.ndarray) -> Figures:
    """Return the figures of `compare`; a grey reference gets three equal channels where the picture has three."""
    if colour.shape[2] == 3 and reference.shape[2] == 1:
        reference = np.repeat(reference, 3, axis=2)
    return compare(colour, reference)
