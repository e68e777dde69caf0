"""Picture files as training takes them: decoded as `develop` decodes them, upright, in 8 bits, over white."""

from __future__ import annotations

import cv2
import numpy as np

from models.training.data import Decoder
from pipeline.errors import PictureError
from pipeline.pictures.decode import decode
from pipeline.pictures.headers import SUFFIXES
from pipeline.pictures.picture import to_8bit
from pipeline.pictures.transparency import over


def decode_for_training(data: bytes, key: str) -> np.ndarray | str:
    """Decode the bytes of a picture file to H x W x 3 uint8 RGB, or say what is wrong with it.

    Samples of more than 8 bits are rounded, grey is repeated, transparent parts show white.
    """
    try:
        pixels = over(to_8bit(decode(data, key).pixels), 1)
    except PictureError as error:
        return error.message
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.shape[2] == 1 else pixels


DECODER = Decoder(SUFFIXES, decode_for_training)
