"""Generated digits, so that tests of learning need no data set."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


def digits(count: int, side: int = 16, seed: int = 0) -> Tensor:
    """Ten digits in OpenCV's hand, moved, turned and enlarged at random: count x 1 x side x side float32 in 0..1."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([_digit(index % 10, side, rng) for index in range(count)])[:, None])


def _digit(digit: int, side: int, rng: np.random.Generator) -> np.ndarray:
    canvas = np.zeros((40, 40), np.uint8)
    cv2.putText(canvas, str(digit), (11, 29), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 255, 3, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((20, 20), rng.uniform(-12, 12), rng.uniform(0.9, 1.3))
    turn[:, 2] += rng.uniform(-3, 3, 2)
    turned = cv2.warpAffine(canvas, turn, (40, 40))
    return cv2.resize(turned, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
