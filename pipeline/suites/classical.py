"""Classical smoothing as baselines, told how strong the noise is: on floats, so that they serve unclipped noise, too.

All take H x W x 1|3 float32 in 0..1, which noise may leave, and the noise's sigma in 8-bit levels, and give uint8.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.steps.arrays import with_channels
from pipeline.suites.suite import levels, step

#: floats from -1 to 2 are what 16 bits hold of a picture with noise
_LOW, _SPAN = 1.0, 3.0


def gaussian(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise by Gaussian blur, whose width grows with the noise: H x W x 1|3 float32 to uint8."""
    return levels(with_channels(cv2.GaussianBlur(picture, (0, 0), 0.7 + sigma / 60)))


def bilateral(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise by the bilateral filter over 9 pixels; colours may differ by 4 sigma. H x W x 1|3 float32 to uint8."""
    return levels(with_channels(cv2.bilateralFilter(picture, 9, 4 * sigma / 255, 5)))


def non_local_means(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise by OpenCV's non-local means, on 8 bits: patches of 5 x 5 within 15 x 15. H x W x 1|3 float32 to uint8."""
    return step("non_local_means", levels(picture), strength=sigma, template=2, search=7)


def total_variation(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise by scikit-image's Chambolle, the weight being sigma. H x W x 1|3 float32 to uint8."""
    from skimage.restoration import denoise_tv_chambolle

    return levels(denoise_tv_chambolle(picture, weight=sigma / 255, channel_axis=-1))


def wavelet(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise by scikit-image's BayesShrink, colours in YCbCr. H x W x 1|3 float32 to uint8."""
    from skimage.restoration import denoise_wavelet

    colour = picture.shape[2] == 3
    return levels(
        denoise_wavelet(picture, sigma=sigma / 255, channel_axis=-1, convert2ycbcr=colour, rescale_sigma=True)
    )


def sliding_dct(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise by the pipeline's sliding DCT, at 16 bits: nothing is clipped that is within 3 sigma at sigma 50.

    H x W x 1|3 float32 to uint8.
    """
    wide = np.rint((picture + _LOW) / _SPAN * 65535).clip(0, 65535).astype(np.uint16)
    clean = step("dct_denoise", wide, sigma=sigma / _SPAN)
    return levels(clean.astype(np.float32) / 65535 * _SPAN - _LOW)
