"""Classical smoothing as baselines, on floats so that they serve unclipped noise too: told how strong the noise is."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.steps.arrays import with_channels
from pipeline.suites.suite import levels, step

#: floats from -1 to 2 are what 16 bits hold of a picture with noise
_LOW, _SPAN = 1.0, 3.0


def gaussian(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, its width grown with the noise: H x W x 1|3 float32 to uint8."""
    return levels(with_channels(cv2.GaussianBlur(picture, (0, 0), 0.7 + sigma / 60)))


def bilateral(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Bilateral filter over 9 pixels; colours may differ by 4 sigma."""
    return levels(with_channels(cv2.bilateralFilter(picture, 9, 4 * sigma / 255, 5)))


def non_local_means(picture: np.ndarray, sigma: float) -> np.ndarray:
    """OpenCV's, on 8 bits: patches of 5 x 5 within 15 x 15."""
    return step("non_local_means", levels(picture), strength=sigma, template=2, search=7)


def total_variation(picture: np.ndarray, sigma: float) -> np.ndarray:
    """scikit-image's Chambolle, the weight being sigma."""
    from skimage.restoration import denoise_tv_chambolle

    return levels(denoise_tv_chambolle(picture, weight=sigma / 255, channel_axis=-1))


def wavelet(picture: np.ndarray, sigma: float) -> np.ndarray:
    """scikit-image's BayesShrink, colours in YCbCr."""
    from skimage.restoration import denoise_wavelet

    colour = picture.shape[2] == 3
    return levels(
        denoise_wavelet(picture, sigma=sigma / 255, channel_axis=-1, convert2ycbcr=colour, rescale_sigma=True)
    )


def sliding_dct(picture: np.ndarray, sigma: float) -> np.ndarray:
    """The pipeline's sliding DCT, at 16 bits so that nothing is clipped that is within 3 sigma at sigma 50."""
    wide = np.rint((picture + _LOW) / _SPAN * 65535).clip(0, 65535).astype(np.uint16)
    clean = step("dct_denoise", wide, sigma=sigma / _SPAN)
    return levels(clean.astype(np.float32) / 65535 * _SPAN - _LOW)
