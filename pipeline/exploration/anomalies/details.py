"""What exploring keeps of a picture for its heat map, until all others have been seen: its patches, and a preview."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pipeline.exploration.anomalies.patches import NUMBERS, Patches, patches_of

#: longest side of what heat maps are painted over, pixels
PREVIEW = 480


@dataclass(frozen=True)
class Detail:
    """The patches of a picture, and the picture itself as a JPEG file, no side over `PREVIEW`."""

    patches: Patches
    preview: bytes


def row_of_details(pixels: np.ndarray) -> dict[str, Any]:
    """Make a row of the table of details, without key and shard, of pixels H x W x 1|3 uint8."""
    patches = patches_of(pixels)
    height, width = patches.shape
    return {"high": height, "wide": width, "patches": patches.values.tobytes(), "preview": _preview(pixels)}


def detail_of(row: Mapping[str, Any]) -> Detail:
    """Make the detail of a row. Raises ValueError where the array is of another size."""
    values = np.frombuffer(row["patches"], np.float16).reshape(NUMBERS, row["high"], row["wide"])
    return Detail(Patches(values), row["preview"])


def _preview(pixels: np.ndarray) -> bytes:
    height, width = pixels.shape[:2]
    scale = min(1.0, PREVIEW / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    if small.ndim == 3 and small.shape[2] == 3:
        small = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
